//! What the sections of a configuration mean to DVC: lower-cased, and remotes by their names.

use super::ini::{self, IniItem, IniSection, IniValue};
use std::collections::BTreeMap;
use trainspot_base::error::{Error, Result};

/// The values of a section, by key.
pub(super) type SectionValues = BTreeMap<String, IniValue>;
/// Values by section. A section is a kind and a name: `remote` and `store`, or `core` without a name.
pub(super) type ConfigSections = BTreeMap<(String, String), SectionValues>;

/// The kinds of sections that have names: `remote "store"`.
const NAMED_SECTIONS: [&str; 3] = ["remote", "machine", "db"];

/// The sections of a file.
///
/// # Errors
/// configobj would not read the file, or the file has values where DVC allows none.
pub(super) fn read(text: &str) -> Result<ConfigSections> {
    // What is wrong with a section counts only if no later one takes its place.
    let mut sections: BTreeMap<_, Result<SectionValues>> = BTreeMap::new();
    for (name, section) in lower_cased(ini::read(text)?)? {
        if let Some(named) = named(&name) {
            sections.insert(named, values(&name, section));
        } else if NAMED_SECTIONS.contains(&name.as_str()) {
            // `[remote]` with `[[store]]` in it: to DVC all remotes that there are until then.
            sections.retain(|(kind, _): &(String, String), _| *kind != name);
            for (inner, section) in inner_sections(&name, section)? {
                sections.insert((name.clone(), inner.clone()), values(&inner, section));
            }
        } else {
            sections.insert((name.clone(), String::new()), values(&name, section));
        }
    }
    sections.into_iter().map(|(name, values)| Ok((name, values?))).collect()
}

/// The sections of a file with their names in lower case. Of those that differ in case only, the last one
/// counts, in the place of the first.
fn lower_cased(file: IniSection) -> Result<Vec<(String, IniSection)>> {
    let mut sections: Vec<(String, IniSection)> = Vec::new();
    for (name, item) in file.items {
        let IniItem::Section(section) = item else {
            return Err(Error::new(format!("'{name}' is before the first section")));
        };
        let name = name.to_lowercase();
        match sections.iter_mut().find(|(other, _)| *other == name) {
            Some((_, earlier)) => *earlier = section,
            None => sections.push((name, section)),
        }
    }
    Ok(sections)
}

/// The kind and name of `remote "store"`.
fn named(section: &str) -> Option<(String, String)> {
    let (kind, name) = section.trim().split_once('"')?;
    let (kind, name) = (kind.trim(), name.strip_suffix('"')?);
    NAMED_SECTIONS.contains(&kind).then(|| (kind.to_owned(), name.to_owned()))
}

/// Of keys that differ in upper and lower case only, the last one counts.
fn values(name: &str, section: IniSection) -> Result<SectionValues> {
    let values = section.items.into_iter().filter_map(|(key, item)| match item {
        IniItem::Value(value) => Some(Ok((key.to_lowercase(), value))),
        // DVC passes over what it does not know there.
        IniItem::Section(_) if name == "feature" => None,
        IniItem::Section(_) => {
            Some(Err(Error::new(format!("[{name}] has a section '{key}' in it, where DVC takes none"))))
        }
    });
    values.collect()
}

fn inner_sections(kind: &str, section: IniSection) -> Result<Vec<(String, IniSection)>> {
    let inner = section.items.into_iter().map(|(name, item)| match item {
        IniItem::Section(section) => Ok((name.to_lowercase(), section)),
        IniItem::Value(_) => Err(Error::new(format!("'{name}' in [{kind}] is no section"))),
    });
    inner.collect()
}
