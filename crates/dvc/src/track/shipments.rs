//! The objects to send, sorted out.

use super::super::remote::Settings;
use super::super::{Object, Oid};
use super::Shipment;
use std::collections::BTreeSet;

/// The objects for each remote.
#[derive(Default)]
pub(crate) struct Shipments(Vec<(Settings, Loads)>);

/// The objects for a remote.
#[derive(Default)]
pub(crate) struct Loads {
    there: BTreeSet<Oid>,
    files: Vec<Object>,
    lists: Vec<Object>,
}

impl Shipments {
    /// The objects for this remote. An address and a name may lead to the same place; that costs a question
    /// more.
    pub(crate) fn of(&mut self, remote: Settings) -> &mut Loads {
        let same = |(other, _): &(Settings, Loads)| (&other.name, &other.url) == (&remote.name, &remote.url);
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push((remote, Loads::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    pub(crate) fn finish(self) -> Vec<Shipment> {
        let join = |loads: Loads| [loads.files, loads.lists].concat();
        self.0.into_iter().map(|(remote, loads)| Shipment { remote, objects: join(loads) }).collect()
    }
}

impl Loads {
    pub(crate) fn add(&mut self, object: Object) {
        if self.there.insert(object.oid.clone()) {
            let list = if object.oid.is_dir() { &mut self.lists } else { &mut self.files };
            list.push(object);
        }
    }
}
