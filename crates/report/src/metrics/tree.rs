//! JSON, YAML and TOML: nested values, flattened to dotted names while they are parsed.
//!
//! No tree is built in between. That keeps not-a-number, which `serde_json::MetricValue` cannot hold, and the
//! file's order, save for TOML, whose parser sorts the names.

use super::{MetricValue, Metrics, NAME_LIMIT_BYTES};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::UserMessageFormatter;
use serde_saphyr::options::NonFiniteFloatPolicy;
use std::fmt;
use trainspot_base::error::{Context as _, Result};

/// So many items of an array are metrics of their own; a longer one is a history, and must not crowd out
/// the values that follow it.
const MAX_ITEMS: usize = 20;

/// YAML's parser alone would recurse two thousand levels deep, more than a small stack holds.
const MAX_DEPTH: usize = 32;

/// Where TOML's deserializer hides a date and time inside a map.
const TOML_DATETIME: &str = "$__toml_private_datetime";

pub(super) fn json(text: &str) -> Result<Metrics> {
    let strict = flatten(|node| {
        let mut json = serde_json::Deserializer::from_str(text);
        node.deserialize(&mut json)?;
        json.end()
    });
    // Python's `json` writes NaN and Infinity, which are not JSON. YAML takes them, and the rest of JSON.
    match strict {
        Err(_) if text.contains("NaN") || text.contains("Infinity") => {
            yaml(text).or(strict.context("it is not JSON"))
        }
        strict => strict.context("it is not JSON"),
    }
}

pub(super) fn yaml(text: &str) -> Result<Metrics> {
    let options = serde_saphyr::options! {
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false, // An error has one line in the report.
    };
    let metrics = flatten(|node| {
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| node.deserialize(yaml))
    });
    // The parser's own wording is for programmers who use the parser: it names options of its interface.
    let for_people = |error: serde_saphyr::Error| error.render_with_formatter(&UserMessageFormatter);
    metrics.map_err(for_people).context("it is not YAML")
}

pub(super) fn toml(text: &str) -> Result<Metrics> {
    flatten(|node| node.deserialize(toml::Deserializer::parse(text)?)).context("it is not TOML")
}

fn flatten<E>(read: impl FnOnce(Node<'_>) -> Result<(), E>) -> Result<Metrics, E> {
    let mut metrics = Metrics::default();
    read(Node { metrics: &mut metrics, name: String::new(), depth: 0 })?;
    Ok(metrics)
}

/// A place in the document, and where its values go.
struct Node<'a> {
    metrics: &'a mut Metrics,
    name: String,
    depth: usize,
}

impl Node<'_> {
    fn child(&mut self, key: &str) -> Node<'_> {
        let mut name = match (self.name.as_str(), key) {
            (name, TOML_DATETIME) => name.to_owned(),
            ("", key) => key.to_owned(),
            (name, key) => format!("{name}.{key}"),
        };
        // Long enough to be too long, and no more than that.
        name.truncate(name.ceil_char_boundary(NAME_LIMIT_BYTES + 1));
        Node { metrics: self.metrics, name, depth: self.depth + 1 }
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth < MAX_DEPTH {
            return Ok(());
        }
        Err(E::custom(format_args!("values are nested more than {MAX_DEPTH} deep")))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

// Counts beyond 2^53 lose their last digits; a report shows fewer.
#[allow(clippy::cast_precision_loss)]
impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("numbers, texts and truth values")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.metrics.push(self.name, MetricValue::Bool(value));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.metrics.push(self.name, MetricValue::Number(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.metrics.push_text(self.name, value);
        Ok(())
    }

    /// An empty document has no name here, and no value either.
    fn visit_unit<E>(self) -> Result<(), E> {
        if !self.name.is_empty() {
            self.metrics.push(self.name, MetricValue::Text("null".to_owned()));
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.check_depth()?;
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(self.child(&key))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.check_depth()?;
        for index in 0..MAX_ITEMS {
            if items.next_element_seed(self.child(&index.to_string()))?.is_none() {
                return Ok(());
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {
            self.metrics.left_out += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(metrics: Result<Metrics>) -> String {
        let metrics = metrics.unwrap();
        let lines: Vec<_> = metrics.iter().map(|(name, value)| format!("{name} {value:?}")).collect();
        lines.join("\n")
    }

    #[test]
    fn the_three_formats_flatten_alike() {
        let expected = "loss Number(0.25)\ntest.f1 Number(0.9)\ntest.ok Bool(true)\ntest.kind Text(\"rf\")\n\
                        folds.0 Number(1.0)\nfolds.1 Number(-2.0)";
        let json_text =
            r#"{"loss": 0.25, "test": {"f1": "0.9", "ok": true, "kind": "rf"}, "folds": [1, -2]}"#;
        assert_eq!(shown(json(json_text)), expected);
        let yaml_text = "loss: 0.25\ntest:\n  f1: '0.9'\n  ok: true\n  kind: rf\nfolds: [1, -2]\n";
        assert_eq!(shown(yaml(yaml_text)), expected);
        let toml_text = "loss = 0.25\ntest = {f1 = 0.9, ok = true, kind = 'rf'}\nfolds = [1, -2]\n";
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(&shown(toml(toml_text))), sorted(expected));
    }

    #[test]
    fn not_a_number_and_infinity_survive() {
        let expected = "a Number(NaN)\nb Number(-inf)";
        assert_eq!(shown(json(r#"{"a": NaN, "b": -Infinity}"#)), expected);
        assert_eq!(shown(yaml("a: .nan\nb: -.inf\n")), expected);
        assert_eq!(shown(toml("a = nan\nb = -inf\n")), expected);
        assert!(json(r#"{"a": NaN"#).unwrap_err().to_string().contains("not JSON"));
    }

    #[test]
    fn oddities_are_values_too() {
        assert_eq!(shown(json("0.93")), "value Number(0.93)");
        assert_eq!(shown(json(r#"{"a": null, "b": "23.4 %"}"#)), "a Text(\"null\")\nb % Number(23.4)");
        assert_eq!(shown(toml("at = 2024-05-01T10:00:00Z")), "at Text(\"2024-05-01T10:00:00Z\")");
        assert_eq!(shown(yaml("1: 2\ntrue: yes\n")), "1 Number(2.0)\ntrue Bool(true)");
    }

    #[test]
    fn a_long_array_does_not_crowd_out_what_follows() {
        let history: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let metrics = json(&format!(r#"{{"history": [{}], "accuracy": 1}}"#, history.join(","))).unwrap();
        assert_eq!(metrics.get("accuracy"), Some(&MetricValue::Number(1.0)));
        assert_eq!((metrics.iter().count(), metrics.left_out()), (MAX_ITEMS + 1, 1000 - MAX_ITEMS));
    }

    #[test]
    fn deep_nesting_is_refused() {
        for text in ["[".repeat(100) + &"]".repeat(100), "[".repeat(100_000)] {
            assert!(json(&text).is_err());
            assert!(yaml(&text).is_err());
            assert!(toml(&format!("a = {text}")).is_err());
        }
    }
}
