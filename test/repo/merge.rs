//! Results of several steps on one branch: nobody's is taken back, and a step that is run again replaces its
//! own.

use super::*;
use trainspot_base::error::Kind;

const BASE: &[(&str, &[u8])] = &[
    ("index.json", b"{\"a\": 0, \"b\": 0}\n"),
    (".gitignore", b"*.log\n"),
    ("dvc.lock", b"schema: '2.0'\nstages:\n  a:\n    cmd: a\n  b:\n    cmd: b\n"),
];

fn lock(a: &str, b: &str, more: &str) -> Vec<u8> {
    format!("schema: '2.0'\nstages:\n  a:\n    cmd: {a}\n  b:\n    cmd: {b}\n{more}").into_bytes()
}

/// A second clone of the same commit, in the place of the first one.
fn fresh_clone(world: &World) {
    world.git_in_clone(&["reset", "--quiet", "--hard"]);
    world.git_in_clone(&["clean", "--quiet", "-xdf"]);
}

async fn publish(
    world: &World,
    step: &str,
    destination: Destination,
    path: &str,
    text: &[u8],
) -> Result<Published> {
    world.write(path, text);
    world.publish_to(&world.by_token(), publication_of(step, destination, &[path])).await
}

/// The same, by a run that begins now.
async fn publish_later(
    world: &World,
    step: &str,
    destination: Destination,
    path: &str,
    text: &[u8],
) -> Result<Published> {
    world.write(path, text);
    let seen = world.by_token().check().await.unwrap();
    let publication = Publication { seen, ..publication_of(step, destination, &[path]) };
    world.publish_to(&world.by_token(), publication).await
}

fn text(world: &World, branch: &str, path: &str) -> String {
    String::from_utf8(world.bare.file(branch, path).unwrap()).unwrap()
}

#[tokio::test]
async fn the_same_file_of_two_steps_is_a_conflict_and_both_results_are_kept() {
    for (destination, branch, aside) in
        [(pull_request(), BRANCH, format!("{BRANCH}-2")), (push(), "main", FALLBACK.to_owned())]
    {
        for later in [false, true] {
            let world = World::with_files(BASE);
            let first = b"{\"a\": 1, \"b\": 0}\n";
            pushed(publish(&world, "a", destination.clone(), "index.json", first).await);
            fresh_clone(&world);
            let second = b"{\"a\": 0, \"b\": 1}\n";
            // Whether the second step began before the first one pushed, or after it, makes no difference.
            let published = if later {
                publish_later(&world, "b", destination.clone(), "index.json", second).await
            } else {
                publish(&world, "b", destination.clone(), "index.json", second).await
            };
            let error = failed(published);
            let said = error.render();
            assert_eq!(error.exit_kind(), Kind::Publication, "{said}");
            assert!(said.contains(&format!("cannot push to {branch}: it changed the same files")), "{said}");
            assert!(
                said.contains("index.json") && said.contains(&format!("branch {aside} of the remote")),
                "{said}"
            );
            assert_eq!(text(&world, branch, "index.json").as_bytes(), first);
            assert_eq!(text(&world, &aside, "index.json").as_bytes(), second);
        }
    }
}

#[tokio::test]
async fn lines_and_stages_of_two_steps_come_together() {
    for destination in [pull_request(), push()] {
        let branch = if matches!(destination, Destination::Push { .. }) { "main" } else { BRANCH };
        let world = World::with_files(BASE);
        pushed(publish(&world, "a", destination.clone(), ".gitignore", b"*.log\n/a.bin\n").await);
        pushed(publish(&world, "a", destination.clone(), "dvc.lock", &lock("a1", "b", "")).await);
        fresh_clone(&world);
        pushed(publish(&world, "b", destination.clone(), ".gitignore", b"*.log\n/b.bin\n").await);
        pushed(publish(&world, "b", destination, "dvc.lock", &lock("a", "b1", "  c:\n    cmd: c\n")).await);
        assert_eq!(text(&world, branch, ".gitignore"), "*.log\n/a.bin\n/b.bin\n");
        assert_eq!(text(&world, branch, "dvc.lock").as_bytes(), lock("a1", "b1", "  c:\n    cmd: c\n"));
    }
}

