//! What the machine of a detached run leaves in a store, and where: its state with a heartbeat, its
//! checkpoints, the training's log, its outputs, and how the training ended.
//!
//! | promise | by what |
//! | --- | --- |
//! | nothing is half there | files go before the manifest that names them, and everything before the exit |
//! | only what changed is sent | a file lies under its hash, once for all checkpoints and outputs of a machine |
//! | a machine's word is a machine's word | it may write below its own name only, and what is read there is bounded, and proven by hashes |
//! | a newer version's store is not misread | [`check_version`] |

mod files;
mod layout;
mod machine;
mod training_log;

pub use files::{FileSender, fetch_files, read_manifest};
pub use layout::{MachineFolder, RunFolder, check_version, runs_of};
pub use machine::{DvcWord, MachineExit, MachineState, read_exit, read_state, write_exit, write_state};
pub use training_log::{LogSender, read_log_end};

use trainspot_base::error::Result;
use trainspot_protocol::StoreAccess;
use trainspot_store::{BucketAccess, BucketCredentials, Store, StoreAddress};

/// Opens the store that a pipe named. Nothing is asked of the network.
///
/// # Errors
/// The address or the endpoint is none.
pub fn open_store(access: &StoreAccess) -> Result<Store> {
    let credentials = access.keys.as_ref().map_or(BucketCredentials::InstanceProfile, |keys| {
        let (id, secret, session_token) = (keys.id.clone(), keys.secret.clone(), keys.session_token.clone());
        BucketCredentials::Keys { id, secret, session_token }
    });
    let (region, endpoint) = (access.region.clone(), access.endpoint.clone());
    Store::open(&StoreAddress::parse(&access.address)?, &BucketAccess { region, endpoint, credentials })
}

#[cfg(test)]
mod tests;
