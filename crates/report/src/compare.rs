//! This run's metrics beside the target branch's.

use super::markdown::{MarkdownTable, cell};
use super::metrics::{MetricValue, Metrics};
use super::{MetricsFile, numbers};
use std::cmp::Ordering;

/// The share of the values below which a difference is the noise of floating point.
const ROUNDING_NOISE: f64 = 1e-12;

/// The table of one file: this run's metrics in their order, then the target's metrics that this run lacks.
///
/// Without values on the target branch there is nothing to compare, and two columns do.
pub(super) fn table(file: &MetricsFile) -> MarkdownTable {
    let none = Metrics::default();
    let now = file.now.as_ref().unwrap_or(&none);
    let Some(before) = &file.before else {
        let rows = now.iter().map(|(name, value)| vec![cell(name), shown(value)]);
        return MarkdownTable { header: &["Metric", "This run"], rows: rows.collect() };
    };
    let mut rows: Vec<_> =
        now.iter().map(|(name, value)| row(name, before.get(name), Some(value), before)).collect();
    let gone = before.iter().filter(|(name, _)| now.get(name).is_none());
    // A name that the bound left out of this run's metrics may well be there.
    let gone = gone.filter(|_| now.left_out() == 0);
    rows.extend(gone.map(|(name, value)| row(name, Some(value), None, before)));
    MarkdownTable { header: &["Metric", "Target", "This run", "Change"], rows }
}

fn row(
    name: &str,
    before: Option<&MetricValue>,
    now: Option<&MetricValue>,
    all_before: &Metrics,
) -> Vec<String> {
    let change = match (before, now) {
        (Some(before), Some(now)) => change(before, now),
        (Some(_), None) => "gone".to_owned(),
        _ if all_before.left_out() > 0 => String::new(),
        _ => "new".to_owned(),
    };
    let shown = |value: Option<&MetricValue>| value.map_or_else(String::new, shown);
    vec![cell(name), shown(before), shown(now), change]
}

fn shown(value: &MetricValue) -> String {
    match value {
        MetricValue::Number(number) => numbers::number(*number),
        MetricValue::Text(text) => cell(text),
        MetricValue::Bool(truth) => truth.to_string(),
    }
}

/// Says which way, and by how much; not whether that is good, which only the metric's author knows.
fn change(before: &MetricValue, now: &MetricValue) -> String {
    let (MetricValue::Number(before), MetricValue::Number(now)) = (before, now) else {
        return if before == now { "=" } else { "changed" }.to_owned();
    };
    let arrow = match now.partial_cmp(before) {
        Some(Ordering::Less) => '↓',
        Some(Ordering::Greater) => '↑',
        Some(Ordering::Equal) => return "=".to_owned(),
        None if now.is_nan() && before.is_nan() => return "=".to_owned(),
        None => return "changed".to_owned(),
    };
    let delta = now - before;
    if delta.is_finite() && delta.abs() <= ROUNDING_NOISE * before.abs().max(now.abs()) {
        return "=".to_owned();
    }
    let share = 100.0 * delta / before.abs();
    match (delta.is_finite(), share.is_finite()) {
        (false, _) => arrow.to_string(),
        (true, false) => format!("{arrow} {}", numbers::signed(delta)),
        (true, true) => format!("{arrow} {} ({})", numbers::signed(delta), numbers::percent(share)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::parse;

    fn table_of(now: &str, before: &str) -> String {
        let file = MetricsFile {
            path: "m.txt".to_owned(),
            now: parse("m.txt", now.as_bytes()).ok(),
            before: parse("m.txt", before.as_bytes()).ok(),
            problem: None,
        };
        let table = table(&file);
        table.rows.iter().map(|row| row.join(" | ") + "\n").collect()
    }

    #[test]
    fn changes_have_an_arrow_and_a_size() {
        let cases = [
            ("0.9", "0.8", "↑ +0.1 (+12.5 %)"),
            ("0.1", "0.30000000000000004", "↓ -0.2 (-66.7 %)"),
            ("0.3", "0.30000000000000004", "="),
            ("-1", "-2", "↑ +1 (+50 %)"),
            ("5", "0", "↑ +5"),
            ("0", "0", "="),
            ("nan", "nan", "="),
            ("nan", "1", "changed"),
            ("inf", "1", "↑"),
            ("inf", "inf", "="),
            ("1e308", "-1e308", "↑"),
            ("true", "false", "changed"),
            ("rf", "rf", "="),
            ("1", "rf", "changed"),
        ];
        for (now, before, expected) in cases {
            let table = table_of(&format!("m: {now}"), &format!("m: {before}"));
            assert_eq!(table.trim_end().rsplit(" | ").next(), Some(expected), "{before} → {now}");
        }
    }

    #[test]
    fn new_and_gone_metrics_are_marked() {
        assert_eq!(table_of("b: 2\na: 1", "c: 3\na: 1"), "b |  | 2 | new\na | 1 | 1 | =\nc | 3 |  | gone\n");
        assert_eq!(table_of("b: 2\na: 1", ""), "b | 2\na | 1\n");
        assert_eq!(table_of("", "a: 1"), "a | 1 |  | gone\n");
    }

    #[test]
    fn what_was_not_read_is_neither_new_nor_gone() {
        let many = (0..300).map(|n| format!("m{n}: {n}\n")).collect::<Vec<_>>().concat();
        let table = table_of(&many, &(many.clone() + "x: 1"));
        assert!(!table.contains("new") && !table.contains("gone"));
        assert!(!table_of("m299: 1", &many).contains("new"));
    }
}
