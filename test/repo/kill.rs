//! A publication killed at any instant: the remote has all of it or nothing, and the clone notices nothing.

use super::*;
use std::time::Duration;

const CLONE: &str = "TEST_VICTIM_CLONE";
const URL: &str = "TEST_VICTIM_URL";

#[tokio::test]
#[ignore = "the process that the test below kills"]
async fn victim() {
    let clone = std::env::var(CLONE).unwrap();
    let access = Access::Token { username: "x-token-auth", secret: ACCESS_TOKEN.into() };
    let remote = GitRemote { url: std::env::var(URL).unwrap(), access };
    Checkout::open(clone.as_ref()).unwrap().publish(&remote, &publication(pull_request())).await.unwrap();
}

#[tokio::test]
async fn nothing_half_done_is_left() {
    let world = World::new();
    let model = bytes_of(20_000_000);
    world.write("model/forest.bin", &model);
    let before = world.state();
    let mut at_work = 0;
    for milliseconds in (20..800).step_by(60) {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "repo::kill::victim", "--ignored"])
            .env(CLONE, world.clone())
            .env(URL, world.fake.git_url())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        at_work += u32::from(exists(&world.clone().join(".git/trainspot")));
        assert_eq!(world.state(), before, "killed after {milliseconds} ms");
        if let Some(commit) = world.bare.head(BRANCH) {
            assert_eq!(world.changes(&commit), ["A\tmodel/forest.bin", "A\tmodel/metrics.json"]);
        }
    }
    assert!(at_work > 0, "every victim was killed too early or too late to tell");
    // The last victim's push may still be on its way through the server.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.publish(pull_request()).await.unwrap();
    assert_eq!(world.count(BRANCH), 61);
    assert!(world.bare.file(BRANCH, "model/forest.bin").unwrap() == model, "other bytes arrived");
}
