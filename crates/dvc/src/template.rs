//! `${…}` in `dvc.yaml`, filled in as DVC does: from `params.yaml`, `vars`, and the items of `foreach` and
//! `matrix`.
//!
//! Where a value cannot be had, such as from parameters that are Python, the template stays one: who asks for
//! its paths matches it to those in `dvc.lock`.

use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_transfer::text_beneath;

/// The file whose values DVC always takes if it exists.
const DEFAULT_PARAMS: &str = "params.yaml";

/// The values that templates may name. Stages share those that they do not change: there may be thousands of
/// either.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(Arc<Map<String, Value>>);

impl Variables {
    /// The values for the templates of a `dvc.yaml` in `folder`: those in the `params.yaml` beside it, and
    /// those of its own `vars`.
    pub(super) fn read(folder: &Path, vars: &[Value]) -> Self {
        let mut variables = Self::default();
        if folder.join(DEFAULT_PARAMS).exists() {
            variables.load(folder, DEFAULT_PARAMS);
        }
        variables.with(folder, vars)
    }

    /// These values, and those of the `vars` of a stage.
    pub(super) fn with(mut self, folder: &Path, vars: &[Value]) -> Self {
        for item in vars {
            match item {
                Value::String(file) => self.load(folder, file),
                Value::Object(values) => merge(Arc::make_mut(&mut self.0), values.clone()),
                _ => {}
            }
        }
        self
    }

    /// Adds the values of an item of `vars` that names a file: all of `file`, or those under some keys of
    /// `file:key,key`. A file that cannot be read adds nothing, so templates that need its values stay
    /// templates.
    fn load(&mut self, folder: &Path, item: &str) {
        let (file, keys) = item.split_once(':').unwrap_or((item, ""));
        let Ok(Value::Object(mut values)) = read(folder, Path::new(file)) else { return };
        let keys: Vec<_> = keys.split(',').filter(|key| !key.is_empty()).collect();
        if !keys.is_empty() {
            let kept = keys.iter().filter_map(|key| Some(((*key).to_owned(), values.remove(*key)?)));
            values = kept.collect();
        }
        merge(Arc::make_mut(&mut self.0), values);
    }

    fn and(&self, name: &str, value: Value) -> Self {
        let mut all = Map::clone(&self.0);
        all.insert(name.to_owned(), value);
        Self(Arc::new(all))
    }

    /// The values for the stage `group@member` of a `foreach`: `item`, and `key` if it goes over a mapping.
    pub(super) fn of_foreach(&self, over: &Value, member: &str) -> Option<Self> {
        match self.resolve(over)? {
            Value::Object(items) => {
                let (key, item) = items.into_iter().find(|(key, _)| key == member)?;
                Some(self.and("item", item).and("key", Value::String(key)))
            }
            Value::Array(items) => {
                let composite = items.iter().any(|item| item.is_array() || item.is_object());
                let found = if composite {
                    items.into_iter().nth(member.parse().ok()?)
                } else {
                    items.into_iter().find(|item| text(item).as_deref() == Some(member))
                };
                Some(self.and("item", found?))
            }
            _ => None,
        }
    }

    /// The values for the stage `group@a-b` of a `matrix`.
    pub(super) fn of_matrix(&self, over: &Map<String, Value>, member: &str) -> Option<Self> {
        let mut found = vec![(String::new(), Map::new())];
        for (key, values) in over {
            let Value::Array(values) = self.resolve(values)? else { return None };
            let mut next = Vec::new();
            for (name, chosen) in &found {
                for (number, value) in values.iter().enumerate() {
                    let composite = value.is_array() || value.is_object();
                    let part = if composite { format!("{key}{number}") } else { text(value)? };
                    let name = if chosen.is_empty() { part } else { format!("{name}-{part}") };
                    // What does not begin the member's name never becomes it, and of the same name the first
                    // counts: a matrix may have many thousands.
                    if member.starts_with(&name) && next.iter().all(|(other, _)| *other != name) {
                        let mut chosen = chosen.clone();
                        chosen.insert(key.clone(), value.clone());
                        next.push((name, chosen));
                    }
                }
            }
            found = next;
        }
        let (_, item) = found.into_iter().find(|(name, _)| name == member)?;
        Some(self.and("item", Value::Object(item)).and("key", Value::String(member.to_owned())))
    }

