//! Every form of credential, and what is told of one that does not work.

use super::auth::{CLIENT, REFRESH, SERVICE, USER, key, service_json};
use super::sample::{Place, Sample, Scene, credential, remote, set, told, user_json};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::RsaKeyPair;
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::time::Duration;
use trainspot_dvc::remote::{RemoteStore as _, open};

async fn works(scene: &Scene) {
    let sample = Sample::of(&[20]);
    remote(&scene.settings).await.put_all(&sample.objects).await.unwrap_or_else(told);
    assert!(scene.has_all(&sample.objects));
}

async fn refusal(scene: &Scene) -> String {
    let object = &Sample::of(&[20]).objects[0];
    remote(&scene.settings).await.put(object).await.unwrap_err().render()
}

/// Why a remote cannot be opened at all.
async fn mistake(scene: &Scene) -> String {
    let error = open(&scene.settings).await.err().unwrap();
    assert_eq!(error.exit_kind(), trainspot_base::error::Kind::Configuration);
    error.render()
}

#[tokio::test]
async fn from_a_file_that_the_configuration_names() {
    for (key, place) in [
        ("gdrive_service_account_json_file_path", Place::SharedDrive),
        ("gdrive_user_credentials_file", Place::User),
    ] {
        let mut scene = Scene::new(place).await;
        let json = scene.settings.environment.remove("GDRIVE_CREDENTIALS_DATA").unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("credential.json"), json.expose_secret()).unwrap();
        folder.path().clone_into(&mut scene.settings.folder);
        let why = mistake(&scene).await;
        assert!(why.contains("there is no credential") && why.contains("GDRIVE_CREDENTIALS_DATA"), "{why}");
        set(&mut scene.settings, key, "credential.json");
        works(&scene).await;
        // DVC's switch chooses between the two files.
        set(
            &mut scene.settings,
            "gdrive_use_service_account",
            (place == Place::SharedDrive).to_string().as_str(),
        );
        set(&mut scene.settings, "gdrive_user_credentials_file", "credential.json");
        works(&scene).await;
        set(&mut scene.settings, key, "missing.json");
        let why = mistake(&scene).await;
        assert!(why.contains("cannot read the credential") && why.contains("missing.json"), "{why}");
    }
}

#[tokio::test]
async fn of_a_user_in_every_format() {
    let mut scene = Scene::new(Place::User).await;
    let uri = scene.fake.state().token_uri();
    // google-auth's, gcloud's, and one that leaves the client to the configuration.
    for json in [
        json!({ "token": "old", "refresh_token": REFRESH, "token_uri": uri, "client_id": CLIENT.0, "client_secret": CLIENT.1, "scopes": ["x"], "expiry": "2020-01-01T00:00:00Z" }),
        json!({ "type": "authorized_user", "refresh_token": REFRESH, "token_uri": uri, "client_id": CLIENT.0, "client_secret": CLIENT.1, "account": "", "universe_domain": "googleapis.com" }),
        json!({ "refresh_token": REFRESH, "token_uri": uri }),
    ] {
        credential(&mut scene.settings, &json.to_string());
        if json.get("client_id").is_none() {
            let why = mistake(&scene).await;
            assert!(why.contains("'gdrive_client_id'") && why.contains("your own OAuth client"), "{why}");
            set(&mut scene.settings, "gdrive_client_id", CLIENT.0);
            set(&mut scene.settings, "gdrive_client_secret", CLIENT.1);
        }
        works(&scene).await;
    }
}

#[tokio::test]
async fn that_cannot_be_read() {
    let mut scene = Scene::new(Place::User).await;
    for (text, part) in [
        ("{\"refresh_token\": \"hunter2", "line 1, column"),
        ("{}", "neither a service account's key nor a user's credential"),
        ("{\"client_email\": \"a@b\", \"private_key\": \"hunter2\"}", "no private key that can be read"),
        ("hunter2", "is not the JSON of a credential"),
    ] {
        credential(&mut scene.settings, text);
        let why = mistake(&scene).await;
        assert!(why.starts_with("GDRIVE_CREDENTIALS_DATA") && why.contains(part), "{why}");
        assert!(why.contains("\nNext: ") && !why.contains("hunter2"), "{why}");
    }
}

