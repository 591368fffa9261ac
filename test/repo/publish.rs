//! What arrives at the remote when all goes well, and when it moves meanwhile.

use super::*;
use fake_bitbucket::Fault;
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, time::Duration};

#[tokio::test]
async fn a_new_branch_has_one_commit_with_exactly_the_outputs() {
    let world = World::new();
    world.write("scratch.txt", b"left by an earlier step");
    world.write("README.md", b"edited by an earlier step");
    let head = world.bare.head("main").unwrap();
    assert_eq!(world.checkout().commit(), head);
    let (commit, branch, existed) = pushed(world.publish(pull_request()).await);
    assert_eq!((branch.as_str(), existed), (BRANCH, false));
    assert_eq!(world.bare.head(BRANCH).as_deref(), Some(&*commit));
    assert_eq!(world.bare.git(&["rev-parse", &format!("{commit}^")]), head);
    assert_eq!(world.changes(&commit), ["A\tmodel/forest.bin", "A\tmodel/metrics.json"]);
    assert_eq!(world.bare.file(BRANCH, "model/forest.bin").as_deref(), Some(&b"forest 1"[..]));
    assert_eq!(world.bare.head("main").unwrap(), head);
    assert_eq!(world.count(BRANCH), 61);
    let text = world.bare.git(&["log", "-1", "--format=%an|%ae|%cn|%B", BRANCH]);
    let trailers = publication(pull_request()).identity.trailers().join("\n");
    assert_eq!(text, format!("trainspot|ci@example.com|trainspot|Retrain [skip ci]\n\n{trailers}"));
}

#[tokio::test]
async fn a_rerun_adds_a_commit_or_finds_nothing_to_do() {
    let world = World::new();
    let (first, ..) = pushed(world.publish(pull_request()).await);
    match world.publish(pull_request()).await.unwrap() {
        Published::Unchanged { target, tip, .. } => {
            assert_eq!((&*target, tip.as_ref()), ("main", Some(&first)));
        }
        Published::Pushed { .. } => panic!("pushed again"),
    }
    assert_eq!(world.bare.head(BRANCH).as_ref(), Some(&first));

    world.write("model/forest.bin", b"forest 2");
    let (second, _, existed) = pushed(world.publish_again(pull_request()).await);
    assert!(existed);
    assert_eq!(world.bare.git(&["rev-parse", &format!("{second}^")]), first);
    assert_eq!(world.changes(&second), ["M\tmodel/forest.bin"]);
}

#[tokio::test]
async fn outputs_that_were_merged_have_nothing_left_to_merge() {
    let world = World::new();
    let (ours, ..) = pushed(world.publish(pull_request()).await);
    world.bare.git(&["update-ref", "refs/heads/main", &ours]);
    world.bare.commit("main", "meanwhile", &[("notes.md", b"n")]);
    let published = world.publish(pull_request()).await.unwrap();
    assert!(matches!(published, Published::Unchanged { tip: None, .. }), "{published:?}");
}

#[tokio::test]
async fn somebody_elses_commit_on_the_branch_is_kept() {
    let world = World::new();
    pushed(world.publish(pull_request()).await);
    let theirs = world.bare.commit(BRANCH, "by hand", &[("notes.md", b"n"), ("model/deep/er.txt", b"d")]);
    world.write("model/forest.bin", b"forest 2");
    let (ours, ..) = pushed(world.publish_again(pull_request()).await);
    assert_eq!(world.bare.git(&["rev-parse", &format!("{ours}^")]), theirs);
    assert_eq!(world.changes(&ours), ["M\tmodel/forest.bin"]);
}

#[tokio::test]
async fn outputs_equal_to_the_clones_are_no_commit() {
    let world = World::new();
    let mut nothing_new = publication(pull_request());
    nothing_new.outputs = vec!["README.md".into()];
    let published = world.publish_to(&world.by_token(), nothing_new).await.unwrap();
    assert!(matches!(published, Published::Unchanged { tip: None, .. }));
    assert_eq!(world.bare.head(BRANCH), None);
    assert_eq!(world.fake.count("POST", "git-receive-pack"), 0);
}

