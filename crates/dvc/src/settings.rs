//! What a step asks DVC to keep.

use std::collections::BTreeMap;
use std::fmt;

/// What a step asks DVC to keep, and what it says of the remotes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DvcSettings {
    /// Files and directories to track, relative to the clone.
    pub outputs: Vec<String>,
    /// Whether to send what `dvc.lock` and `.dvc` files name from DVC's own cache, too.
    pub push: bool,
    /// A remote's name or address, in the place of the default one.
    pub remote: Option<String>,
    /// The remotes' credentials, by the names that DVC and its SDKs use.
    pub environment: BTreeMap<String, String>,
    /// Hosts, each as `host` or `host:port`, to which credentials may go whatever the clone's configuration
    /// says of them.
    pub trusted_hosts: Vec<String>,
}

impl DvcSettings {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && !self.push
    }
}

impl fmt::Debug for DvcSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.keys().collect();
        write!(out, "{:?} push {} to {:?} with {names:?}", self.outputs, self.push, self.remote)
    }
}