    /// A value with every template in it filled in; none if one cannot be.
    fn resolve(&self, value: &Value) -> Option<Value> {
        Some(match value {
            Value::String(template) => match whole(template) {
                Some(name) => self.select(name)?.clone(),
                None => Value::String(self.fill(template)?),
            },
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.resolve(item)).collect::<Option<_>>()?)
            }
            Value::Object(items) => {
                let items = items.iter().map(|(key, item)| Some((key.clone(), self.resolve(item)?)));
                Value::Object(items.collect::<Option<_>>()?)
            }
            other => other.clone(),
        })
    }

    /// A text with its templates filled in; none if one cannot be.
    pub(super) fn fill(&self, template: &str) -> Option<String> {
        let (mut filled, mut rest) = (String::new(), template);
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('\\') {
                filled.push_str(before);
                filled.push_str("${");
                rest = after;
                continue;
            }
            let (name, after) = after.split_once('}')?;
            filled.push_str(before);
            filled.push_str(&text(self.select(name)?)?);
            rest = after;
        }
        Some(filled + rest)
    }

    /// The value of `a.b[0].c`.
    fn select(&self, name: &str) -> Option<&Value> {
        let name = name.replace('[', ".").replace(']', "");
        let mut parts = name.split('.').map(str::trim);
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| match value {
            Value::Object(values) => values.get(part),
            Value::Array(values) => values.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

/// Whether a text has a template in it.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("${")
}

/// Whether `path` is `template` with something for each `${…}`.
pub(super) fn is_filled_in(template: &str, path: &str) -> bool {
    let Some((start, mut template)) = template.split_once("${") else { return template == path };
    let Some(mut path) = path.strip_prefix(start) else { return false };
    // A text between two templates is taken where it comes first: all other places leave less for the rest,
    // and to try them as well would take longer than any training for a few templates in a long path.
    loop {
        template = template.split_once('}').map_or("", |(_, rest)| rest);
        let Some((text, rest)) = template.split_once("${") else { return path.ends_with(template) };
        let Some(at) = path.find(text) else { return false };
        (path, template) = (&path[at + text.len()..], rest);
    }
}

/// The name in a text that is one template and nothing else.
fn whole(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.strip_suffix('}').filter(|name| !name.contains(['{', '}']))
}

/// A value as DVC writes it into a text; none for a value that DVC does not write into texts.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null => Some("None".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn read(folder: &Path, file: &Path) -> Result<Value> {
    let text = text_beneath(folder, file).with_context(|| format!("cannot read {}", file.display()))?;
    let unreadable = || format!("cannot understand {}", file.display());
    match file.extension().and_then(|end| end.to_str()) {
        Some("json") => serde_json::from_str(&text).with_context(unreadable),
        Some("toml") => toml::from_str(&text).with_context(unreadable),
        Some("yaml" | "yml") => serde_saphyr::from_str(&text).with_context(unreadable),
        _ => Err(Error::new(unreadable())),
    }
}