#[tokio::test]
async fn modes_links_and_line_ends_are_kept_as_git_keeps_them() {
    let world = World::new();
    world.write(".gitattributes", b"*.csv text\n");
    world.write(".gitignore", b"model/\n");
    world.write("model/table.csv", b"a,b\r\n1,2\r\n");
    world.write("model/raw.txt", b"a\r\n");
    world.write("model/run.sh", b"#!/bin/sh\n");
    let script = world.clone().join("model/run.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink("forest.bin", world.clone().join("model/latest")).unwrap();
    let mut all = publication(pull_request());
    all.outputs = ["forest.bin", "latest", "raw.txt", "run.sh", "table.csv"]
        .map(|name| Path::new("model").join(name))
        .to_vec();
    pushed(world.publish_to(&world.by_token(), all).await);
    let modes = world.bare.git(&["ls-tree", "--format=%(objectmode) %(path)", &format!("{BRANCH}:model")]);
    let expected = "100644 forest.bin\n120000 latest\n100644 raw.txt\n100755 run.sh\n100644 table.csv";
    assert_eq!(modes, expected);
    let content = |name: &str| world.bare.file(BRANCH, &format!("model/{name}")).unwrap();
    assert_eq!(content("latest"), b"forest.bin");
    assert_eq!(content("table.csv"), b"a,b\n1,2\n");
    assert_eq!(content("raw.txt"), b"a\r\n");
}

#[tokio::test]
async fn a_direct_push_lands_on_top_of_what_others_pushed() {
    let world = World::new();
    let theirs = world.bare.commit("main", "meanwhile", &[("history.txt", b"new\n"), ("other/a.txt", b"a")]);
    let (ours, branch, existed) = pushed(world.publish(push()).await);
    assert_eq!((branch.as_str(), existed), ("main", true));
    assert_eq!(world.bare.git(&["rev-parse", &format!("{ours}^")]), theirs);
    assert_eq!(world.changes(&ours), ["A\tmodel/forest.bin", "A\tmodel/metrics.json"]);
    assert_eq!(world.count("main"), 62);
    assert_eq!(world.bare.head(FALLBACK), None);
}

#[tokio::test]
async fn the_same_change_by_others_is_no_conflict() {
    let world = World::new();
    world.bare.commit("main", "the same", &[("model/forest.bin", b"forest 1")]);
    let (ours, ..) = pushed(world.publish(push()).await);
    assert_eq!(world.changes(&ours), ["A\tmodel/metrics.json"]);
}

#[tokio::test]
async fn a_conflict_leaves_the_work_on_its_own_branch() {
    let world = World::new();
    let theirs = world.bare.commit("main", "another model", &[("model/forest.bin", b"forest X")]);
    let error = failed(world.publish(push()).await);
    let text = error.render();
    assert_eq!(error.exit_kind(), trainspot_base::error::Kind::Publication);
    assert!(text.contains("since the pipeline's commit: model/forest.bin"), "{text}");
    assert!(!text.contains("metrics.json"), "{text}");
    assert!(text.contains(&format!("branch {FALLBACK} of the remote")), "{text}");
    assert_eq!(world.bare.head("main").unwrap(), theirs);
    assert_eq!(world.bare.file(FALLBACK, "model/forest.bin").as_deref(), Some(&b"forest 1"[..]));
    assert_eq!(world.count(FALLBACK), 61);
}

#[tokio::test]
async fn a_branch_that_moves_during_the_push_is_looked_at_again() {
    let world = World::new();
    // The push itself is held up, so that the commit below comes between its look and its update.
    world.fake.next(Fault::on("POST", "git-receive-pack").delay(Duration::from_secs(2)));
    let moving = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.bare.commit("main", "faster", &[("other.txt", b"o")])
    };
    let (published, theirs) = tokio::join!(world.publish(push()), moving);
    let (ours, ..) = pushed(published);
    assert_eq!(world.bare.git(&["rev-parse", &format!("{ours}^")]), theirs);
    assert_eq!(world.fake.count("POST", "git-receive-pack"), 2);
}

