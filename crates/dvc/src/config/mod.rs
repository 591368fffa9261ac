//! `.dvc/config`: which remote an output belongs in, and what is said of that remote.

mod ini;
mod schema;
mod sections;
mod settled;

pub use settled::Settled;

use super::credentials;
use super::remote::Settings;
use super::trust::Trust;
use secrecy::SecretString;
use sections::{ConfigSections, SectionValues};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::log::Secret;

/// The scheme of an address that is a path below another remote.
const REMOTE_SCHEME: &str = "remote://";

/// The hint for a remote that is a folder of a rented machine.
const RENTED_FOLDER_HINT: &str = "set DVC_REMOTE to a remote that the machine reaches and that outlives it, such as s3://bucket/models; or set CLOUD to 'local'";

/// What `.dvc/config` and `.dvc/config.local` of a repository say, as one.
///
/// The pipe reads it in the clone. The machine gets what follows from it, as [`Settled`]: credentials of
/// `.dvc/config.local` belong in no file there, and what a training writes into a configuration must not lead
/// a credential elsewhere.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct DvcConfig(Vec<(String, String, SectionValues)>);

/// The folder that a relative path in a configuration, or given instead of a remote, starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathBase {
    /// The repository's own folder.
    #[default]
    Own,
    /// This folder: the clone that the repository is a copy of.
    OfClone(PathBuf),
    /// A folder of a rented machine, which is lost with the machine.
    Rented,
}

/// The remotes of a repository.
///
/// The configuration of the system and of the user, which DVC reads as well, is not known here: a pipe has
/// neither.
#[derive(Clone)]
pub struct Remotes {
    root: PathBuf,
    sections: ConfigSections,
    /// What to use instead of the default: a remote's name or an address.
    wanted: Option<String>,
    environment: BTreeMap<String, SecretString>,
    folders: PathBase,
    trust: Trust,
}

/// The files of a repository's configuration. A value in the later file wins.
pub(super) const CONFIG_FILES: [&str; 2] = [".dvc/config", ".dvc/config.local"];

impl DvcConfig {
    /// Reads `.dvc/config` and `.dvc/config.local` of the repository at `root`, which may both be missing.
    ///
    /// # Errors
    /// A file cannot be read, or a part of it that counts here has a key that DVC does not know.
    pub fn read(root: &Path) -> Result<Self> {
        let mut texts = Vec::new();
        for name in CONFIG_FILES {
            match trainspot_transfer::text_beneath(root, Path::new(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                text => texts.push((name, text.with_context(|| format!("cannot read {name}"))?)),
            }
        }
        Self::of_texts(&texts)
    }

    /// The configuration of files with these names and texts.
    pub(super) fn of_texts(texts: &[(&str, String)]) -> Result<Self> {
        let mut sections = ConfigSections::new();
        for (name, text) in texts {
            for (section, values) in sections::read(text).map_err(|error| in_file(error, name))? {
                sections.entry(section).or_default().extend(values);
            }
        }
        schema::check_sections(&sections)?;
        Ok(Self(sections.into_iter().map(|((kind, name), values)| (kind, name, values)).collect()))
    }

    /// One file's text, which must be one that configobj reads.
    ///
    /// # Errors
    /// It is not, or has values where DVC allows none.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self(
            sections::read(text)?.into_iter().map(|((kind, name), values)| (kind, name, values)).collect(),
        ))
    }

    /// The values whose keys say that they are secret, by section and key.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        let all = self.0.iter().flat_map(|(kind, name, values)| {
            let section = [kind.as_str(), name.as_str()].concat().to_uppercase();
            values.iter().map(move |(key, value)| (format!("{section}_{}", key.to_uppercase()), key, value))
        });
        let secret = all.filter(|(_, key, _)| schema::is_secret(key));
        secret.filter_map(|(name, _, value)| Some(Secret::new(name, schema::text(value)?))).collect()
    }
}

impl fmt::Debug for DvcConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|(kind, name, _)| format!("{kind} {name}")).collect();
        write!(out, "DvcConfig({names:?})")
    }
}

impl Remotes {
    /// The remotes of the repository at `root`, as its own files name them.
    ///
    /// `wanted` takes the place of the default remote: a name of the configuration, or an address.
    /// `environment` is what the remotes may take credentials from.
    ///
    /// # Errors
    /// A file cannot be read, or a part of it that counts here has a key that DVC does not know.
    pub fn load(
        root: &Path,
        wanted: Option<&str>,
        environment: BTreeMap<String, SecretString>,
    ) -> Result<Self> {
        Ok(Self::of(root, DvcConfig::read(root)?, wanted, environment))
    }

    /// The remotes of the repository at `root`, with a configuration that was read elsewhere.
    #[must_use]
    pub fn of(
        root: &Path,
        config: DvcConfig,
        wanted: Option<&str>,
        environment: BTreeMap<String, SecretString>,
    ) -> Self {
        let sections = config.0.into_iter().map(|(kind, name, values)| ((kind, name), values)).collect();
        let wanted = wanted.filter(|wanted| !wanted.is_empty()).map(|wanted| path(wanted).to_owned());
        let root = root.to_owned();
        Self { root, sections, wanted, environment, folders: PathBase::Own, trust: Trust::default() }
    }

    /// These remotes, with credentials going to no other servers than `trust` allows.
    #[must_use]
    pub(super) fn with_trust(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// The remotes as values.
    #[must_use]
    pub fn settle(&self) -> Settled {
        Settled::of(self)
    }

    /// The names of the configuration's remotes.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().filter(|(kind, _)| kind == "remote").map(|(_, name)| name.as_str())
    }

