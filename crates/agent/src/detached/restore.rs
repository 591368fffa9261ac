//! A checkpoint that another machine left in the store, brought into this machine's workspace.

use super::super::dvc::while_telling;
use super::super::home::Home;
use super::unreadable;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_detached::{MachineFolder, fetch_files, open_store, read_manifest};
use trainspot_protocol::RestoreRequest;
use trainspot_transfer::{ReceivePolicy, TargetFolder};

/// Restores the checkpoint that standard input asks for. The lines of standard output are empty: signs of
/// life.
pub(crate) fn restore(home: &Home) -> Result<()> {
    let request: RestoreRequest = serde_json::from_reader(std::io::stdin().lock())
        .map_err(|error| unreadable("which checkpoint is wanted").source(error))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(while_telling(fetch(home, &request)))
}

async fn fetch(home: &Home, request: &RestoreRequest) -> Result<()> {
    let (store, machine) = (open_store(&request.store)?, MachineFolder::at(&request.folder)?);
    let key = machine.checkpoint(request.number)?;
    let manifest = read_manifest(&store, &key)
        .await?
        .ok_or_else(|| Error::new(format!("{key} is not in the store")).kind(Kind::Machine))?;
    let place = TargetFolder::open(&home.work())?.with_own_links();
    let policy = ReceivePolicy::matching(&request.patterns)?;
    fetch_files(&store, &machine, manifest, (&place, &policy), &home.run()).await.map(drop)
}
