//! What lasts is told in Drive's own words, with what to do.

use super::auth::{SERVICE, USER};
use super::http::Fault;
use super::sample::{Place, Sample, Scene, credential, remote, settings, user_json};
use trainspot_dvc::remote::RemoteStore as _;

async fn refusal(scene: &Scene) -> String {
    let object = &Sample::of(&[20]).objects[0];
    remote(&scene.settings).await.put(object).await.unwrap_err().render()
}

#[tokio::test]
async fn a_service_account_owns_nothing() {
    let scene = Scene::new(Place::SharedFolder).await;
    for length in [20, 9 << 20] {
        let why =
            remote(&scene.settings).await.put(&Sample::of(&[length]).objects[0]).await.unwrap_err().render();
        for part in [
            "HTTP 403: storageQuotaExceeded: Service Accounts do not have storage quota",
            "Shared Drive, with trainer@project",
            "gdrive_service_account_user_email",
            "refresh token",
        ] {
            assert!(why.contains(part), "{why}");
        }
    }
    assert_eq!(scene.files(), 0);
}

#[tokio::test]
async fn a_full_storage() {
    let scene = Scene::new(Place::User).await;
    scene.fake.state().room = 10;
    let why = refusal(&scene).await;
    assert!(why.contains("storageQuotaExceeded") && why.contains("dvc gc --cloud"), "{why}");
}

#[tokio::test]
async fn a_folder_that_is_not_shared_or_not_there() {
    let mut scene = Scene::new(Place::SharedFolder).await;
    scene.fake.state().nodes.get_mut(&scene.root).unwrap().editors.clear();
    let why = refusal(&scene).await;
    assert!(why.contains("HTTP 404: notFound"), "{why}");
    assert!(why.contains(&format!("share the folder with {SERVICE}")), "{why}");
    scene.settings.url = "gdrive://1aBcDeF-gHiJ_kLm".to_owned();
    let why = refusal(&scene).await;
    assert!(
        why.contains("File not found: 1aBcDeF-gHiJ_kLm.") && why.contains("check the folder's id"),
        "{why}"
    );
}

#[tokio::test]
async fn a_folder_that_may_only_be_read() {
    let scene = Scene::new(Place::SharedFolder).await;
    {
        let mut state = scene.fake.state();
        let node = state.nodes.get_mut(&scene.root).unwrap();
        node.editors.clear();
        node.readers.insert(SERVICE);
    }
    let why = refusal(&scene).await;
    assert!(
        why.contains("insufficientFilePermissions") && why.contains(&format!("let {SERVICE} change")),
        "{why}"
    );
}

#[tokio::test]
async fn what_is_no_folder_or_in_the_trash() {
    let mut scene = Scene::new(Place::User).await;
    scene.fake.state().nodes.get_mut(&scene.root).unwrap().trashed = true;
    let why = refusal(&scene).await;
    assert!(why.contains("is in the trash") && why.contains("restore it"), "{why}");
    let file = scene.fake.state().add("a file", Some(&scene.root), USER, Some(b"text"));
    scene.settings.url = format!("gdrive://{file}");
    let why = refusal(&scene).await;
    assert!(why.contains("application/octet-stream, and no folder"), "{why}");
}

#[tokio::test]
async fn a_wrong_file_that_cannot_be_put_into_the_trash() {
    let scene = Scene::new(Place::SharedDrive).await;
    let sample = Sample::of(&[20]);
    scene.push(&sample.objects).await.unwrap();
    let key = sample.objects[0].oid.key();
    {
        let mut state = scene.fake.state();
        let node = state
            .nodes
            .values_mut()
            .find(|node| key.ends_with(&node.name) && !node.content.bytes.is_empty())
            .unwrap();
        node.content = b"wrong"[..].into();
        state.no_trash = true;
    }
    let why = scene.push(&sample.objects).await.unwrap_err().render();
    assert!(why.contains("cannot put a wrong file of its name into the trash"), "{why}");
    assert!(why.contains("content manager"), "{why}");
}

#[tokio::test]
async fn reasons_of_the_project() {
    for (reason, hint) in [
        ("accessNotConfigured", "enable the Google Drive API"),
        ("dailyLimitExceeded", "750 GB a day"),
        ("insufficientPermissions", "with the scope https://www.googleapis.com/auth/drive"),
        ("numChildrenInNonRootLimitExceeded", "dvc gc --cloud"),
    ] {
        let scene = Scene::new(Place::SharedDrive).await;
        let remote = remote(&scene.settings).await;
        // The second call: the first one is for the token.
        scene.fake.state().restart();
        scene.fake.state().fault = Some((Fault::RateLimit(reason), Some(2)));
        let why = remote.put(&Sample::of(&[20]).objects[0]).await.unwrap_err().render();
        assert!(why.contains(reason) && why.contains(hint), "{why}");
    }
}

#[tokio::test]
async fn flags_of_shared_drives_matter_to_the_fake() {
    // What the other tests rest on: without the flags nothing of a Shared Drive is to be seen.
    let scene = Scene::new(Place::SharedDrive).await;
    let user = user_json(&scene.fake);
    let mut with_token = settings(&format!("gdrive://{}", scene.root), &scene.fake);
    credential(&mut with_token, &user);
    remote(&with_token).await.put(&Sample::of(&[20]).objects[0]).await.unwrap();
    let token = scene.fake.state().tokens.keys().next().unwrap().clone();
    let ask = async |query: &str| {
        let url = format!("{}/drive/v3/files{query}", scene.fake.address());
        reqwest::Client::new().get(url).bearer_auth(&token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&format!("/{}", scene.root)).await, 404);
    assert_eq!(ask(&format!("/{}?supportsAllDrives=true", scene.root)).await, 200);
    assert_eq!(ask("?q=trashed=false&includeItemsFromAllDrives=true").await, 400);
}
