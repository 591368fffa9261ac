//! `.dvc` files: new ones as `dvc add` writes them, and old ones changed in place as it changes them.

use super::outs::PointerFile;
use super::yaml::{Document, ScalarPosition, YamlValue, parse_document, scalar};
use super::{Md5, Oid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::Range;
use trainspot_base::error::{Error, Result};

/// What a `.dvc` file says of the content that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    /// The name of the file's object, or of the directory's list.
    pub oid: Oid,
    /// The bytes of the file, or of all files of the directory.
    pub size: u64,
    /// How many files the directory has; none for a file.
    pub files: Option<u64>,
    /// Whether anyone may execute the file. DVC does not keep this for the files of a directory.
    pub executable: bool,
}

/// The keys that DVC removes from an output when it gets new content.
const STALE_KEYS: [&str; 4] = ["version_id", "etag", "checksum", "cloud"];

impl Pointer {
    /// The pointer to an empty file, where only the form of a `.dvc` file counts.
    #[must_use]
    pub(super) fn to_nothing() -> Self {
        Self { oid: Md5::of(b""), size: 0, files: None, executable: false }
    }

    /// A new `.dvc` file for `name`, which is beside it.
    #[must_use]
    pub fn create(&self, name: &str) -> String {
        let mut text = String::from("outs:\n- ");
        for (key, value) in self.fields() {
            text.push_str(&line(key, &value));
        }
        text + &line("hash", &YamlValue::Text("md5".to_owned()))
            + &line("path", &YamlValue::Text(name.to_owned()))
    }

    /// An old `.dvc` file with this content.
    ///
    /// Comments, the order of the keys and what was added by hand stay; indentation, quotes and line ends
    /// become those of ruamel, as DVC has it. A file of DVC 2 gains `hash: md5`. DVC does that only if the
    /// content has changed, but its objects are elsewhere if it does not.
    ///
    /// # Errors
    /// The file has a form that cannot be changed in place.
    pub fn update(&self, old: &str) -> Result<String> {
        let refused = |why: String| {
            Error::new(why).hint("write it anew with `dvc remove` and `dvc add`, and commit that")
        };
        let mut document = parse_document(old)?;
        let mut out = document.only_item("outs").map_err(refused)?;
        let fields = self.fields();
        let mut changed: Vec<_> = fields.iter().map(|(key, _)| *key).chain(["hash"]).collect();
        for (key, value) in fields {
            document.set(&mut out, 2, key, value);
        }
        let mut dropped = STALE_KEYS.to_vec();
        dropped.extend(self.files.is_none().then_some("nfiles"));
        dropped.extend((!self.executable).then_some("isexec"));
        dropped.extend(defaults(&document, &out));
        for key in &dropped {
            document.remove(&mut out, 2, key);
        }
        changed.extend(dropped);
        if document.value(out.clone(), 2, "hash").is_none() {
            document.set(&mut out, 2, "hash", YamlValue::Text("md5".to_owned()));
        }
        let mut all = document.all();
        let top_dropped = top_defaults(&document);
        for key in &top_dropped {
            document.remove(&mut all, 0, key);
        }
        let text = document.render();
        let says = PointerFile::read(&text)?;
        let has_content = says.outs.iter().any(|out| out.md5.as_deref() == Some(&self.oid.to_string()));
        let kept = |text: &str| without(text, &changed, &top_dropped);
        if !has_content || kept(old) != kept(&text) {
            return Err(refused("it is written in a way that cannot be changed in place".to_owned()));
        }
        Ok(text)
    }

    fn fields(&self) -> Vec<(&'static str, YamlValue)> {
        let number = |number: u64| YamlValue::Raw(number.to_string());
        let mut fields = vec![("md5", YamlValue::Text(self.oid.to_string())), ("size", number(self.size))];
        fields.extend(self.files.map(|files| ("nfiles", number(files))));
        fields.extend(self.executable.then(|| ("isexec", YamlValue::Raw("true".to_owned()))));
        fields
    }
}

