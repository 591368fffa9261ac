//! The remotes of a repository as values: what is sent to a machine, which reads no configuration of its own.

use super::super::remote::Settings;
use super::Remotes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::{Secret, is_secret_name};

/// The remotes of a DVC repository, each settled by the pipe, credentials included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// The remote for an output that names no remote itself.
    default: Result<Settings, Unusable>,
    /// The remotes that an output may name, by their names.
    named: BTreeMap<String, Result<Settings, Unusable>>,
}

/// Why a remote cannot be used.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unusable {
    why: String,
    hint: Option<String>,
    /// Whether the remote is of a kind that DVC supports, and this program does not.
    unsupported: bool,
}

impl Unusable {
    fn of(error: &Error, unsupported: bool) -> Self {
        Self { why: chain(error), hint: error.next_step().map(str::to_owned), unsupported }
    }

    fn error(&self) -> Error {
        Error::new(&self.why).kind(Kind::Configuration).maybe_hint(self.hint.as_deref())
    }
}

impl Settled {
    pub(super) fn of(remotes: &Remotes) -> Self {
        let named = remotes.names().map(|name| {
            let unusable = |error| Unusable::of(&error, remotes.is_unsupported(name));
            (name.to_owned(), remotes.choose(Some(name)).map_err(unusable))
        });
        let default = remotes.choose(None).map_err(|error| Unusable::of(&error, false));
        Self { default, named: named.collect() }
    }

    /// A repository in which no output has a remote, for the reason in `error`.
    pub(crate) fn none(error: &Error) -> Self {
        Self { default: Err(Unusable::of(error, false)), named: BTreeMap::new() }
    }

    /// The remote for an output that names this one itself, or none.
    ///
    /// # Errors
    /// There is no such remote, or it cannot be used.
    pub fn choose(&self, own: Option<&str>) -> Result<&Settings> {
        let Some(own) = own.filter(|own| !own.is_empty()) else {
            return self.default.as_ref().map_err(Unusable::error);
        };
        let own = own.to_lowercase();
        match self.named.get(&own) {
            Some(remote) => remote.as_ref().map_err(Unusable::error),
            None => Err(super::unknown(&own, self.named.keys().map(String::as_str))),
        }
    }

    /// The remote whose settings have this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Settings> {
        let default = self.default.as_ref().ok().filter(|settings| settings.name == name);
        default.or_else(|| self.named.get(name)?.as_ref().ok())
    }

    /// Whether a remote is of a kind that DVC supports, and this program does not.
    pub(crate) fn is_unsupported(&self, name: &str) -> bool {
        let remote = self.named.get(&name.to_lowercase());
        remote.is_some_and(|remote| remote.as_ref().is_err_and(|unusable| unusable.unsupported))
    }

    /// Drops the remotes that no output goes to, so that a machine gets no credential that it has no use for.
    /// `used` has, for each output, the remote that the output itself names, or none.
    pub(crate) fn only(mut self, used: &[Option<&str>]) -> Self {
        let used: Vec<_> = used.iter().map(|own| own.map(str::to_lowercase)).collect();
        self.named.retain(|name, _| used.contains(&Some(name.clone())));
        if !used.contains(&None) {
            self.default = Err(Unusable::of(&Error::new("no output goes to the default DVC remote"), false));
        }
        self
    }

    /// Makes paths that start below `root` relative to it, for a copy of the repository that is elsewhere.
    pub(crate) fn leave(&mut self, root: &Path) {
        for settings in self.usable() {
            if let Ok(below) = settings.folder.strip_prefix(root) {
                settings.folder = below.to_owned();
            }
        }
    }

    /// Makes relative paths start from `root`.
    pub(crate) fn move_to(&mut self, root: &Path) {
        self.usable().for_each(|settings| settings.folder = root.join(&settings.folder));
    }

    /// All remotes that can be used.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Settings> {
        self.named.values().chain([&self.default]).filter_map(|remote| remote.as_ref().ok())
    }

    /// The credentials of one remote, each with a name to show in its place.
    pub(crate) fn secrets_of(settings: &Settings) -> impl Iterator<Item = Secret> {
        let options = settings.options.iter().filter(|(key, _)| super::schema::is_secret(key));
        let named = options.map(|(key, value)| {
            Secret::new(format!("REMOTE{}_{key}", settings.name).to_uppercase(), value.clone())
        });
        let variables = settings.environment.iter().filter(|(name, _)| is_secret_name(name));
        named.chain(variables.map(|(name, value)| Secret::new(name, value.clone())))
    }

    fn usable(&mut self) -> impl Iterator<Item = &mut Settings> {
        self.named.values_mut().chain([&mut self.default]).filter_map(|remote| remote.as_mut().ok())
    }
}
