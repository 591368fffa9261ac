//! The settings of a step for DVC.

use std::collections::BTreeMap;
use std::fmt;

/// The outputs that a step asks DVC to keep, and the step's settings for DVC's remotes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DvcSettings {
    /// Files and directories to track, relative to the clone.
    pub outputs: Vec<String>,
    /// Whether to send also those objects in DVC's own cache that `dvc.lock` and `.dvc` files name.
    pub push: bool,
    /// The name or address of a remote to use instead of the default remote.
    pub remote: Option<String>,
    /// The remotes' credentials, by the names that DVC and its SDKs use.
    pub environment: BTreeMap<String, String>,
    /// Hosts, each as `host` or `host:port`, to which credentials may go whatever the clone's configuration
    /// says of them.
    pub trusted_hosts: Vec<String>,
}

impl DvcSettings {
    /// Whether the step asks DVC for nothing.
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
