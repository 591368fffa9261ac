//! Whatever ran earlier in the step has changed where the clone's `origin` leads: no token goes there.

use crate::support::{Access, Scene};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A server of the attacker's: its address, and how often somebody has called.
pub(crate) fn elsewhere() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, calls)
}

/// That a run which would train and one which would only publish are refused, by the address.
fn refused(scene: &mut Scene, place: &str) {
    std::fs::write(scene.clone().join("m.bin"), "a model").unwrap();
    scene.set("TRAIN_COMMAND", "echo it trains; echo a model > m.bin").set("OUTPUTS", "m.bin");
    for action in ["train", "publish"] {
        let run = scene.set("ACTION", action).run().expect(2);
        for words in [
            place,
            "BITBUCKET_ACCESS_TOKEN must not go",
            "git remote set-url origin https://bitbucket.org/acme/forest.git",
        ] {
            assert!(run.out.contains(words), "{action}: {words} in {}", run.out);
        }
        assert!(!run.out.contains("it trains\n"), "{}", run.out);
    }
    assert_eq!(scene.remote.head(&scene.branch()), None);
}

#[test]
fn an_origin_that_was_set_to_another_host_gets_no_token() {
    let (evil, calls) = elsewhere();
    let mut scene = Scene::new(Access::Token, &[]);
    scene.git(&["remote", "set-url", "origin", &format!("{evil}/acme/forest.git")]);
    refused(&mut scene, &evil);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn an_origin_that_begins_like_the_right_one_gets_no_token() {
    let (evil, calls) = elsewhere();
    let mut scene = Scene::new(Access::Token, &[]);
    let right = scene.bitbucket.git_url().replace("http://", "").replace("/acme/forest.git", "");
    let trick = format!("http://{right}@{}/acme/forest.git", evil.replace("http://", ""));
    scene.git(&["remote", "set-url", "origin", &trick]);
    refused(&mut scene, &evil);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_configuration_of_git_that_replaces_the_address_gets_no_token() {
    let (evil, calls) = elsewhere();
    let mut scene = Scene::new(Access::Token, &[]);
    let right = scene.bitbucket.git_url().replace("acme/forest.git", "");
    scene.git(&["config", &format!("url.{evil}/.insteadOf"), &right]);
    refused(&mut scene, &evil);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

/// As the remote of the step is at Bitbucket, a server of this machine's is another one.
#[test]
fn a_server_on_this_machine_is_not_bitbucket_because_it_is_near() {
    let mut scene = Scene::new(Access::Token, &[]);
    let origin = scene.bitbucket.http_origin();
    scene.set("BITBUCKET_GIT_HTTP_ORIGIN", &origin);
    let place = scene.bitbucket.git_url().replace("/acme/forest.git", "");
    refused(&mut scene, &place);
    // The API is Bitbucket's, whatever `origin` is.
    assert!(scene.requests().iter().all(|request| request.path.starts_with("/2.0/")));
}
