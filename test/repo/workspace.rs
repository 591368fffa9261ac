//! What is sent to a machine.

use super::*;
use trainspot_transfer::{BundleEntry, EntryKind};

fn listed(world: &World, include: &[&str]) -> Vec<String> {
    let include: Vec<String> = include.iter().map(|&pattern| pattern.to_owned()).collect();
    let entries = world.checkout().workspace(&include).unwrap();
    let paths: Vec<_> = entries.iter().map(|entry| entry.path.to_path()).collect();
    assert!(paths.is_sorted());
    paths.into_iter().map(|path| path.into_os_string().into_string().unwrap()).collect()
}

/// The links among what is sent, and the sizes of the files at the paths of links.
fn linked(world: &World, include: &[&str]) -> Vec<String> {
    let include: Vec<String> = include.iter().map(|&pattern| pattern.to_owned()).collect();
    let entries = world.checkout().workspace(&include).unwrap();
    let is_linked = |entry: &&BundleEntry| {
        let path = entry.path.to_path();
        path.ancestors().any(|path| world.clone().join(path).is_symlink())
    };
    let shown = entries.iter().filter(is_linked).map(|entry| match &entry.kind {
        EntryKind::File { bytes, .. } => format!("{}: {bytes}", entry.path),
        EntryKind::Link { target } => format!("{} -> {target}", entry.path),
    });
    shown.collect()
}

#[test]
fn what_links_of_included_data_lead_to_is_sent() {
    let world = World::new();
    let outside = tempfile::tempdir().unwrap();
    let link = |target: &Path, path: &str| {
        let path = world.clone().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    fs::create_dir(outside.path().join("deep")).unwrap();
    fs::write(outside.path().join("deep/far"), "far").unwrap();
    std::os::unix::fs::symlink(outside.path(), outside.path().join("deep/loop")).unwrap();
    world.write(".gitignore", b"data\ndata.csv\n/.dvc/cache\n/folder\n");
    world.write(".dvc/cache/files/md5/ab/cdef", b"12345");
    world.write("kept/real", b"1");
    let object = world.clone().join(".dvc/cache/files/md5/ab/cdef");
    link(&object, "data.csv");
    link(&object, "data/a/b.csv");
    link(Path::new("../../.dvc/cache/files/md5/ab/cdef"), "data/a/relative.csv");
    link(outside.path(), "folder");
    // Not ignored, so they go without INCLUDE.
    link(&object, "untracked.csv");
    link(Path::new("/etc/hostname"), "absolute");
    link(&world.clone().join("kept/real"), "absolute within");
    link(Path::new("real"), "kept/link");
    link(Path::new("../kept"), "deep/folder");
    link(Path::new("kept/link"), "link to a link");
    link(Path::new("nowhere"), "dangling");
    link(Path::new("data.csv"), "to ignored");
    let real = world.clone().join("kept/real").display().to_string();
    let within = format!("absolute within -> {real}");
    let always = [
        "absolute -> /etc/hostname",
        &within,
        "dangling -> nowhere",
        "deep/folder -> ../kept",
        "kept/link -> real",
        "link to a link -> kept/link",
        // It leads into the cache, too.
        "to ignored: 5",
        "untracked.csv: 5",
    ];
    assert_eq!(linked(&world, &[]), always);
    let more = |include: &[&str]| {
        let mut more = linked(&world, include);
        more.retain(|line| !always.contains(&line.as_str()));
        more
    };
    // A link to a file that is sent now is one there, too.
    assert_eq!(more(&["data.csv"]), ["data.csv: 5", "to ignored -> data.csv"]);
    assert_eq!(more(&["data"]), ["data/a/b.csv: 5", "data/a/relative.csv: 5"]);
    assert_eq!(more(&["folder"]), ["folder/deep/far: 3"]);
    for behind in ["folder/deep/far", "folder/**", "folder/*/f*"] {
        assert_eq!(more(&[behind]), ["folder/deep/far: 3"], "{behind}");
    }
    // A link that git tracks gives way to the folder with what is behind it.
    world.git_in_clone(&["add", "--force", "folder"]);
    assert_eq!(more(&["folder/deep/far"]), ["folder/deep/far: 3"]);
    world.git_in_clone(&["rm", "--cached", "--quiet", "folder"]);
    assert_eq!(more(&["absolute"]).len(), 1, "the file's bytes in the place of the link");
}

#[test]
fn tracked_and_new_files_without_ignored_ones() {
    let world = World::new();
    world.write(".gitignore", b"data/\n*.log\n");
    world.write("data/deep/train.csv", b"1");
    world.write("run.log", b"1");
    world.write("earlier/step.txt", b"1");
    world.write("staged.log", b"1");
    world.write(".bitbucket/pipelines/generated/x", b"1");
    world.git_in_clone(&["add", "--force", "staged.log"]);
    fs::remove_file(world.clone().join("history.txt")).unwrap();
    std::os::unix::fs::symlink("nowhere", world.clone().join("dangling")).unwrap();
    let expected = [
        ".gitignore",
        "README.md",
        "dangling",
        "earlier/step.txt",
        "model/forest.bin",
        "model/metrics.json",
        "staged.log",
    ];
    assert_eq!(listed(&world, &[]), expected);
    let with = listed(&world, &["data/", "*.log", ".git/config"]);
    let more: Vec<_> = with.iter().filter(|path| !expected.contains(&path.as_str())).collect();
    assert_eq!(more, ["data/deep/train.csv", "run.log"]);
}

#[test]
fn files_of_submodules_and_of_clones_inside_the_clone() {
    let world = World::new();
    for inner in ["tracked", "untracked"] {
        let path = world.clone().join(inner);
        let url = world.bare.path().to_str().unwrap();
        world.git_in_clone(&["clone", "--quiet", url, path.to_str().unwrap()]);
    }
    world.git_in_clone(&["-c", "advice.addEmbeddedRepo=false", "add", "tracked"]);
    let files = listed(&world, &[]);
    for path in ["tracked/README.md", "tracked/history.txt", "untracked/README.md"] {
        assert!(files.iter().any(|file| file == path), "{path}: {files:?}");
    }
    assert!(!files.iter().any(|file| file.contains(".git/")), "{files:?}");
}

#[test]
fn files_are_read_at_a_commit() {
    let world = World::new();
    let checkout = world.checkout();
    let read = |path: &str| checkout.read_at(checkout.commit(), Path::new(path)).unwrap();
    assert_eq!(read("README.md").as_deref(), Some(&b"# Forest\n"[..]));
    assert_eq!(read("none"), None);
    assert_eq!(read("README.md/x"), None);
    assert!(checkout.read_at("xyz", Path::new("a")).is_err());
    assert!(checkout.origin().unwrap().starts_with("http://bitbucket.org/"));
}
