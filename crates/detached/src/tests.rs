use super::*;
use std::path::Path;
use trainspot_protocol::{AgentStatus, CommandExit, CommandState, ExitReason};
use trainspot_store::{BucketAccess, ObjectKey, Store, StoreAddress, WriteCondition};
use trainspot_transfer::{Manifest, ReceivePolicy, TargetFolder, find_with_links};

fn store_in(folder: &Path) -> Store {
    Store::open(&StoreAddress::Folder(folder.to_owned()), &BucketAccess::default()).unwrap()
}

fn machine() -> MachineFolder {
    RunFolder::new("acme", "iris", "0123456789abcdef").unwrap().machine("i-0a").unwrap()
}

fn patterns() -> Vec<String> {
    vec!["model".to_owned()]
}

/// A folder with a file that stays, one that changes, and a link.
fn trained(text: &str) -> (tempfile::TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("model/same"), "same").unwrap();
    std::fs::write(folder.path().join("model/new"), text).unwrap();
    std::os::unix::fs::symlink("new", folder.path().join("model/last")).unwrap();
    let entries = find_with_links(folder.path(), &patterns()).unwrap();
    let manifest = Manifest::of_folder(folder.path(), entries).unwrap();
    (folder, manifest)
}

#[tokio::test]
async fn files_come_back_as_they_were_and_are_sent_once() {
    let (place, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, machine) = (store_in(place.path()), machine());
    let mut sender = FileSender::new(store.clone(), machine.clone());
    for (number, text) in [(1, "first"), (2, "second")] {
        let (folder, manifest) = trained(text);
        sender.send(folder.path(), &manifest, &machine.checkpoint(number).unwrap()).await.unwrap();
    }
    let files = store.list(&machine.root().join("files").unwrap(), 10).await.unwrap();
    assert_eq!(files.len(), 3, "what both have is there once");
    let manifest = read_manifest(&store, &machine.checkpoint(2).unwrap()).await.unwrap().unwrap();
    let target = TargetFolder::open(home.path()).unwrap().with_own_links();
    let policy = ReceivePolicy::matching(&patterns()).unwrap();
    fetch_files(&store, &machine, manifest.clone(), (&target, &policy), home.path()).await.unwrap();
    assert_eq!(std::fs::read(home.path().join("model/last")).unwrap(), b"second");
    assert_eq!(std::fs::read(home.path().join("model/same")).unwrap(), b"same");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "no file on its way is left");
    assert_eq!(read_manifest(&store, &machine.outputs().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn a_file_that_is_not_what_the_manifest_says_does_not_come() {
    let (place, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, machine) = (store_in(place.path()), machine());
    let (folder, manifest) = trained("true");
    let key = machine.outputs().unwrap();
    FileSender::new(store.clone(), machine.clone()).send(folder.path(), &manifest, &key).await.unwrap();
    let object = machine.file(&blake3::hash(b"true")).unwrap();
    let target = TargetFolder::open(home.path()).unwrap().with_own_links();
    let policy = ReceivePolicy::matching(&patterns()).unwrap();
    for (bytes, why) in [
        (Some(&b"lies"[..]), "it has other bytes"),
        (Some(b"longer"), "is longer than 4 bytes"),
        (None, "there is no such object"),
    ] {
        match bytes {
            Some(bytes) => drop(store.write(&object, bytes.to_vec(), WriteCondition::None).await.unwrap()),
            None => store.delete(&object).await.unwrap(),
        }
        let fetched = fetch_files(&store, &machine, manifest.clone(), (&target, &policy), home.path()).await;
        let error = fetched.unwrap_err();
        assert!(trainspot_base::error::chain(&error).contains(why), "{}", error.render());
        assert!(!home.path().join("model/new").exists());
    }
    let nothing = ReceivePolicy::matching(&["other".to_owned()]).unwrap();
    let fetched = fetch_files(&store, &machine, manifest.clone(), (&target, &nothing), home.path()).await;
    assert!(fetched.unwrap_err().render().contains("the machine was not asked for it"));
}

#[tokio::test]
async fn the_log_is_sent_as_it_grows_and_read_from_its_end() {
    let (place, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, machine) = (store_in(place.path()), machine());
    let mut sender = LogSender::new(store.clone(), machine.clone());
    let log = home.path().join("log");
    sender.send(&log).await.unwrap();
    let mut written = Vec::new();
    for length in [10, 0, 3_000_000, 20_usize] {
        written.extend((0..length).map(|byte| u8::try_from(byte % 251).unwrap()));
        std::fs::write(&log, &written).unwrap();
        sender.send(&log).await.unwrap();
    }
    let (end, is_cut) = read_log_end(&store, &machine, usize::MAX).await.unwrap();
    assert!(end == written && !is_cut);
    let (end, is_cut) = read_log_end(&store, &machine, 21).await.unwrap();
    assert!(written.ends_with(&end) && end.len() > 20 && is_cut);
}

#[tokio::test]
async fn a_named_pipe_in_the_logs_place_is_not_waited_for() {
    let (place, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, machine, log) = (store_in(place.path()), machine(), home.path().join("log"));
    rustix::fs::mknodat(rustix::fs::CWD, &log, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    LogSender::new(store.clone(), machine.clone()).send(&log).await.unwrap();
    assert_eq!(read_log_end(&store, &machine, usize::MAX).await.unwrap(), (Vec::new(), false));
}

#[tokio::test]
async fn a_machines_words_are_read_as_they_were_written() {
    let place = tempfile::tempdir().unwrap();
    let (store, machine) = (store_in(place.path()), machine());
    assert_eq!(read_state(&store, &machine).await.unwrap(), None);
    assert_eq!(read_exit(&store, &machine).await.unwrap(), None);
    let state = MachineState {
        number: 3,
        status: AgentStatus::with_state(CommandState::Running),
        stored_checkpoint: Some(2),
        stored_seconds: Some(1.0),
        log_bytes: 7,
        seconds: 1.5,
        trouble: None,
    };
    write_state(&store, &machine, &state).await.unwrap();
    assert_eq!(read_state(&store, &machine).await.unwrap().unwrap().0, state);
    let exit = MachineExit {
        exit: CommandExit { reason: ExitReason::Exited(0), seconds: 2.0 },
        stored_checkpoint: Some(2),
        unmatched: Vec::new(),
        dvc: Some(DvcWord::Failed("no room".to_owned())),
    };
    write_exit(&store, &machine, &exit).await.unwrap();
    assert_eq!(read_exit(&store, &machine).await.unwrap(), Some(exit));
    store.write(&machine.exit().unwrap(), b"{".to_vec(), WriteCondition::None).await.unwrap();
    let error = read_exit(&store, &machine).await.unwrap_err().render();
    assert!(error.starts_with("the machine's exit in the store cannot be read"), "{error}");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let store = store_in(place.path());
    for _ in 0..2 {
        check_version(&store).await.unwrap();
    }
    let key = ObjectKey::new("version.json").unwrap();
    for (bytes, why) in [(&br#"{"version":2}"#[..], "the store has layout 2"), (b"[]", "is not trainspot's")]
    {
        store.write(&key, bytes.to_vec(), WriteCondition::None).await.unwrap();
        let error = check_version(&store).await.unwrap_err().render();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn the_runs_of_one_repository_are_found_and_no_others() {
    let place = tempfile::tempdir().unwrap();
    let store = store_in(place.path());
    for (repository, run) in [("iris", "b"), ("iris", "a"), ("iris-2", "c"), ("", "d")] {
        let folder = RunFolder::new("acme", repository, run).unwrap();
        for key in [folder.request().unwrap(), folder.progress().unwrap()] {
            store.write(&key, b"{}".to_vec(), WriteCondition::None).await.unwrap();
        }
    }
    assert_eq!(runs_of(&store, "acme", "iris").await.unwrap(), ["a", "b"]);
    assert_eq!(runs_of(&store, "acme", "").await.unwrap(), ["d"]);
    assert_eq!(runs_of(&store, "other", "iris").await.unwrap(), Vec::<String>::new());
}