#[tokio::test]
async fn a_new_ignore_file_of_two_steps_has_the_lines_of_both() {
    let world = World::with_files(BASE);
    pushed(publish(&world, "a", pull_request(), "out/.gitignore", b"/a.bin\n").await);
    fresh_clone(&world);
    pushed(publish(&world, "b", pull_request(), "out/.gitignore", b"/b.bin\n").await);
    assert_eq!(text(&world, BRANCH, "out/.gitignore"), "/a.bin\n/b.bin\n");
}

#[tokio::test]
async fn the_same_stage_of_two_steps_is_a_conflict() {
    let world = World::with_files(BASE);
    pushed(publish(&world, "a", pull_request(), "dvc.lock", &lock("a1", "b", "")).await);
    fresh_clone(&world);
    let error = failed(publish(&world, "b", pull_request(), "dvc.lock", &lock("a2", "b", "")).await);
    assert!(error.render().contains("dvc.lock"), "{}", error.render());
    assert_eq!(text(&world, BRANCH, "dvc.lock").as_bytes(), lock("a1", "b", ""));
    assert_eq!(text(&world, &format!("{BRANCH}-2"), "dvc.lock").as_bytes(), lock("a2", "b", ""));
}

#[tokio::test]
async fn a_step_that_is_run_again_replaces_its_own_result_between_those_of_others() {
    for destination in [pull_request(), push()] {
        let branch = if matches!(destination, Destination::Push { .. }) { "main" } else { BRANCH };
        let world = World::with_files(BASE);
        let go = async |step: &str, path: &str, text: &[u8]| {
            pushed(publish_later(&world, step, destination.clone(), path, text).await)
        };
        go("a", "model.bin", b"first").await;
        go("a", "dvc.lock", &lock("a1", "b", "")).await;
        fresh_clone(&world);
        go("b", "other.bin", b"other").await;
        go("b", "dvc.lock", &lock("a", "b1", "")).await;
        fresh_clone(&world);
        go("a", "model.bin", b"second").await;
        go("a", "dvc.lock", &lock("a2", "b", "")).await;
        assert_eq!(text(&world, branch, "model.bin"), "second");
        assert_eq!(text(&world, branch, "other.bin"), "other");
        assert_eq!(text(&world, branch, "dvc.lock").as_bytes(), lock("a2", "b1", ""));
        // And a third time, with what the pipeline's commit has.
        go("a", "model.bin", b"third").await;
        let published = publish_later(&world, "a", destination.clone(), "model.bin", b"third").await.unwrap();
        assert!(matches!(published, Published::Unchanged { .. }), "{published:?}");
    }
}

#[tokio::test]
async fn a_result_that_is_again_that_of_the_pipelines_commit_replaces_the_last_one() {
    let world = World::with_files(BASE);
    let original = BASE[0].1;
    pushed(publish_later(&world, "a", pull_request(), "index.json", b"{}\n").await);
    pushed(publish_later(&world, "a", pull_request(), "index.json", original).await);
    assert_eq!(text(&world, BRANCH, "index.json").as_bytes(), original);
}

#[tokio::test]
async fn a_file_that_only_the_branch_changed_stays_as_it_is_there() {
    let world = World::with_files(BASE);
    let theirs = world.bare.commit("main", "by hand", &[("index.json", b"{\"by\": \"hand\"}\n")]);
    world.write("model.bin", b"model");
    let both = publication_of("a", push(), &["index.json", "model.bin"]);
    let (ours, ..) = pushed(world.publish_to(&world.by_token(), both).await);
    assert_eq!(world.bare.git(&["rev-parse", &format!("{ours}^")]), theirs);
    assert_eq!(world.changes(&ours), ["A\tmodel.bin"]);
}

