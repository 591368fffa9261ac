//! What a training measured, read from the file that it wrote.
//!
//! Every format becomes the same thing: an ordered list of dotted names with a value each.

mod lines;
mod tree;

use trainspot_base::error::{Context as _, Error, Result};

/// The largest metrics file. A larger one is the history of a run rather than its summary, and would only
/// fill the report.
const METRICS_LIMIT_BYTES: usize = 1 << 20;

/// The most values of a file that are kept, more than anyone reads. Further values are counted.
const METRICS_LIMIT_VALUES: usize = 200;

/// The longest name that is kept, more than a report shows. Below a longer one, each value has a name that is
/// longer still: a short file would become a long list.
const NAME_LIMIT_BYTES: usize = 1000;

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// Any number; not-a-number and the infinities too, since a training that diverged writes them.
    Number(f64),
    /// Anything that is neither number nor truth value.
    Text(String),
    /// A truth value.
    Bool(bool),
}

impl MetricValue {
    /// Numbers and truth values are recognised in quotes too: `json.dump(…, default=str)` writes them so.
    fn read(text: &str) -> Self {
        if let Ok(number) = text.parse() {
            return Self::Number(number);
        }
        match text {
            "true" | "True" => Self::Bool(true),
            "false" | "False" => Self::Bool(false),
            _ => Self::Text(text.to_owned()),
        }
    }
}

/// The metrics of one file, in the file's order, each name once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    values: Vec<(String, MetricValue)>,
    left_out: usize,
}

impl Metrics {
    /// Each dotted name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetricValue)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of a dotted name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&MetricValue> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// How many values the file has beyond those that are kept.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// A name that comes again has its newest value: in a log-like file that is the final one.
    fn push(&mut self, name: String, value: MetricValue) {
        let name = if name.is_empty() { "value".to_owned() } else { name };
        match self.values.iter().position(|(known, _)| *known == name) {
            Some(at) => self.values[at].1 = value,
            None if self.values.len() < METRICS_LIMIT_VALUES && name.len() <= NAME_LIMIT_BYTES => {
                self.values.push((name, value));
            }
            None => self.left_out += 1,
        }
    }

    /// Takes a value as text. `23.4%` is a number whose unit moves to the name, so that it can be compared.
    fn push_text(&mut self, name: String, text: &str) {
        let text = text.trim();
        match text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok()) {
            Some(percent) => {
                self.push(format!("{name} %").trim_start().to_owned(), MetricValue::Number(percent));
            }
            None => self.push(name, MetricValue::read(text)),
        }
    }
}

/// Reads a metrics file, its format told by the extension of `path`: JSON, YAML, TOML, CSV, TSV, and
/// else lines of `name: value` or `name = value`.
///
/// Fails for a file that is over 1 MiB, not UTF-8, malformed, or without a single value.
pub fn parse(path: &str, bytes: &[u8]) -> Result<Metrics> {
    read(path, bytes).with_context(|| format!("cannot read metrics from {path}"))
}