/// Adds `values` to `into`. Mappings that both have are merged key by key.
fn merge(into: &mut Map<String, Value>, values: Map<String, Value>) {
    for (key, value) in values {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn variables(values: Value) -> Variables {
        let Value::Object(values) = values else { panic!() };
        Variables(Arc::new(values))
    }

    #[test]
    fn templates_are_filled_in_from_nested_values() {
        let all = variables(json!({"a": {"b": [{"c": "x"}, 7]}, "flag": true, "rate": 0.1}));
        for (template, wanted) in [
            ("m-${a.b[0].c}.bin", Some("m-x.bin")),
            ("${a.b[1]}/${flag}/${rate}", Some("7/true/0.1")),
            ("${ a.b[1] }", Some("7")),
            ("plain", Some("plain")),
            ("\\${kept}", Some("${kept}")),
            ("${a}", None),
            ("${missing}", None),
            ("${a.b[2]}", None),
            ("${open", None),
        ] {
            assert_eq!(all.fill(template).as_deref(), wanted, "{template}");
        }
    }

    #[test]
    fn a_stage_of_many_has_its_item() {
        let all = variables(json!({"names": ["x", 1, 2.5], "maps": {"a": {"n": 1}, "b": {"n": 2}}}));
        let of = |over: Value, member: &str| all.of_foreach(&over, member)?.fill("${item}");
        assert_eq!(of(json!("${names}"), "1").as_deref(), Some("1"));
        assert_eq!(of(json!("${names}"), "z"), None);
        let map = all.of_foreach(&json!("${maps}"), "b").unwrap();
        assert_eq!(map.fill("${key}-${item.n}").as_deref(), Some("b-2"));
        let list = all.of_foreach(&json!([{"n": 5}, {"n": 6}]), "1").unwrap();
        assert_eq!(list.fill("${item.n}").as_deref(), Some("6"));
        let Value::Object(matrix) = json!({"size": [1, 2], "kind": ["a-b", {"k": 1}]}) else { panic!() };
        let one = |member: &str| all.of_matrix(&matrix, member)?.fill("${item.size}/${key}");
        assert_eq!(one("2-a-b").as_deref(), Some("2/2-a-b"));
        assert_eq!(one("1-kind1").as_deref(), Some("1/1-kind1"));
        assert_eq!(one("3-a-b"), None);
    }

    #[test]
    fn a_matrix_of_equal_values_has_one_member_of_a_name() {
        let all = variables(json!({}));
        let equal = json!(["1", "1", "1", "1", "1", "1", "1", "1"]);
        let matrix: Map<String, Value> = ('a'..='z').map(|key| (key.to_string(), equal.clone())).collect();
        let member = vec!["1"; matrix.len()].join("-");
        assert_eq!(all.of_matrix(&matrix, &member).unwrap().fill("${item.z}").as_deref(), Some("1"));
    }

    #[test]
    fn a_path_is_a_template_with_something_for_each_part() {
        for (template, path) in [
            ("a", "a"),
            ("${x}", ""),
            ("a${x}b${y}c", "abc"),
            ("a${x}b${y}c", "a1b2bc3bc"),
            ("${x}ab${y}b", "aabb"),
            ("a${open", "a/b"),
            ("é${x}é", "éüé"),
        ] {
            assert!(is_filled_in(template, path), "{template} {path}");
        }
        for (template, path) in
            [("a", "ab"), ("a${x}a", "a"), ("a${x}b${y}b", "ab"), ("${x}ab${y}ab", "ab"), ("${x}a${y}", "b")]
        {
            assert!(!is_filled_in(template, path), "{template} {path}");
        }
        // Of twenty templates, each could be at any of these places.
        assert!(!is_filled_in(&"${x}a".repeat(20), &("a".repeat(200) + "b")));
    }

    #[test]
    fn variables_come_from_files_of_every_kind() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("params.yaml", "a: {b: 1}\nshared: old\n"),
            ("more.json", r#"{"shared": "new", "left": "out"}"#),
            ("own.toml", "t = 'x'\n"),
            ("code.py", "x = 1\n"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let vars = [json!("more.json:shared"), json!("own.toml"), json!("code.py"), json!({"a": {"c": 2}})];
        let all = Variables::read(folder.path(), &vars);
        assert_eq!(all.fill("${a.b}${a.c}${shared}${t}").as_deref(), Some("12newx"));
        assert_eq!((all.fill("${left}"), all.fill("${x}")), (None, None));
    }
}