#[tokio::test]
async fn what_others_did_to_a_steps_own_result_is_not_undone() {
    let world = World::with_files(BASE);
    pushed(publish_later(&world, "a", pull_request(), "index.json", b"{\"a\": 1}\n").await);
    world.bare.commit(BRANCH, "by hand", &[("index.json", b"{\"a\": 1, \"reviewed\": true}\n")]);
    failed(publish_later(&world, "a", pull_request(), "index.json", b"{\"a\": 2}\n").await);
    assert_eq!(text(&world, BRANCH, "index.json"), "{\"a\": 1, \"reviewed\": true}\n");
    // The conflict itself is run again: its own branch is updated, not a third one made.
    failed(publish_later(&world, "a", pull_request(), "index.json", b"{\"a\": 3}\n").await);
    assert_eq!(text(&world, &format!("{BRANCH}-2"), "index.json"), "{\"a\": 3}\n");
    assert_eq!(world.bare.head(&format!("{BRANCH}-3")), None);
    failed(publish_later(&world, "b", pull_request(), "index.json", b"{\"b\": 1}\n").await);
    assert_eq!(text(&world, &format!("{BRANCH}-3"), "index.json"), "{\"b\": 1}\n");
}

#[tokio::test]
async fn a_later_pipeline_replaces_the_result_of_an_earlier_one_but_not_of_one_beside_it() {
    let world = World::with_files(BASE);
    let of_pipeline = async |number: u32, seen: Branches, text: &[u8]| {
        world.write("index.json", text);
        let mut publication = publication_of("a", pull_request(), &["index.json"]);
        publication.identity.run = format!("run {number}");
        publication.identity.pipeline =
            Some(format!("https://bitbucket.org/acme/forest/pipelines/results/{number}"));
        publication.message = format!("Retrain\n\n{}\n", publication.identity.trailers().join("\n"));
        publication.seen = seen;
        world.publish_to(&world.by_token(), publication).await
    };
    let before = world.by_token().check().await.unwrap();
    pushed(of_pipeline(7, before.clone(), b"seven\n").await);
    let after = world.by_token().check().await.unwrap();
    failed(of_pipeline(8, before, b"eight\n").await);
    assert_eq!(text(&world, BRANCH, "index.json"), "seven\n");
    pushed(of_pipeline(9, after, b"nine\n").await);
    assert_eq!(text(&world, BRANCH, "index.json"), "nine\n");
}

#[tokio::test]
async fn something_else_in_an_outputs_place_is_a_conflict() {
    for theirs in ["model/forest.bin/x", "model"] {
        let world = World::new();
        world.bare.commit(BRANCH, "in the way", &[(theirs, b"x")]);
        let error = failed(world.publish(pull_request()).await).render();
        assert!(error.contains(&format!("branch {BRANCH}-2 of the remote")), "{error}");
        assert_eq!(text(&world, &format!("{BRANCH}-2"), "model/forest.bin"), "forest 1");
    }
}

#[tokio::test]
async fn a_name_that_was_taken_meanwhile_is_a_conflict() {
    let world = World::new();
    world.bare.commit("trainspot", "in the way", &[("x", b"x")]);
    let error = failed(world.publish(pull_request()).await).render();
    let aside = format!("{}-2", BRANCH.replace('/', "-"));
    assert!(error.contains("there is a branch trainspot") && error.contains(&aside), "{error}");
    assert_eq!(text(&world, &aside, "model/forest.bin"), "forest 1");
}

#[tokio::test]
async fn a_branch_that_others_removed_the_file_from_is_a_conflict() {
    let world = World::with_files(BASE);
    let clone = world.directory.path().join("other");
    world.bare.git(&["worktree", "add", "--quiet", "-b", BRANCH, clone.to_str().unwrap(), "main"]);
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-C", clone.to_str().unwrap()];
        assert!(Command::new("git").args(who).args(arguments).status().unwrap().success());
    };
    git(&["rm", "--quiet", "index.json"]);
    git(&["commit", "--quiet", "-m", "remove"]);
    failed(publish(&world, "a", pull_request(), "index.json", b"{\"a\": 1}\n").await);
    assert_eq!(world.bare.file(BRANCH, "index.json"), None);
    assert_eq!(text(&world, &format!("{BRANCH}-2"), "index.json"), "{\"a\": 1}\n");
}
