//! The object that lists a directory: `json.dumps(files, sort_keys=True)` of Python, to the byte.

use super::hash::Md5;
use super::{Object, Oid};
use crate::ObjectContent;
use serde::Deserialize;
use std::fmt::Write as _;
use trainspot_base::error::{Context as _, Result};

/// A file of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListedFile {
    /// The name of its object.
    pub md5: String,
    /// Its path in the directory, with `/` as separator.
    pub relpath: String,
}

/// The object that lists `files`, in the order of their paths.
///
/// DVC sorts by code points, which is the order of UTF-8's bytes.
pub(super) fn object(files: &mut [ListedFile]) -> Object {
    files.sort_by(|a, b| a.relpath.cmp(&b.relpath));
    let mut text = String::from("[");
    for (number, file) in files.iter().enumerate() {
        text.push_str(if number == 0 { "{\"md5\": " } else { ", {\"md5\": " });
        quote(&mut text, &file.md5);
        text.push_str(", \"relpath\": ");
        quote(&mut text, &file.relpath);
        text.push('}');
    }
    text.push(']');
    let oid = Oid::listing(&Md5::of(text.as_bytes()));
    Object { oid, size: text.len() as u64, content: ObjectContent::Bytes(text.into()) }
}

/// The files that an object lists.
pub(super) fn read(text: &[u8]) -> Result<Vec<ListedFile>> {
    serde_json::from_slice(text).context("it is not a list of files")
}

/// A string as Python writes it with `ensure_ascii`, which escapes 0x7f as well.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(paths: &[&str]) -> Vec<ListedFile> {
        let file = |path: &&str| ListedFile { md5: "0".repeat(32), relpath: (*path).to_owned() };
        paths.iter().map(file).collect()
    }

    #[test]
    fn an_empty_directory_has_the_name_that_dvc_gives_it() {
        assert_eq!(object(&mut []).oid.to_string(), "d751713988987e9331980363e24189ce.dir");
    }

    #[test]
    fn paths_are_sorted_as_strings_and_escaped_to_ascii() {
        let mut files = listed(&["sub/z", "é", "sub a", "😀\u{7f}\n\"\\", "B"]);
        let ObjectContent::Bytes(text) = object(&mut files).content else { panic!() };
        let text = String::from_utf8(text.to_vec()).unwrap().replace(&"0".repeat(32), "");
        let paths = ["B", "sub a", "sub/z", "\\u00e9", "\\ud83d\\ude00\\u007f\\n\\\"\\\\"];
        let wanted = paths.map(|path| format!("{{\"md5\": \"\", \"relpath\": \"{path}\"}}")).join(", ");
        assert_eq!(text, format!("[{wanted}]"));
        assert_eq!(read(format!("[{wanted}]").as_bytes()).unwrap()[4].relpath, "😀\u{7f}\n\"\\");
    }
}