fn line(key: &str, value: &YamlValue) -> String {
    let indent = if key == "md5" { "" } else { "  " };
    let value = match value {
        YamlValue::Text(text) => scalar(text, ScalarPosition { column: 3 + key.len(), indent: 4 }),
        YamlValue::Raw(text) | YamlValue::Block(text, _) => format!(" {text}"),
        YamlValue::Empty => String::new(),
    };
    format!("{indent}{key}:{value}\n")
}

/// The keys whose value is the one that they have when they are not there: DVC does not write those.
fn defaults(document: &Document, out: &Range<usize>) -> Vec<&'static str> {
    let is = |key: &str, value: &str| {
        document.value(out.clone(), 2, key) == Some(&YamlValue::Raw(value.to_owned()))
    };
    let mut keys: Vec<_> = ["cache", "push"].into_iter().filter(|key| is(key, "true")).collect();
    keys.extend(["persist", "metric", "plot"].into_iter().filter(|key| is(key, "false")));
    let blank = |key: &str| is_blank(document, out.clone(), 2, key);
    keys.extend(
        ["desc", "type", "labels", "meta", "remote", "fs_config"].into_iter().filter(|key| blank(key)),
    );
    keys
}

fn top_defaults(document: &Document) -> Vec<&'static str> {
    let value = |key: &str| document.value(document.all(), 0, key);
    let is = |key: &str, text: &str| value(key) == Some(&YamlValue::Raw(text.to_owned()));
    let mut keys: Vec<_> =
        ["frozen", "locked", "always_changed"].into_iter().filter(|key| is(key, "false")).collect();
    keys.extend((value("wdir") == Some(&YamlValue::Text(".".to_owned()))).then_some("wdir"));
    let blank = |key: &str| is_blank(document, document.all(), 0, key);
    keys.extend(["desc", "md5", "meta", "deps", "wdir"].into_iter().filter(|key| blank(key)));
    keys
}

/// What a `.dvc` file says beside the values of the keys `of_output` of its output and of its `own`. None
/// where that is more than JSON can say, such as a number that is none.
///
/// The file is read by a whole parser of YAML, as the lines of a [`Document`] may mean another thing where a
/// file is written in an unusual way.
fn without(text: &str, of_output: &[&str], own: &[&str]) -> Option<Value> {
    let mut values: Value = serde_saphyr::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let file = values.as_object_mut()?;
    file.retain(|key, _| !own.contains(&key.as_str()));
    for output in file.get_mut("outs")?.as_array_mut()?.iter_mut().filter_map(Value::as_object_mut) {
        output.retain(|key, _| !of_output.contains(&key.as_str()));
    }
    Some(values)
}

fn is_blank(document: &Document, range: Range<usize>, column: usize, key: &str) -> bool {
    match document.value(range.clone(), column, key) {
        Some(YamlValue::Empty) => !document.has_children(range, column, key),
        Some(YamlValue::Text(text)) => text.is_empty(),
        Some(YamlValue::Raw(text)) => matches!(text.as_str(), "[]" | "{}"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What DVC 3.67 makes of each head.
    #[test]
    fn each_line_ends_as_it_does_for_dvc_and_is_kept_to_its_last_blank() {
        let pointer = Pointer { executable: true, ..Pointer::to_nothing() };
        let outs = pointer.create("model");
        for (head, wanted) in [
            ("# a model\r\r\r\n", "# a model\n\n\n"),
            ("# a model\r\rdesc: x\r", "# a model\n\ndesc: x\n"),
            ("desc: 'x\r  y'\n", "desc: x y\n"),
            ("desc: |\r  y\r\r  z\r\n", "desc: |\n  y\n\n  z\n"),
            (
                "desc: >-\r  folded\r  lines\rmeta:\r  a: several\r    lines\r  b:\r  - 'x\r    y'\r# end\r",
                "desc: >-\n  folded\n  lines\nmeta:\n  a: several lines\n  b:\n  - x y\n# end\n",
            ),
            ("desc: x  # a\t \n", "desc: x  # a\t \n"),
        ] {
            assert_eq!(
                pointer.update(&format!("{head}{outs}")).unwrap(),
                format!("{wanted}{outs}"),
                "{head:?}"
            );
        }
    }
}
