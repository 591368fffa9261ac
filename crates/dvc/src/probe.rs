//! Tries whether the remotes of a request take an object, before there is anything to keep.

use super::remote::{self, RemoteName, RemoteStore as _, Settings};
use super::{Md5, Object, ObjectContent, StoreRequest};
use bytes::Bytes;
use std::collections::BTreeMap;
use trainspot_base::error::{Context as _, Result};

/// The content of the object that is sent. It is always the same, so that a remote holds it once, and it
/// stays there, as a credential that may only add objects is enough for a run.
const PROBE_CONTENT: &[u8] =
    b"Sent by a dry run of trainspot. No file names this object; `dvc gc --cloud` removes it.\n";

/// Sends a small object to each remote of the request. Returns each remote's name for messages, and whether
/// the remote took the object.
pub async fn probe(request: &StoreRequest) -> Vec<(String, Result<()>)> {
    let remotes: BTreeMap<String, &Settings> =
        request.remotes().map(|settings| (RemoteName::of(settings).to_string(), settings)).collect();
    let mut tried = Vec::new();
    for (place, settings) in remotes {
        let sent = send(settings).await.with_context(|| format!("cannot send an object to {place}"));
        tried.push((place, sent));
    }
    tried
}

async fn send(settings: &Settings) -> Result<()> {
    let remote = remote::open(settings).await?;
    let content = ObjectContent::Bytes(Bytes::from_static(PROBE_CONTENT));
    let object = Object { oid: Md5::of(PROBE_CONTENT), size: PROBE_CONTENT.len() as u64, content };
    // A run asks before it sends. What is there already is sent again: that it is there does not prove that
    // it may be.
    remote.missing(std::slice::from_ref(&object)).await?;
    remote.put(&object).await
}

#[cfg(test)]
mod tests {
    use super::super::store_request::RepositoryShare;
    use super::super::{DvcConfig, Remotes};
    use super::*;
    use std::path::{Path, PathBuf};

    fn request(root: &Path, remote: &Path) -> StoreRequest {
        let wanted = remote.to_str();
        let remotes = Remotes::of(root, DvcConfig::default(), wanted, BTreeMap::new()).settle();
        let share =
            RepositoryShare { folder: PathBuf::new(), outputs: Vec::new(), rules: BTreeMap::new(), remotes };
        StoreRequest { shares: vec![share], push: None }
    }

    #[tokio::test]
    async fn each_remote_is_asked_to_take_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let (root, store) = (folder.path().join("clone"), folder.path().join("store"));
        std::fs::create_dir(&root).unwrap();
        for _ in 0..2 {
            let tried = probe(&request(&root, &store)).await;
            assert_eq!(tried.len(), 1);
            assert!(tried[0].1.is_ok() && tried[0].0.contains("store"), "{tried:?}");
            assert_eq!(std::fs::read(store.join(Md5::of(PROBE_CONTENT).key())).unwrap(), PROBE_CONTENT);
        }
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let tried = probe(&request(&root, &file.join("store"))).await;
        let shown = tried[0].1.as_ref().unwrap_err().render();
        assert!(shown.starts_with("cannot send an object to the remote"), "{shown}");
    }
}
