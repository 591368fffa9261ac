//! Forms of a clone that git can make and libgit2 knows only in part: they work, or the way out is told.

use super::*;
use trainspot_base::error::Kind;

fn git(arguments: &[&str]) {
    let output = Command::new("git")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "protocol.file.allow=always", "-c", "user.name=a", "-c", "user.email=a@example.com"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A repository with folders, a line to ignore, and a shallow clone that another step may have made in its
/// own way.
fn world() -> World {
    World::with_files(&[("src/train.py", b"train\n"), ("data/x.csv", b"1\n"), (".gitignore", b"*.log\n")])
}

fn listed(world: &World) -> Vec<String> {
    let entries = world.checkout().workspace(&[]).unwrap();
    entries.into_iter().map(|entry| entry.path.to_string()).collect()
}

/// That the clone's files are known, and that a publication arrives.
async fn works(world: &World, expected: &[&str]) {
    world.write("left.txt", b"by an earlier step");
    world.write("ignored.log", b"x");
    assert_eq!(listed(world), expected);
    world.checkout().snapshot("a", "a@example.com").unwrap();
    let theirs = world.bare.commit(BRANCH, "somebody else's", &[(".gitignore", b"*.log\n/b\n")]);
    world.write(".gitignore", b"*.log\n/a\n");
    let publication = publication_of("a", pull_request(), &["model/forest.bin", ".gitignore"]);
    let published = world.checkout().publish(&world.by_token(), &publication).await;
    let (ours, ..) = pushed(published);
    assert_eq!(world.bare.git(&["rev-parse", &format!("{ours}^")]), theirs);
    assert_eq!(world.bare.file(&ours, "model/forest.bin").unwrap(), b"forest 1");
    assert_eq!(world.bare.file(&ours, ".gitignore").unwrap(), b"*.log\n/b\n/a\n");
    assert_eq!(world.bare.file(&ours, "data/x.csv").unwrap(), b"1\n");
    world.bare.git(&["fsck", "--strict", "--connectivity-only"]);
}

const ALL: [&str; 8] = [
    ".gitignore",
    "README.md",
    "data/x.csv",
    "history.txt",
    "left.txt",
    "model/forest.bin",
    "model/metrics.json",
    "src/train.py",
];

#[tokio::test]
async fn a_split_index() {
    let world = world();
    world.git_in_clone(&["update-index", "--split-index"]);
    works(&world, &ALL).await;
}

#[tokio::test]
async fn a_sparse_checkout_with_a_sparse_index() {
    let world = world();
    world.git_in_clone(&["sparse-checkout", "set", "--cone", "--sparse-index", "src"]);
    assert!(!exists(&world.clone().join("data")));
    let expected: Vec<_> = ALL.into_iter().filter(|path| *path != "data/x.csv").collect();
    works(&world, &expected).await;
}

#[tokio::test]
async fn a_partial_clone() {
    for filter in ["blob:none", "tree:0"] {
        let world = world();
        world.bare.git(&["config", "uploadpack.allowFilter", "true"]);
        world.bare.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
        fs::remove_dir_all(world.clone()).unwrap();
        let url = format!("file://{}", world.bare.path().display());
        let filter = format!("--filter={filter}");
        git(&["clone", "--quiet", &filter, "--branch=main", &url, world.clone().to_str().unwrap()]);
        let config = fs::read_to_string(world.clone().join(".git/config")).unwrap();
        assert!(config.to_lowercase().contains("partialclone"), "{config}");
        world.write("model/forest.bin", b"forest 1");
        world.write("model/metrics.json", b"{}");
        works(&world, &ALL).await;
    }
}

#[tokio::test]
async fn a_linked_work_tree_and_a_submodule() {
    let world = world();
    let tree = world.directory.path().join("tree");
    world.git_in_clone(&["worktree", "add", "--quiet", "--detach", tree.to_str().unwrap()]);
    let outer = world.directory.path().join("outer");
    git(&["init", "--quiet", outer.to_str().unwrap()]);
    let url = world.bare.path().to_str().unwrap();
    git(&["-C", outer.to_str().unwrap(), "submodule", "--quiet", "add", url, "inner"]);
    for (number, root) in [tree, outer.join("inner")].into_iter().enumerate() {
        let content = format!("model {number}");
        fs::write(root.join("model.bin"), &content).unwrap();
        let checkout = Checkout::open(&root).unwrap();
        let entries = checkout.workspace(&[]).unwrap();
        assert!(entries.iter().any(|entry| entry.path.to_string() == "model.bin"));
        let branch = format!("models/{number}");
        let destination = Destination::PullRequest { branch: branch.clone(), target: None };
        pushed(checkout.publish(&world.by_token(), &publication_of("a", destination, &["model.bin"])).await);
        assert_eq!(world.bare.file(&branch, "model.bin").unwrap(), content.as_bytes());
        assert!(!exists(&root.join(".git/trainspot")));
    }
}

#[test]
fn a_form_that_cannot_be_read_is_named_with_the_way_out() {
    let refused = |world: &World| {
        let error = Checkout::open(&world.clone()).unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Configuration);
        error.render()
    };
    let settings = [
        ("extensions.refStorage", "reftable", "git refs migrate --ref-format=files"),
        ("extensions.objectFormat", "sha256", "SHA-1"),
        ("extensions.compatObjectFormat", "sha256", "extensions.compatobjectformat"),
        ("extensions.somethingNew", "true", "extensions.somethingnew"),
        ("core.repositoryFormatVersion", "7", "version 7"),
    ];
    for (name, value, way_out) in settings {
        let world = world();
        let config = world.clone().join(".git/config");
        let set = |name, value| git(&["config", "--file", config.to_str().unwrap(), name, value]);
        set("core.repositoryFormatVersion", "1");
        set(name, value);
        let text = refused(&world);
        assert!(text.contains(way_out) && text.contains("Next: "), "{name}: {text}");
    }
    let world = world();
    fs::remove_dir_all(world.clone().join(".git")).unwrap();
    world.write(".git", b"gitdir: /somewhere/else/.git/worktrees/x\n");
    let text = refused(&world);
    assert!(
        text.contains("names /somewhere/else/.git/worktrees/x as its git directory, which is not there"),
        "{text}"
    );
}
