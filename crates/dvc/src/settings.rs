//! The settings of a step for DVC.

use secrecy::SecretString;
use std::collections::BTreeMap;

/// The outputs that a step asks DVC to keep, and the step's settings for DVC's remotes.
#[derive(Clone, Debug, Default)]
pub struct DvcSettings {
    /// Files and directories to track, relative to the clone.
    pub outputs: Vec<String>,
    /// Whether to send also those objects in DVC's own cache that `dvc.lock` and `.dvc` files name.
    pub push: bool,
    /// The name or address of a remote to use instead of the default remote.
    pub remote: Option<String>,
    /// The remotes' credentials, by the names that DVC and its SDKs use.
    pub environment: BTreeMap<String, SecretString>,
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
