//! What a training leaves when it is over: its outputs, and what DVC is to keep.

use super::super::home::Home;
use super::super::selection::selected;
use super::unreadable;
use secrecy::ExposeSecret as _;
use trainspot_base::error::{Context as _, Result};
use trainspot_detached::{DvcWord, FileSender, MachineExit, MachineFolder};
use trainspot_dvc::{StoreRequest, lay_out, store};
use trainspot_protocol::{CommandExit, DetachedSpec, ExitReason};
use trainspot_store::ObjectKey;
use trainspot_transfer::{BundleEntry, Manifest, everything_behind_links};

/// The longest words about what went wrong that are kept.
pub(super) const TROUBLE_LIMIT_CHARS: usize = 2000;

/// The end of a training.
pub(super) struct LastWords<'a> {
    pub(super) home: &'a Home,
    pub(super) spec: &'a DetachedSpec,
    pub(super) machine: &'a MachineFolder,
}

impl LastWords<'_> {
    /// Sends what there is to send, and returns what is to be said of it.
    ///
    /// # Errors
    /// The store does not take something. Done again, this sends what is missing.
    pub(super) async fn send(&self, exit: &CommandExit, files: &mut FileSender) -> Result<MachineExit> {
        let mut said =
            MachineExit { exit: exit.clone(), stored_checkpoint: None, unmatched: Vec::new(), dvc: None };
        if exit.reason != ExitReason::Exited(0) {
            return Ok(said);
        }
        let mut header = selected(&self.home.work(), &self.spec.outputs)?;
        if !header.unmatched.is_empty() {
            // What there is must not be lost with the machine.
            said.unmatched = std::mem::take(&mut header.unmatched);
            header = selected(&self.home.work(), &self.spec.outputs.clone().all_optional())?;
        }
        self.send_files(header.entries, &self.home.work(), files, &self.machine.outputs()?).await?;
        if let Some(request) = &self.spec.dvc {
            said.dvc = Some(self.keep_for_dvc(request.expose_secret(), files).await?);
        }
        Ok(said)
    }

    async fn send_files(
        &self,
        entries: Vec<BundleEntry>,
        folder: &std::path::Path,
        files: &mut FileSender,
        key: &ObjectKey,
    ) -> Result<()> {
        let root = folder.to_owned();
        let manifest = tokio::task::spawn_blocking(move || Manifest::of_folder(&root, entries));
        let manifest = manifest.await.context("hashing ended unexpectedly")??;
        files.send(folder, &manifest, key).await
    }

    /// Has DVC's outputs sent to their remotes. Those of which a remote does not take all go to the store, as
    /// files.
    async fn keep_for_dvc(&self, request: &str, files: &mut FileSender) -> Result<DvcWord> {
        let request: StoreRequest =
            serde_json::from_str(request).map_err(|error| unreadable("what DVC is to keep").source(error))?;
        trainspot_base::log::hide(request.secrets());
        let work = self.home.work();
        let why = match store(&work, &request).await {
            Ok(outcome) => {
                let outcome = serde_json::to_string(&outcome).context("cannot tell what was stored")?;
                return Ok(DvcWord::Stored(outcome));
            }
            Err(error) => error.render(),
        };
        tracing::warn!("DVC's outputs go to the store, as files: {why}");
        let folder = tempfile::tempdir_in(self.home.run()).context("cannot make a folder")?;
        lay_out(&work, &request, folder.path())?;
        let entries = everything_behind_links(folder.path())?;
        self.send_files(entries, folder.path(), files, &self.machine.rescue()?).await?;
        Ok(DvcWord::Failed(why.chars().take(TROUBLE_LIMIT_CHARS).collect()))
    }
}