#[tokio::test]
async fn the_baseline_is_what_the_target_has_now() {
    let world = World::new();
    world.bare.commit(
        "main",
        "metrics",
        &[("model/metrics.json", b"old"), ("huge.bin", &bytes_of(3_000_000))],
    );
    let mut asking = publication(pull_request());
    asking.baseline = vec!["model/metrics.json".into(), "none.json".into(), "huge.bin".into()];
    let expected = BTreeMap::from([(PathBuf::from("model/metrics.json"), b"old".to_vec())]);
    match world.publish_to(&world.by_token(), asking.clone()).await.unwrap() {
        Published::Pushed { baseline, target, .. } => {
            assert_eq!((baseline, target.as_str()), (expected.clone(), "main"));
        }
        Published::Unchanged { .. } => panic!("unchanged"),
    }
    match world.publish_to(&world.by_token(), asking.clone()).await.unwrap() {
        Published::Unchanged { baseline, .. } => assert_eq!(baseline, expected),
        Published::Pushed { .. } => panic!("pushed again"),
    }
    world.bare.commit("main", "model elsewhere", &[("model/metrics.json", br#"{"accuracy": 0.9}"#)]);
    asking.destination = push();
    match world.publish_to(&world.by_token(), asking).await.unwrap() {
        Published::Pushed { baseline, .. } => {
            assert_eq!(baseline.values().next().unwrap(), br#"{"accuracy": 0.9}"#);
        }
        Published::Unchanged { .. } => panic!("unchanged"),
    }
}

#[tokio::test]
async fn a_detached_clone_of_another_owner_will_do() {
    let world = World::new();
    world.git_in_clone(&["checkout", "--quiet", "--detach"]);
    // Where the tests may not give files away, the owner stays; the rest still counts.
    let chown = Command::new("chown").args(["-R", "12345:12345"]).arg(world.clone()).status().unwrap();
    if chown.success() {
        let (commit, ..) =
            pushed(world.checkout().publish(&world.by_token(), &publication(pull_request())).await);
        assert_eq!(world.bare.head(BRANCH), Some(commit));
    }
}

#[tokio::test]
async fn a_directory_on_this_machine_can_be_the_remote() {
    let world = World::new();
    let path = world.bare.path().to_str().unwrap().to_owned();
    for url in [path.clone(), format!("file://{path}")] {
        let remote = GitRemote { url, access: Access::Anonymous };
        world.write("model/forest.bin", remote.url.as_bytes());
        let again = Publication { seen: remote.check().await.unwrap(), ..publication(pull_request()) };
        let (commit, ..) = pushed(world.publish_to(&remote, again).await);
        assert_eq!(world.bare.head(BRANCH).as_ref(), Some(&commit));
        assert_eq!(world.bare.file(&commit, "model/forest.bin").unwrap(), remote.url.as_bytes());
        world.bare.commit("main", "meanwhile", &[("other.txt", remote.url.as_bytes())]);
    }
    let remote = GitRemote { url: path, access: Access::Anonymous };
    let (commit, ..) = pushed(world.publish_to(&remote, publication(push())).await);
    assert_eq!(world.bare.head("main"), Some(commit));
}

#[tokio::test]
async fn a_branch_that_another_push_has_locked_is_tried_again() {
    let world = World::new();
    let lock = world.bare.path().join("refs/heads/main.lock");
    fs::write(&lock, b"").unwrap();
    let remote = GitRemote { url: world.bare.path().display().to_string(), access: Access::Anonymous };
    let publishing = world.publish_to(&remote, publication(push()));
    let unlocking = async {
        // Once the publication is at work, and the lock is in its way.
        while !exists(&world.clone().join(".git/trainspot/repository/blobs")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        fs::remove_file(&lock).unwrap();
    };
    let (published, ()) = tokio::join!(publishing, unlocking);
    let (commit, ..) = pushed(published);
    assert_eq!(world.bare.head("main"), Some(commit));
}

#[tokio::test]
async fn what_a_killed_run_left_is_removed() {
    let world = World::new();
    world.write(".git/trainspot/repository/objects/half", b"x");
    world.write(".git/trainspot/lock", b"");
    pushed(world.publish(pull_request()).await);
    assert!(!exists(&world.clone().join(".git/trainspot")));
}
