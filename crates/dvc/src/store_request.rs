//! What a machine is told to keep. The request holds all that the machine needs to know, so no file of the
//! machine decides where a credential goes or what is committed.

use super::Settled;
use super::remote::Settings;
use super::track::RequestedOutput;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use trainspot_base::log::Secret;

/// The outputs that a machine is to keep in DVC's remotes, as the pipe settled them from the clone's files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreRequest {
    /// One share for each DVC repository of the clone.
    pub(super) shares: Vec<RepositoryShare>,
    /// What to send from DVC's own cache; `None` without `DVC_PUSH`.
    pub(super) push: Option<CachePush>,
}

/// What a machine is to keep of one DVC repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RepositoryShare {
    /// The repository's folder, relative to the clone.
    pub(super) folder: PathBuf,
    /// The outputs to hash, relative to the repository's folder.
    pub(super) outputs: Vec<RequestedOutput>,
    /// The `.dvcignore` files that may leave out files of the outputs: their texts by folder.
    pub(super) rules: BTreeMap<PathBuf, String>,
    /// The repository's remotes.
    pub(super) remotes: Settled,
}

/// What `DVC_PUSH` needs to know of the clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CachePush {
    /// The objects that `.dvc` files of the clone name: no training of this run made them.
    pub(super) known: BTreeSet<String>,
    /// The remotes for a DVC repository that the clone does not have: a training may make one.
    pub(super) elsewhere: Settled,
}

impl StoreRequest {
    /// The requested outputs, relative to the clone.
    pub(super) fn outputs(&self) -> impl Iterator<Item = PathBuf> {
        self.shares
            .iter()
            .flat_map(|share| share.outputs.iter().map(|output| share.folder.join(&output.path)))
    }

    /// The remotes that an output or the cache may go to, as far as they can be used.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Settings> {
        let shares = self.shares.iter().map(|share| &share.remotes);
        shares.chain(self.push.iter().map(|push| &push.elsewhere)).flat_map(Settled::all)
    }

    /// The credentials of the request's remotes, each with a name that the log shows in its place.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        self.remotes().flat_map(Settled::secrets_of)
    }

    /// The request with those paths of remotes that start from the clone's root moved to `root`.
    pub(super) fn within(mut self, root: &Path) -> Self {
        let shares = self.shares.iter_mut().map(|share| &mut share.remotes);
        let all = shares.chain(self.push.as_mut().map(|push| &mut push.elsewhere));
        all.for_each(|remotes| remotes.move_to(root));
        self
    }

    /// The remote of this name in a share; in the repositories that the clone does not have, where `share` is
    /// none.
    pub(super) fn remote(&self, share: Option<usize>, name: &str) -> Option<&Settings> {
        let remotes = match share {
            Some(share) => &self.shares.get(share)?.remotes,
            None => &self.push.as_ref()?.elsewhere,
        };
        remotes.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DvcSettings;

    /// A request as a pipe of another version writes it too.
    const STORE_REQUEST: &str = concat!(
        r#"{"shares":[{"folder":"","outputs":[],"rules":{},"remotes":{"default":{"Ok":{"name":"a","#,
        r#""url":"ssh://me:s3cret-of-url@host/x","options":{"password":"s3cret-of-config","port":"22"},"#,
        r#""folder":"/c/.dvc","environment":{"SSH_PRIVATE_KEY":"s3cret-of-step"}}},"named":{}}}],"push":null}"#
    );

    #[test]
    fn secrets_travel_as_they_are_and_are_not_shown() {
        let request: StoreRequest = serde_json::from_str(STORE_REQUEST).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), STORE_REQUEST);
        let environment = [("SSH_PRIVATE_KEY".to_owned(), "s3cret-of-step".into())].into();
        let settings = DvcSettings { environment, ..DvcSettings::default() };
        for shown in [format!("{request:?}"), format!("{settings:?}")] {
            assert!(shown.contains("SSH_PRIVATE_KEY") && !shown.contains("s3cret"), "{shown}");
        }
    }
}
