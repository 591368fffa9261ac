//! Other programs at the same fake: Google's own client, as it drives Drive, and DVC.

use super::auth::{self, key};
use super::contract::python;
use super::sample::{Place, Sample, Scene, md5, told};
use crate::support::say;
use std::path::Path;
use std::process::{Command, Output};
use trainspot_dvc::remote::RemoteStore as _;
use trainspot_dvc::{Object, ObjectContent, Oid};

macro_rules! or_skip {
    ($made:expr) => {
        match $made {
            Ok(made) => made,
            Err(reason) => return skip::skip(&reason),
        }
    };
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn script(name: &str) -> String {
    format!("{}/test/dvc/gdrive/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn credential(scene: &Scene) -> String {
    let uri = scene.fake.state().token_uri();
    auth::service_json(&uri, key()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_client_finds_a_drive() {
    let python = or_skip!(python());
    let scene = Scene::new(Place::SharedDrive).await;
    let mut command = Command::new(python.join("python"));
    command.args([&script("client.py"), &scene.fake.address(), &scene.root]);
    command.env("GDRIVE_CREDENTIALS_DATA", credential(&scene));
    let output = run(command).await;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "fine\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(scene.violations(), [""; 0]);
}

/// A command of DVC in a repository, with the fake in place of Google.
async fn dvc(scene: &Scene, repository: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(python().unwrap().join("python"));
    command.arg(script("run_dvc.py")).args(arguments).current_dir(repository);
    command.env("FAKE_DRIVE", scene.fake.address()).env("GDRIVE_CREDENTIALS_DATA", credential(scene));
    command.env("DVC_NO_ANALYTICS", "true").env("DVC_SITE_CACHE_DIR", repository.join("../site"));
    let output = run(command).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A repository without git, whose remote is the scene's.
async fn repository(scene: &Scene, folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    dvc(scene, folder, &["init", "--no-scm", "-q"]).await;
    dvc(scene, folder, &["remote", "add", "-d", "store", &scene.settings.url]).await;
    dvc(scene, folder, &["remote", "modify", "store", "gdrive_use_service_account", "true"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dvc_pulls_what_was_sent_and_sends_what_is_found() {
    or_skip!(python());
    let (scene, place) = (Scene::new(Place::SharedDrive).await, tempfile::tempdir().unwrap());
    // The fake's pages are small, and DVC asks for each folder alone.
    scene.fake.state().page = 1000;
    let files: Vec<(String, Vec<u8>)> = [0, 20, 70_000, 9 << 20]
        .into_iter()
        .chain([30; 40])
        .enumerate()
        .map(|(number, length)| (format!("{number}.bin"), (0..length).map(|_| fastrand::u8(..)).collect()))
        .collect();
    let write = |folder: &Path| {
        std::fs::create_dir_all(folder.join("data")).unwrap();
        for (name, bytes) in &files {
            std::fs::write(folder.join("data").join(name), bytes).unwrap();
        }
    };

    // Ours to theirs: DVC makes the pointer, we send the objects, and a second clone pulls them.
    let ours = place.path().join("ours");
    repository(&scene, &ours).await;
    write(&ours);
    dvc(&scene, &ours, &["add", "-q", "data"]).await;
    let objects = cached(&ours);
    assert_eq!(objects.len(), files.len() + 1);
    scene.push(&objects).await.unwrap_or_else(told);
    let theirs = place.path().join("theirs");
    repository(&scene, &theirs).await;
    std::fs::copy(ours.join("data.dvc"), theirs.join("data.dvc")).unwrap();
    dvc(&scene, &theirs, &["pull", "-v"]).await;
    for (name, bytes) in &files {
        assert_eq!(&std::fs::read(theirs.join("data").join(name)).unwrap(), bytes, "{name}");
    }
    let status = dvc(&scene, &theirs, &["status", "-c"]).await;
    assert!(status.contains("in sync"), "{status}");

    // Theirs to ours: DVC pushes to an empty remote, and nothing is missing there.
    let empty = Scene::new(Place::SharedDrive).await;
    empty.fake.state().page = 1000;
    let team = {
        // DVC does not make the path below the folder.
        let mut state = empty.fake.state();
        let team = state.add("team's", Some(&empty.root), "nobody", None);
        state.add("store", Some(&team), "nobody", None)
    };
    dvc(&empty, &ours, &["remote", "modify", "store", "url", &empty.settings.url]).await;
    dvc(&empty, &ours, &["push", "-v"]).await;
    assert!(!team.is_empty() && empty.has_all(&objects), "DVC did not send all");
    assert_eq!(empty.remote().await.missing(&objects).await.unwrap_or_else(told), []);
    say(&format!(
        "gdrive: DVC pulled {} objects that we sent, and we found as many that it sent",
        objects.len()
    ));
}

/// The objects in a repository's cache.
fn cached(repository: &Path) -> Vec<Object> {
    let mut objects = Vec::new();
    for folder in std::fs::read_dir(repository.join(".dvc/cache/files/md5")).unwrap() {
        let folder = folder.unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            let name = format!("{}{}", folder.file_name().display(), file.file_name().display());
            let size = file.metadata().unwrap().len();
            objects.push(Object {
                oid: Oid::parse(&name).unwrap(),
                size,
                content: ObjectContent::File(file.path()),
            });
        }
    }
    objects
}

#[test]
fn the_samples_hash_is_md5() {
    // RFC 1321; and a sample whose names were wrong would prove nothing.
    assert_eq!(md5(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(Sample::of(&[]).objects[0].size, 2);
}
