//! The objects to send, by remote: each once, and files before lists.

use super::super::remote::Settings;
use super::super::{Object, Oid};
use super::Upload;
use std::collections::BTreeSet;

/// The objects for each remote.
#[derive(Default)]
pub(crate) struct UploadPlan(Vec<(Settings, ObjectSet)>);

/// The objects for a remote.
#[derive(Default)]
pub(crate) struct ObjectSet {
    there: BTreeSet<Oid>,
    files: Vec<Object>,
    lists: Vec<Object>,
}

impl UploadPlan {
    /// The objects for this remote. An address and a name may lead to the same remote, which then is asked
    /// twice.
    pub(crate) fn of(&mut self, remote: Settings) -> &mut ObjectSet {
        let same =
            |(other, _): &(Settings, ObjectSet)| (&other.name, &other.url) == (&remote.name, &remote.url);
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push((remote, ObjectSet::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    pub(crate) fn finish(self) -> Vec<Upload> {
        let join = |loads: ObjectSet| [loads.files, loads.lists].concat();
        self.0.into_iter().map(|(remote, loads)| Upload { remote, objects: join(loads) }).collect()
    }
}

impl ObjectSet {
    pub(crate) fn add(&mut self, object: Object) {
        if self.there.insert(object.oid.clone()) {
            let list = if object.oid.is_dir() { &mut self.lists } else { &mut self.files };
            list.push(object);
        }
    }
}
