//! The workspace: whatever a clone may hold arrives as it is, and takes no memory.

use super::tree;
use crate::local_machine::Rig;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trainspot_protocol::FileSelection;
use trainspot_transfer::BundleEntry;

/// Everything below a folder, links as links.
pub(super) fn entries(root: &Path) -> Vec<BundleEntry> {
    tree(root).keys().map(|path| BundleEntry::look(root, path).unwrap()).collect()
}

fn write(root: &Path, path: impl AsRef<Path>, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub(super) fn odd(root: &Path) {
    let deep: PathBuf = std::iter::repeat_n("deep folder", 60).collect();
    for name in
        ["with space", "-rf", "--home", "new\nline", "ünï/çødé 模型.bin", "a'b\"c\\d", "*?[x]{y}", "…"]
    {
        write(root, name, name.as_bytes());
    }
    write(root, OsStr::from_bytes(b"not\xff\xfeutf8/\x01\x02"), b"bytes");
    write(root, deep.join("end"), b"deep");
    write(root, "empty", b"");
    write(root, "run.sh", b"#!/bin/sh\n");
    write(root, "folder/file", b"x");
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
    for (target, link) in [
        (OsStr::new("folder"), "to a folder"),
        (OsStr::new("nowhere"), "dangling"),
        (OsStr::new("/etc/hostname"), "absolute"),
        (OsStr::new("../../.."), "folder/up"),
        (OsStr::from_bytes(b"\xff"), "bytes"),
        (OsStr::new("loop"), "loop"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
}

#[tokio::test]
async fn odd_names_links_and_modes_arrive_as_they_are() {
    let rig = Rig::new(20).await;
    let clone = rig.aside("clone");
    odd(&clone);
    let agent = rig.agent("test").await;
    let sent = tree(&clone);
    for _ in 0..2 {
        // The second time, everything is in the way.
        agent.send(&clone, entries(&clone), "sending").await.unwrap();
        assert_eq!(tree(&rig.home().work()), sent);
    }
    rig.end().await;
}

#[tokio::test]
async fn thousands_of_files_and_a_large_one_go_both_ways_and_take_no_memory() {
    const LARGE: usize = 300;
    /// What an agent may take more than one that does nothing, in KiB.
    const MORE: u64 = 10 << 10;
    // Nobody asks it meanwhile.
    let rig = Rig::new(600).await;
    let clone = rig.aside("clone");
    for number in 0..5000 {
        write(&clone, format!("data/{}/{number}.txt", number % 50), format!("{number}").as_bytes());
    }
    let mut random = fastrand::Rng::with_seed(3);
    let mut large = File::create(clone.join("large")).unwrap();
    let mut piece = vec![0; 1 << 20];
    random.fill(&mut piece);
    for number in 0..LARGE {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        large.write_all(&piece).unwrap();
    }
    let agent = rig.agent("test").await;
    let (sent, entries) = (tree(&clone), entries(&clone));
    let (done, peak) = with_peak(&rig, "unpack", agent.send(&clone, entries, "sending")).await;
    done.unwrap();
    // The program itself takes as much, which differs from build to build.
    let idle = rig.peak("supervise");
    assert!(0 < peak && peak < idle + MORE, "taking files took {peak} KiB, doing nothing {idle}");
    assert!(tree(&rig.home().work()) == sent, "not everything arrived as it was");
    let back = rig.aside("back");
    let wanted =
        FileSelection { required: vec!["data".to_owned(), "large".to_owned()], ..FileSelection::default() };
    let (header, peak) = with_peak(&rig, "pack", agent.fetch(&wanted, &back, "fetching")).await;
    assert_eq!(header.unwrap().entries.len(), 5001);
    assert!(0 < peak && peak < idle + MORE, "sending files took {peak} KiB, doing nothing {idle}");
    assert!(tree(&back) == sent, "not everything came back as it was");
    rig.end().await;
}

/// Does `work`, and tells the most memory that an agent of this verb took meanwhile, in KiB.
async fn with_peak<T>(rig: &Rig, verb: &str, work: impl Future<Output = T>) -> (T, u64) {
    let mut peak = 0;
    let look = async {
        loop {
            tokio::time::sleep(Duration::from_millis(30)).await;
            peak = peak.max(rig.peak(verb));
        }
    };
    let done = tokio::select! { done = work => done, () = look => unreachable!() };
    (done, peak)
}