fn read(path: &str, bytes: &[u8]) -> Result<Metrics> {
    if bytes.len() > METRICS_LIMIT_BYTES {
        return Err(Error::new(format!(
            "it has {} bytes, of which at most {METRICS_LIMIT_BYTES} are read",
            bytes.len()
        )));
    }
    let text = std::str::from_utf8(bytes).context("it is not UTF-8 text")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    let metrics = match extension.as_str() {
        "json" => tree::json(text)?,
        "yaml" | "yml" => tree::yaml(text)?,
        "toml" => tree::toml(text)?,
        "csv" => lines::csv(text, b',')?,
        "tsv" => lines::csv(text, b'\t')?,
        _ => lines::pairs(text),
    };
    if metrics.values.is_empty() {
        return Err(Error::new("it holds no value"));
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_says_what_is_wrong_with_it() {
        let cases: [(&str, &[u8], &str); 9] = [
            ("m.json", b"\xff\xfe{", "cannot read metrics from m.json: it is not UTF-8 text: invalid utf-8"),
            ("m.json", b"{\"a\": 1", "cannot read metrics from m.json: it is not JSON: EOF while parsing"),
            ("m.json", b"{}", "cannot read metrics from m.json: it holds no value"),
            ("m.toml", b"a = ", "cannot read metrics from m.toml: it is not TOML: "),
            ("m.yaml", b"a: [1", "cannot read metrics from m.yaml: it is not YAML: "),
            ("m.yaml", b"a: !!binary '%'", "cannot read metrics from m.yaml: it is not YAML: "),
            ("m.csv", b"loss,accuracy\n", "cannot read metrics from m.csv: it holds no value"),
            ("m.txt", b"", "cannot read metrics from m.txt: it holds no value"),
            ("m", b"precision recall\n", "cannot read metrics from m: it holds no value"),
        ];
        for (path, bytes, expected) in cases {
            let message = parse(path, bytes).unwrap_err().render();
            assert!(message.starts_with(expected), "{path}: {message}");
            assert!(!message.contains("Options") && !message.contains("serde"), "{path}: {message}");
        }
        let large = vec![b' '; METRICS_LIMIT_BYTES + 1];
        let message = parse("m.txt", &large).unwrap_err().render();
        assert_eq!(
            message,
            "cannot read metrics from m.txt: it has 1048577 bytes, of which at most 1048576 are read"
        );
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted() {
        let text = (0..METRICS_LIMIT_VALUES + 5).map(|n| format!("m{n}: {n}\n")).collect::<Vec<_>>().concat();
        let metrics = parse("m.txt", text.as_bytes()).unwrap();
        assert_eq!((metrics.iter().count(), metrics.left_out()), (METRICS_LIMIT_VALUES, 5));
    }

    #[test]
    fn a_long_name_is_counted_and_not_kept_for_each_value_below_it() {
        let values: Vec<_> = (0..1000).map(|n| format!("\"{n}\": 1")).collect();
        for unit in ["x", "ü"] {
            let long = unit.repeat(NAME_LIMIT_BYTES);
            let text = format!(r#"{{"f1": 1, "{long}": {{{}}}, "auc": 2}}"#, values.join(", "));
            for path in ["m.json", "m.yaml"] {
                let metrics = parse(path, text.as_bytes()).unwrap();
                let names: Vec<_> = metrics.iter().map(|(name, _)| name).collect();
                assert_eq!((names, metrics.left_out()), (vec!["f1", "auc"], values.len()));
            }
        }
        let text = format!("{}: 1\nf1: 1\n", "x".repeat(NAME_LIMIT_BYTES + 1));
        assert_eq!(parse("m.txt", text.as_bytes()).unwrap().left_out(), 1);
    }

    #[test]
    fn a_byte_order_mark_and_an_upper_case_extension_are_no_obstacle() {
        let metrics = parse("M.JSON", "\u{feff}{\"a\": 1}".as_bytes()).unwrap();
        assert_eq!(metrics.get("a"), Some(&MetricValue::Number(1.0)));
    }

    #[test]
    fn no_bytes_make_any_parser_panic() {
        const PIECES: [&str; 28] = [
            "{", "}", "[", "]", ":", "=", ",", "\n", "\t", " ", "\"", "'", "|", "&a ", "*a", "- ", "#", "%",
            "\\", "!!float ", "<<: ", "1e999", ".nan", "NaN", "0x", "ü", "---\n", "a",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3000 {
            let bytes = if random.bool() {
                std::iter::repeat_with(|| random.u8(..)).take(40).collect()
            } else {
                let pieces: Vec<_> =
                    std::iter::repeat_with(|| *random.choice(&PIECES).unwrap()).take(30).collect();
                pieces.concat().into_bytes()
            };
            for extension in ["json", "yaml", "toml", "csv", "tsv", "txt"] {
                if let Ok(metrics) = parse(&format!("m.{extension}"), &bytes) {
                    assert!((1..=METRICS_LIMIT_VALUES).contains(&metrics.iter().count()));
                }
            }
        }
    }
}
