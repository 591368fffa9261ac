//! What must not be committed is not, and the message says what to do instead.

use super::*;
use trainspot_base::error::Kind;
use trainspot_git::check_branch;

async fn refusal(world: &World, output: &str) -> String {
    let mut publication = publication(pull_request());
    publication.outputs.push(output.into());
    let error = failed(world.publish_to(&world.by_token(), publication).await);
    assert_eq!(world.bare.head(BRANCH), None);
    assert_eq!(error.exit_kind(), Kind::Publication);
    error.render()
}

#[tokio::test]
async fn paths_that_are_not_files_of_the_clone() {
    let world = World::new();
    let before = world.fake.requests().len();
    world.write(".bitbucket/pipelines/generated/x", b"x");
    std::os::unix::fs::symlink("model", world.clone().join("link")).unwrap();
    let cases = [
        ("/etc/passwd", "relative to the clone"),
        ("../x", "relative to the clone"),
        ("", "relative to the clone"),
        (".git/config", "reserved"),
        ("sub/.git/config", "reserved"),
        (".bitbucket/pipelines/generated/x", "reserved"),
        ("model", "it is not a file"),
        ("model/none.bin", "No such file"),
        ("link/forest.bin", "link is a symbolic link"),
    ];
    for (path, why) in cases {
        let text = refusal(&world, path).await;
        assert!(text.contains(why) && text.contains(&format!("cannot commit {path}")), "{path}: {text}");
    }
    assert_eq!(world.fake.requests().len(), before);
}

#[tokio::test]
async fn a_file_for_git_lfs() {
    let world = World::new();
    world.write(".gitattributes", b"*.h5 filter=lfs diff=lfs merge=lfs -text\n");
    world.write("model/net.h5", b"weights");
    let text = refusal(&world, "model/net.h5").await;
    assert!(text.contains("Git LFS") && text.contains("DVC"), "{text}");
}

#[tokio::test]
async fn files_over_the_limit_all_of_them_at_once() {
    let world = World::new();
    for (name, size) in [("model/a.bin", 100_000_001), ("model/b.bin", 200_000_000), ("model/c.bin", 1000)] {
        world.write(name, b"");
        fs::File::options().write(true).open(world.clone().join(name)).unwrap().set_len(size).unwrap();
    }
    let mut large = publication(pull_request());
    large.outputs.extend(["model/a.bin", "model/b.bin", "model/c.bin"].map(PathBuf::from));
    let text = failed(world.publish_to(&world.by_token(), large).await).render();
    assert!(text.starts_with("model/a.bin (101 MB), model/b.bin (200 MB): Bitbucket refuses"), "{text}");
    assert!(text.contains("DVC_OUTPUTS"), "{text}");
}

#[tokio::test]
async fn an_output_in_the_place_of_a_directory_or_below_a_file_of_the_pipelines_commit() {
    let cases = [("model/forest.bin/x", "model/forest.bin is a directory"), ("model", "model is a file")];
    for (path, why) in cases {
        let world = World::with_files(&[(path, b"x")]);
        // The training put its file in the place of what was there.
        world.git_in_clone(&["rm", "--quiet", "-r", "model"]);
        world.write("model/forest.bin", b"forest 1");
        world.write("model/metrics.json", b"{}");
        let text = failed(world.publish(pull_request()).await).render();
        assert!(
            text.contains(&format!("cannot commit model/forest.bin: {why} in the pipeline's commit")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn names_that_are_no_branches() {
    let world = World::new();
    for name in ["", "a b", "a..b", "refs/heads/a", "a.lock", "-a", "HEAD"] {
        let destination = Destination::PullRequest { branch: name.into(), target: None };
        let error = failed(world.publish(destination).await);
        let text = error.render();
        assert_eq!(error.exit_kind(), Kind::Configuration);
        assert!(text.contains(&format!("{name:?} is not a branch's name")), "{text}");
    }
    for name in ["main", "feature/a", "trainspot/main-1234567"] {
        check_branch(name).unwrap();
    }
    let destination = Destination::PullRequest { branch: "main".into(), target: Some("main".into()) };
    assert!(failed(world.publish(destination).await).render().contains("merged into itself"));
}

#[tokio::test]
async fn two_publications_from_one_clone_at_once() {
    let world = World::new();
    fs::create_dir_all(world.clone().join(".git/trainspot")).unwrap();
    let lock = fs::File::create(world.clone().join(".git/trainspot/lock")).unwrap();
    lock.lock().unwrap();
    let publishing = world.checkout().publish(&world.by_token(), &publication(pull_request())).await;
    assert!(failed(publishing).render().contains("another run is publishing from this clone"));
}