#[tokio::test]
async fn a_key_that_lost_its_line_ends() {
    let mut scene = Scene::new(Place::SharedDrive).await;
    let mut json = service_json(&scene.fake.state().token_uri(), key());
    json["private_key"] = json!(json["private_key"].as_str().unwrap().replace('\n', "\\n"));
    credential(&mut scene.settings, &json.to_string());
    works(&scene).await;
}

#[tokio::test]
async fn that_google_does_not_accept() {
    let mut scene = Scene::new(Place::SharedDrive).await;
    let other = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let json = service_json(&scene.fake.state().token_uri(), &other).to_string();
    credential(&mut scene.settings, &json);
    let why = refusal(&scene).await;
    assert!(
        why.contains("Google gives no access token: HTTP 400: invalid_grant: Invalid JWT Signature."),
        "{why}"
    );
    assert!(why.contains(&format!("the key of {SERVICE} has expired or was deleted")), "{why}");
    assert!(!why.contains("PRIVATE KEY"), "{why}");

    let scene = Scene::new(Place::User).await;
    scene.fake.state().refresh_token = "another".to_owned();
    let why = refusal(&scene).await;
    assert!(why.contains("invalid_grant: Token has been expired or revoked."), "{why}");
    assert!(why.contains("log in again") && why.contains("7 days") && !why.contains(REFRESH), "{why}");

    let mut scene = Scene::new(Place::User).await;
    credential(&mut scene.settings, &user_json(&scene.fake).replace(CLIENT.1, "hunter2"));
    let why = refusal(&scene).await;
    assert!(why.contains("invalid_client") && why.contains("your own OAuth client"), "{why}");
    assert!(!why.contains("hunter2"), "{why}");
}

#[tokio::test]
async fn delegation() {
    let mut scene = Scene::new(Place::Delegated).await;
    works(&scene).await;
    scene.fake.state().delegation = false;
    let why = refusal(&scene).await;
    assert!(why.contains("unauthorized_client") && why.contains("domain-wide delegation"), "{why}");
    assert!(why.contains(USER) && why.contains(SERVICE), "{why}");
    scene.fake.state().delegation = true;
    set(&mut scene.settings, "gdrive_service_account_user_email", "nobody@example.com");
    let why = refusal(&scene).await;
    assert!(
        why.contains("Invalid email or User ID") && why.contains("nobody@example.com is no user"),
        "{why}"
    );
}

#[tokio::test]
async fn tokens_are_renewed_before_they_expire() {
    let (scene, sample) = (Scene::new(Place::SharedDrive).await, Sample::of(&[20; 5]));
    // Two minutes are kept as a margin, so that this one is old after a second.
    scene.fake.state().token_life = Duration::from_secs(121);
    let remote = scene.remote().await;
    for object in &sample.objects {
        remote.put(object).await.unwrap_or_else(told);
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert!(scene.has_all(&sample.objects));
    let granted = scene.fake.state().granted;
    assert!((2..=5).contains(&granted), "{granted}");
}

#[tokio::test]
async fn addresses_and_keys_of_the_configuration() {
    let mut scene = Scene::new(Place::User).await;
    for url in ["gdrive://", "gdrive:///path", "gdrive://it's/path", "gdrive://a.b/path"] {
        url.clone_into(&mut scene.settings.url);
        let why = mistake(&scene).await;
        assert!(why.contains("names no folder of Google Drive") && why.contains("gdrive://1aBcD"), "{why}");
    }
    scene.settings.url = format!("gdrive://{}", scene.root);
    scene.base = "";
    // Every key that DVC 3.67.1 knows there.
    for (key, value) in [
        ("profile", "me"),
        ("gdrive_trash_only", "true"),
        ("gdrive_acknowledge_abuse", "true"),
        ("gdrive_client_id", "x"),
        ("gdrive_client_secret", "x"),
        ("gdrive_service_account_user_email", ""),
        ("gdrive_use_service_account", "false"),
        ("jobs", "4"),
        ("verify", "true"),
    ] {
        set(&mut scene.settings, key, value);
    }
    works(&scene).await;
    set(&mut scene.settings, "region", "x");
    let why = mistake(&scene).await;
    assert!(why.contains("not a key that DVC knows there") && !why.contains("endpointurl"), "{why}");
}
