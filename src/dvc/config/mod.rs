//! `.dvc/config`: which remote an output belongs in, and what is said of that remote.

mod ini;
mod schema;

use super::remote::Settings;
use crate::error::{Context as _, Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The remotes of a repository.
///
/// The files of the system and of the user, which DVC reads as well, are not: a pipe has neither.
#[derive(Clone)]
pub struct Remotes {
    root: PathBuf,
    sections: ini::Sections,
    /// What to use instead of the default: a remote's name or an address.
    wanted: Option<String>,
    environment: BTreeMap<String, String>,
}

impl Remotes {
    /// Reads `.dvc/config` and `.dvc/config.local`, which may both be missing.
    ///
    /// `wanted` takes the place of the default remote: a name of the file, or an address. `environment` is what the
    /// remotes may take credentials from.
    ///
    /// # Errors
    /// A file cannot be read, or a part of it that counts here has a key that DVC does not know.
    pub fn load(root: &Path, wanted: Option<&str>, environment: BTreeMap<String, String>) -> Result<Self> {
        let mut sections = ini::Sections::new();
        for name in [".dvc/config", ".dvc/config.local"] {
            let text = match std::fs::read_to_string(root.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                text => text.with_context(|| format!("cannot read {name}"))?,
            };
            for (section, values) in ini::read(&text).map_err(|error| in_file(error, name))? {
                sections.entry(section).or_default().extend(values);
            }
        }
        let wanted = wanted.filter(|wanted| !wanted.is_empty()).map(str::to_owned);
        let remotes = Self { root: root.to_owned(), sections, wanted, environment };
        schema::check_section(&remotes.sections, "core")?;
        schema::check_section(&remotes.sections, "cache")?;
        Ok(remotes)
    }

    /// The remote for an output.
    ///
    /// `own` is what the output itself says, which counts more than anything else, as in DVC.
    ///
    /// # Errors
    /// There is no such remote, or it is one that is not supported.
    pub fn choose(&self, own: Option<&str>) -> Result<Settings> {
        let default = || self.value("core", "remote");
        match (own, &self.wanted) {
            (Some(own), _) => self.named(own),
            (None, Some(wanted)) => self.wanted(wanted),
            (None, None) => match default() {
                Some(name) => self.named(name),
                None => Err(wrong("no DVC remote is chosen").hint(
                    "set DVC_REMOTE to a remote's name or address, or run `dvc remote default <name>` and commit .dvc/config",
                )),
            },
        }
    }

    /// The address that takes the place of the default remote, if it is not a name.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.wanted.as_deref().filter(|wanted| self.remote(wanted).is_none() && is_address(wanted))
    }

    /// The folder of the objects that DVC keeps on this machine.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join(".dvc").join(self.value("cache", "dir").unwrap_or("cache"))
    }

    /// The kinds of all its remotes, by the beginning of their addresses.
    pub(super) fn schemes(&self) -> BTreeSet<&str> {
        let remotes = self.sections.iter().filter(|((kind, _), _)| kind == "remote");
        let urls = remotes.filter_map(|(_, values)| values.get("url")).map(String::as_str);
        let all = urls.chain(self.wanted.as_deref());
        all.filter_map(|url| url.split_once("://")).map(|(scheme, _)| scheme).collect()
    }

    fn wanted(&self, wanted: &str) -> Result<Settings> {
        if self.remote(wanted).is_some() || !is_address(wanted) {
            return self.named(wanted);
        }
        let values = BTreeMap::from([("url".to_owned(), wanted.to_owned())]);
        self.settings(String::new(), self.resolve(values, 0)?, self.root.clone())
    }

    fn named(&self, name: &str) -> Result<Settings> {
        let name = name.to_lowercase();
        let values = self.remote(&name).ok_or_else(|| self.unknown(&name))?.clone();
        self.settings(name, self.resolve(values, 0)?, self.root.join(".dvc"))
    }

    fn settings(
        &self,
        name: String,
        mut options: BTreeMap<String, String>,
        folder: PathBuf,
    ) -> Result<Settings> {
        schema::check_remote(&name, &options)?;
        let url = options.remove("url").unwrap_or_default();
        Ok(Settings { name, url, options, folder, environment: self.environment.clone() })
    }

    /// Follows `remote://name/path`: that remote's keys, with those here in front, and its address with the path.
    fn resolve(&self, values: BTreeMap<String, String>, depth: usize) -> Result<BTreeMap<String, String>> {
        let url = values.get("url").cloned().unwrap_or_default();
        let Some((base, path)) =
            url.strip_prefix("remote://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        else {
            return Ok(values);
        };
        if depth > self.sections.len() {
            return Err(wrong(format!("the DVC remote '{base}' refers to itself")));
        }
        let base = base.to_lowercase();
        let mut all =
            self.resolve(self.remote(&base).ok_or_else(|| self.unknown(&base))?.clone(), depth + 1)?;
        let start = all.get("url").cloned().unwrap_or_default();
        all.extend(values);
        all.insert("url".to_owned(), format!("{start}/{}", path.trim_start_matches('/')));
        Ok(all)
    }

    fn remote(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.sections.get(&("remote".to_owned(), name.to_lowercase()))
    }

    fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.sections.get(&(section.to_owned(), String::new()))?.get(key).map(String::as_str)
    }

    fn unknown(&self, name: &str) -> Error {
        let known = self.sections.keys().filter(|(kind, _)| kind == "remote").map(|(_, name)| name.as_str());
        let known = known.collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {known}") };
        wrong(format!("there is no DVC remote '{name}' in .dvc/config: {known}"))
            .hint(format!("add it by `dvc remote add {name} <address>` and commit .dvc/config"))
    }
}

fn is_address(text: &str) -> bool {
    text.contains("://") || text.starts_with(['/', '.', '~'])
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(message).kind(Kind::Configuration)
}

fn in_file(error: Error, name: &str) -> Error {
    wrong(format!("cannot understand {name}")).source(error)
}
