//! What is sent to a machine.

use super::*;

fn listed(world: &World, include: &[&str]) -> Vec<String> {
    let include: Vec<String> = include.iter().map(|&pattern| pattern.to_owned()).collect();
    let paths = world.checkout().workspace(&include).unwrap();
    assert!(paths.is_sorted());
    paths.into_iter().map(|path| path.into_os_string().into_string().unwrap()).collect()
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