    /// These remotes, with relative paths starting from this folder.
    #[must_use]
    pub fn with_folders(self, folders: PathBase) -> Self {
        let root = if let PathBase::OfClone(clone) = &folders { clone.clone() } else { self.root };
        Self { root, folders, ..self }
    }

    /// The remote for an output.
    ///
    /// `own` is what the output itself says, which counts more than anything else, as in DVC.
    ///
    /// # Errors
    /// There is no such remote, it is one that is not supported, it is a folder of a rented machine, or its
    /// credential must not go where it would.
    pub fn choose(&self, own: Option<&str>) -> Result<Settings> {
        match (own.filter(|own| !own.is_empty()), &self.wanted) {
            (Some(own), _) => self.named(own, "the output's own remote"),
            (None, Some(wanted)) => self.wanted(wanted),
            (None, None) => match self.value("core", "remote") {
                Some(name) => self.named(name, "the default remote of .dvc/config, as DVC_REMOTE is not set"),
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

    fn wanted(&self, wanted: &str) -> Result<Settings> {
        if self.remote(wanted).is_some() || !is_address(wanted) {
            return self.named(wanted, "DVC_REMOTE");
        }
        let values = SectionValues::from([("url".to_owned(), ini::IniValue::Text(wanted.to_owned()))]);
        let settings =
            self.settings(String::new(), &self.resolve(values, 0)?, self.root.clone(), "DVC_REMOTE")?;
        // What the step itself spells out needs no other word of the step.
        if wanted.starts_with(REMOTE_SCHEME) {
            self.trust.check(&settings)?;
        }
        Ok(settings)
    }

    /// The settings of the remote `name`, if its credentials may go where it leads. `why` tells in messages
    /// what chose the remote.
    fn named(&self, name: &str, why: &str) -> Result<Settings> {
        let settings = self.settings_of(name, why)?;
        self.trust.check(&settings)?;
        Ok(settings)
    }

    /// What the configuration says of a remote, trusted or not.
    pub(super) fn settings_of(&self, name: &str, why: &str) -> Result<Settings> {
        let name = name.to_lowercase();
        let values = self.remote(&name).ok_or_else(|| self.unknown(&name))?.clone();
        self.settings(name, &self.resolve(values, 0)?, self.root.join(".dvc"), why)
    }

    fn settings(&self, name: String, values: &SectionValues, folder: PathBuf, why: &str) -> Result<Settings> {
        let mut options = schema::check_remote(&name, values)?;
        let url = options.remove("url").unwrap_or_default();
        let url = path(&url).to_owned();
        if self.folders == PathBase::Rented && !url.contains("://") {
            let what = if name.is_empty() {
                "the DVC remote".to_owned()
            } else {
                format!("the DVC remote '{name}'")
            };
            return Err(wrong(format!(
                "{what} is the folder '{url}', which would be on the rented machine and go with it ({why})"
            ))
            .hint(RENTED_FOLDER_HINT));
        }
        let kind = url.split_once("://").map(|(scheme, _)| scheme);
        let mut environment = self.environment.clone();
        environment.retain(|name, _| credentials::is_for(name, kind));
        // Any of them may be a credential.
        let options = options.into_iter().map(|(key, value)| (key, value.into())).collect();
        Ok(Settings { name, url, options, folder, environment })
    }

    /// Whether a remote is of a kind that DVC supports, and this program does not.
    pub(super) fn is_unsupported(&self, name: &str) -> bool {
        let values = self.remote(name).and_then(|values| self.resolve(values.clone(), 0).ok());
        values.is_some_and(|values| schema::unsupported(&values).is_some())
    }

    /// Follows an address `remote://name/path`: the keys are those of the remote `name`, of which `values`
    /// override some, and the address is that remote's with `/path` after it.
    fn resolve(&self, values: SectionValues, depth: usize) -> Result<SectionValues> {
        let url = values.get("url").and_then(schema::text).unwrap_or_default().to_owned();
        let Some((base, path)) =
            url.strip_prefix(REMOTE_SCHEME).map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        else {
            return Ok(values);
        };
        if depth > self.sections.len() {
            return Err(wrong(format!("the DVC remote '{base}' refers to itself")));
        }
        let base = base.to_lowercase();
        let mut all =
            self.resolve(self.remote(&base).ok_or_else(|| self.unknown(&base))?.clone(), depth + 1)?;
        let start = all.get("url").and_then(schema::text).unwrap_or_default().to_owned();
        all.extend(values);
        let url = format!("{start}/{}", path.trim_start_matches('/'));
        all.insert("url".to_owned(), ini::IniValue::Text(url));
        Ok(all)
    }

    fn remote(&self, name: &str) -> Option<&SectionValues> {
        self.sections.get(&("remote".to_owned(), name.to_lowercase()))
    }

    fn value(&self, section: &str, key: &str) -> Option<&str> {
        schema::text(self.sections.get(&(section.to_owned(), String::new()))?.get(key)?)
    }

    fn unknown(&self, name: &str) -> Error {
        unknown(name, self.names())
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known = known.collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {known}") };
    wrong(format!("there is no DVC remote '{name}' in .dvc/config: {known}"))
        .hint(format!("add it by `dvc remote add {name} <address>` and commit .dvc/config"))
}

/// The folder of the objects that DVC keeps on this machine, by the configuration that DVC has here: that of
/// the workspace, which may not be the clone's.
///
/// # Errors
/// The configuration cannot be read.
pub(super) fn cache(root: &Path) -> Result<PathBuf> {
    let remotes = Remotes::load(root, None, BTreeMap::new())?;
    Ok(root.join(".dvc").join(remotes.value("cache", "dir").unwrap_or("cache")))
}

/// The path that a `file://` address stands for, or the address as it is.
fn path(url: &str) -> &str {
    url.strip_prefix("file://").filter(|path| path.starts_with('/')).unwrap_or(url)
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
