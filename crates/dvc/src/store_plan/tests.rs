use super::*;
use secrecy::ExposeSecret as _;

const SECRETS: [&str; 5] =
    ["AWS_SECRET_ACCESS_KEY", "GDRIVE_CREDENTIALS_DATA", "SSH_PRIVATE_KEY", "HOME", "HF_TOKEN"];

fn site(root: &Path) -> Site<'_> {
    Site { root, folders: PathBase::Own, in_git: Vec::new(), target: None }
}

/// What a machine gets to keep `outputs` with this remote.
fn request(root: &Path, outputs: &[&str], push: bool, remote: Option<&str>) -> StoreRequest {
    let environment = SECRETS.map(|name| (name.to_owned(), format!("value-of-{name}").into()));
    let settings = DvcSettings {
        outputs: outputs.iter().map(|path| (*path).to_owned()).collect(),
        push,
        remote: remote.map(str::to_owned),
        environment: environment.into(),
        ..DvcSettings::default()
    };
    let plan = StorePlan::read(&settings, &site(root)).unwrap();
    plan.settle(&|_| Ok(true)).unwrap().request().clone()
}

fn secrets_in(request: &StoreRequest) -> Vec<&'static str> {
    let text = serde_json::to_string(request).unwrap();
    SECRETS.into_iter().filter(|name| text.contains(&format!("value-of-{name}"))).collect()
}

#[test]
fn a_remote_gets_its_own_credentials_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let sent = |remote: Option<&str>| secrets_in(&request(root, &["m.bin"], false, remote));
    assert_eq!(sent(Some("gdrive://id/models")), ["GDRIVE_CREDENTIALS_DATA", "HOME"]);
    assert_eq!(sent(Some("s3://bucket")), ["AWS_SECRET_ACCESS_KEY", "HOME"]);
    assert_eq!(sent(Some("/mnt/models")), ["HOME"]);
    std::fs::create_dir(root.join(".dvc")).unwrap();
    let config = "[core]\n    remote = b\n['remote \"a\"']\n    url = ssh://host/x\n['remote \"b\"']\n    url = s3://b\n    secret_access_key = config-b\n";
    std::fs::write(root.join(".dvc/config"), config).unwrap();
    assert_eq!(sent(Some("a")), ["SSH_PRIVATE_KEY", "HOME"]);
    assert_eq!(sent(None), ["AWS_SECRET_ACCESS_KEY", "HOME"]);
    let text = |push| serde_json::to_string(&request(root, &["m.bin"], push, Some("a"))).unwrap();
    assert!(!text(false).contains("config-b"));
    // A push may send to any of them, as outputs say, but a credential still only goes with its remote.
    assert!(text(true).contains("config-b"));
    let shown = format!("{:?}", request(root, &["m.bin"], true, Some("a")));
    assert!(!shown.contains("value-of") && !shown.contains("config-b"), "{shown}");
    assert!(shown.contains("SSH_PRIVATE_KEY") && shown.contains("secret_access_key"), "{shown}");
}

#[test]
fn credentials_of_the_configuration_are_named_to_be_hidden() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(".dvc")).unwrap();
    std::fs::write(root.path().join(".dvc/config"), "['remote \"a\"']\n    url = ssh://host/x\n").unwrap();
    let local = "['remote \"a\"']\n    password = hunter22\n    keyfile = id\n";
    std::fs::write(root.path().join(".dvc/config.local"), local).unwrap();
    let plan = StorePlan::read(&DvcSettings::default(), &site(root.path())).unwrap();
    let [secret] = plan.secrets() else { panic!("{:?}", plan.secrets()) };
    assert_eq!((secret.name.as_str(), secret.value.expose_secret()), ("REMOTEA_PASSWORD", "hunter22"));
}
