//! Tables and lines of text.

use super::{MetricValue, Metrics};
use csv::{ReaderBuilder, StringRecord, Trim};
use trainspot_base::error::{Context as _, Result};

/// The metrics of a table: of one with a row for each metric, every row; of one with a row for each step,
/// each column's last value. Lightning and others write a row for training and another one for validation,
/// each with the other's cells empty, so the last row alone is half of what was measured.
pub(super) fn csv(text: &str, delimiter: u8) -> Result<Metrics> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .from_reader(text.as_bytes());
    let mut rows = Vec::<StringRecord>::new();
    for row in reader.records() {
        rows.push(row.context("it is not a table of comma-separated values")?);
    }
    let mut metrics = Metrics::default();
    let Some((header, body)) = rows.split_first() else { return Ok(metrics) };
    if names_metrics(header, body) {
        let skipped = usize::from(!is_number(&header[1]) || header[0].is_empty());
        for row in rows.iter().skip(skipped) {
            metrics.push_text(row[0].to_owned(), &row[1]);
        }
    } else {
        for (column, name) in header.iter().enumerate() {
            let last = body.iter().rev().find_map(|row| row.get(column).filter(|cell| !cell.is_empty()));
            // A column without a name is pandas' index.
            if let Some(value) = last.filter(|_| !name.is_empty()) {
                metrics.push_text(name.to_owned(), value);
            }
        }
    }
    Ok(metrics)
}

/// Whether each row is `name,value`: by the header (`metric,value`, or pandas' `,0`), or for want of one.
/// A first column of numbers is an index or a step, never a name.
fn names_metrics(header: &StringRecord, body: &[StringRecord]) -> bool {
    let named = matches!(header[0].to_ascii_lowercase().as_str(), "" | "metric" | "metrics" | "name" | "key")
        || header.get(1).is_some_and(|second| second.eq_ignore_ascii_case("value") || is_number(second));
    let pairs = header.len() == 2 && body.iter().all(|row| row.len() == 2 && !is_number(&row[0]));
    named && pairs && !is_number(&header[0])
}

fn is_number(text: &str) -> bool {
    matches!(MetricValue::read(text), MetricValue::Number(_))
}

/// Lines of `name: value`, `name = value` or `name=value`; others, as comments and headlines, are passed
/// over.
pub(super) fn pairs(text: &str) -> Metrics {
    let mut metrics = Metrics::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        // In this order, `at t=0.5: 0.9` and `url=http://…` are both cut where their author meant it.
        let pair = line.split_once(": ").or_else(|| line.split_once('=')).or_else(|| line.split_once(':'));
        match pair.map(|(name, value)| (name.trim(), value.trim())) {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                metrics.push_text(name.to_owned(), value);
            }
            None if is_number(line) => metrics.push_text(String::new(), line),
            _ => {}
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(metrics: &Metrics) -> String {
        let values: Vec<_> = metrics.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        values.join(" ").replace("Number", "")
    }

    #[test]
    fn tables() {
        let cases = [
            ("epoch,loss\n1,0.5\n2,0.25\n", "epoch=(2.0) loss=(0.25)"),
            ("metric,value\nf1,0.5\nauc,0.25\n", "f1=(0.5) auc=(0.25)"),
            ("f1,0.5\nauc,0.25\n", "f1=(0.5) auc=(0.25)"),
            (",0\nf1,0.5\nauc,0.25\n", "f1=(0.5) auc=(0.25)"),
            (",loss\n0,0.5\n1,0.25\n", "loss=(0.25)"),
            ("model,f1\nrf,0.5\nsvm,0.25\n", "model=Text(\"svm\") f1=(0.25)"),
            // As Lightning's CSVLogger writes it: training and validation in rows of their own.
            (
                "epoch,step,train_loss,val_loss\n0,9,0.9,\n0,9,,0.8\n1,19,0.5,\n1,19,,0.4\n",
                "epoch=(1.0) step=(19.0) train_loss=(0.5) val_loss=(0.4)",
            ),
            // A last row that only one callback wrote, and one that broke off.
            ("epoch,acc,lr\n1,0.7,0.1\n2,0.8,0.01\n,,0.001\n3", "epoch=(3.0) acc=(0.8) lr=(0.001)"),
            ("loss,never\n0.5,\n0.25,\n", "loss=(0.25)"),
            ("a , b,c\r\n1, nan\r\n", "a=(1.0) b=(NaN)"),
            ("\"x, y\",\"z\"\n\"1\",\"two \"\"2\"\"\"\n", "x, y=(1.0) z=Text(\"two \\\"2\\\"\")"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(&csv(text, b',').unwrap()), expected, "{text}");
        }
        assert_eq!(shown(&csv("a\tb\n1\t2\n", b'\t').unwrap()), "a=(1.0) b=(2.0)");
    }

    #[test]
    fn lines_of_text() {
        let cases = [
            ("Training variance explained: 23.4%\n", "Training variance explained %=(23.4)"),
            ("a=1\nb = -2e-3\nc:3\n\n# d=4\nhello\n", "a=(1.0) b=(-0.002) c=(3.0)"),
            ("at t=0.5: 0.9\nurl=http://x\n", "at t=0.5=(0.9) url=Text(\"http://x\")"),
            ("loss: 0.5\r\nloss: 0.25\r\nbest: True\n", "loss=(0.25) best=Bool(true)"),
            ("0.93\n", "value=(0.93)"),
            ("a: inf\nb: NaN\n: 1\nc:\n", "a=(inf) b=(NaN)"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(&pairs(text)), expected, "{text}");
        }
    }
}
