use super::*;
use crate::config::{Cloud, Config, Problems, SecretDifferences, SecretFingerprints};
use trainspot_bitbucket::Credential;
use trainspot_compute::RunId;

const RUN: &str = "0123456789abcdef";
const ACCESS_KEY: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cret-of-this-step")];

/// What a first pipe is told.
fn told() -> BTreeMap<String, String> {
    let told = [
        ("DETACH", "true"),
        ("STORE", "s3://models/trainspot"),
        ("INSTANCE_PROFILE", "machine"),
        ("AWS_REGION", "eu-west-1"),
        ("INSTANCE_TYPE_COUNT", "2"),
        ("INSTANCE_TYPE_0", "g5.xlarge"),
        ("INSTANCE_TYPE_1", "g4dn.xlarge"),
        ("TRAIN_COMMAND", "python train.py"),
        ("OUTPUTS", "model/**"),
        ("TRAIN_ENV", "EPOCHS, SEED=7, WANDB_API_KEY, HF_TOKEN=s3cret-inline, DATABASE"),
        ("EPOCHS", "40"),
        ("WANDB_API_KEY", "s3cret-wandb\n"),
        ("DATABASE", "postgres://me:s3cret-password@host/db"),
        ("DVC_OUTPUTS", "data"),
        ("GDRIVE_CREDENTIALS_DATA", "s3cret-gdrive"),
        ("WAKE_TOKEN", "s3cret-wake"),
        ("RUN", "$TRAINSPOT_RUN"),
        ("BITBUCKET_ACCESS_TOKEN", "s3cret-access"),
        ("BITBUCKET_STEP_OIDC_TOKEN", "s3cret-oidc"),
        ("BITBUCKET_REPO_UUID", "{repository}"),
        ("BITBUCKET_COMMIT", "0123456789ab"),
        ("BITBUCKET_BRANCH", "main"),
        ("BITBUCKET_BUILD_NUMBER", "7"),
        ("BITBUCKET_CLONE_DIR", "/first"),
    ];
    owned(&[&told[..], &ACCESS_KEY].concat())
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The environment of a pipe that is woken: the same pipeline, without what somebody chose for the first.
fn woken(changes: &[(&str, &str)]) -> Config {
    let mut environment = told();
    environment.extend(owned(&[
        ("RUN", RUN),
        ("EPOCHS", ""),
        ("BITBUCKET_BUILD_NUMBER", "8"),
        ("BITBUCKET_CLONE_DIR", "/second"),
        ("BITBUCKET_TAG", "v2"),
    ]));
    environment.extend(owned(changes));
    environment.retain(|_, value| !value.is_empty());
    Config::load(environment).unwrap_or_else(|problems| panic!("{problems}"))
}

fn first() -> Config {
    Config::load(told()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn recorded(first: &Config, woken: &Config) -> Result<Config, Problems> {
    let stored = serde_json::to_vec(first.record.as_ref().unwrap()).unwrap();
    let record = serde_json::from_slice(&stored).unwrap();
    Config::load_recorded(&record, woken.woken.as_ref().unwrap())
}

fn shown(config: &Config) -> String {
    format!("{:?} {:?} {:?} {:?}", config.train, config.outputs, config.publish, config.dvc)
}

#[test]
fn a_woken_pipe_has_the_configuration_of_the_first() {
    let (first, woken) = (first(), woken(&[]));
    assert!(woken.train.is_none() && woken.store.is_some() && first.run.is_none() && first.store.is_none());
    let whole = recorded(&first, &woken).unwrap();
    assert_eq!(shown(&whole), shown(&first));
    assert_eq!(whole.run, RunId::parse(RUN));
    assert_eq!(whole.record, first.record);
    let values = |config: &Config| -> BTreeMap<String, String> {
        let all = &config.train.as_ref().unwrap().environment;
        all.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
    };
    assert_eq!(values(&whole), values(&first));
    assert_eq!(values(&whole)["EPOCHS"], "40");
    assert_eq!(SecretFingerprints::of(&first).compare(&whole), SecretDifferences::default());
}

#[test]
fn the_step_is_the_woken_pipes_and_the_commit_the_runs() {
    let woken = woken(&[("BITBUCKET_COMMIT", "ffffffffffff"), ("BITBUCKET_BRANCH", "")]);
    let whole = recorded(&first(), &woken).unwrap();
    let step = &whole.pipeline;
    assert_eq!((step.commit.as_deref(), step.branch.as_deref()), (Some("0123456789ab"), Some("main")));
    assert_eq!((step.tag.as_deref(), step.build_number.as_deref()), (None, Some("8")));
    assert_eq!(whole.clone_dir.to_str(), Some("/second"));
}

#[test]
fn what_the_woken_pipeline_says_of_the_run_does_not_count() {
    let changes = [
        ("TRAIN_COMMAND", "curl evil"),
        ("MAX_COST", "90"),
        ("INSTANCE_TYPE_COUNT", "1"),
        ("TRAIN_ENV", "not a name"),
        ("PUBLISH", "merge"),
        ("INCLUDE", "/etc"),
        ("AWS_REGION", "us-east-1"),
        ("OUTPUTZ", "x"),
    ];
    let woken = woken(&changes);
    assert_eq!(woken.warnings, Vec::<String>::new());
    let whole = recorded(&first(), &woken).unwrap();
    let train = whole.train.as_ref().unwrap();
    let Cloud::Aws(aws) = &train.cloud else { panic!("{:?}", train.cloud) };
    assert_eq!((train.command.as_str(), aws.max_cost), ("python train.py", None));
    assert_eq!(aws.account.regions, ["eu-west-1"]);
    assert!(train.include.is_empty());
}

#[test]
fn what_the_pipe_is_and_whom_it_asks_is_never_taken_from_the_store() {
    let mut record = first().record.unwrap();
    record.variables.extend(owned(&[
        ("BITBUCKET_API_URL", "https://evil.example"),
        ("PIPELINES_PROXY", "http://evil.example"),
        ("STORE", "s3://evil"),
        ("AWS_ACCESS_KEY_ID", "AKIAEVIL"),
        ("BITBUCKET_ACCESS_TOKEN", "evil"),
        ("BITBUCKET_GIT_HTTP_ORIGIN", "http://evil.example/a/b"),
        ("HTTPS_PROXY", "http://evil.example"),
        ("RUN", "eeeeeeeeeeeeeeee"),
    ]));
    let whole = Config::load_recorded(&record, woken(&[]).woken.as_ref().unwrap()).unwrap();
    let shown = format!("{:?} {:?} {:?} {:?}", whole.bitbucket, whole.pipeline, whole.train, whole.run)
        .to_lowercase();
    assert!(!shown.contains("evil") && !shown.contains("eeee"), "{shown}");
    assert_eq!(
        whole.bitbucket.credential.as_ref().map(|it| matches!(it, Credential::AccessToken(_))),
        Some(true)
    );
}

#[test]
fn a_run_of_another_repository_is_refused() {
    let problems = recorded(&first(), &woken(&[("BITBUCKET_REPO_UUID", "{another}")])).unwrap_err();
    assert!(problems.to_string().ends_with("RUN is a run of another repository"), "{problems}");
}

#[test]
fn a_secret_that_is_missing_or_new_is_named() {
    let first = first();
    let prints = serde_json::to_string(&SecretFingerprints::of(&first)).unwrap();
    let prints: SecretFingerprints = serde_json::from_str(&prints).unwrap();
    let compared = |changes: &[(&str, &str)]| prints.compare(&recorded(&first, &woken(changes)).unwrap());
    for (name, changes) in [
        ("WANDB_API_KEY", [("WANDB_API_KEY", ""), ("WANDB_API_KEY", "another")]),
        ("DATABASE", [("DATABASE", ""), ("DATABASE", "postgres://me:another@host/db")]),
        ("HF_TOKEN", [("TRAIN_ENV", "EPOCHS"), ("TRAIN_ENV", "HF_TOKEN=another")]),
        (
            "GDRIVE_CREDENTIALS_DATA",
            [("GDRIVE_CREDENTIALS_DATA", ""), ("GDRIVE_CREDENTIALS_DATA", "another")],
        ),
        ("BITBUCKET_ACCESS_TOKEN", [("BITBUCKET_ACCESS_TOKEN", ""), ("BITBUCKET_ACCESS_TOKEN", "another")]),
    ] {
        let name = vec![name.to_owned()];
        let [gone, other] = changes.map(|change| compared(&[change]));
        assert_eq!(gone, SecretDifferences { missing: name.clone(), changed: Vec::new() });
        assert_eq!(other, SecretDifferences { missing: Vec::new(), changed: name });
    }
}

#[test]
fn credentials_of_a_session_may_be_others_but_must_be_there_for_the_training() {
    let list = ("TRAIN_ENV", "BITBUCKET_STEP_OIDC_TOKEN, AWS_SECRET_ACCESS_KEY");
    let mut environment = told();
    environment.extend(owned(&[list]));
    let first = Config::load(environment).unwrap();
    let prints = SecretFingerprints::of(&first);
    let text = serde_json::to_string(&prints).unwrap();
    assert!(text.contains(r#""BITBUCKET_STEP_OIDC_TOKEN":null"#), "{text}");
    let another = [("BITBUCKET_STEP_OIDC_TOKEN", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("WAKE_TOKEN", "")];
    let whole = recorded(&first, &woken(&another)).unwrap();
    assert_eq!(prints.compare(&whole), SecretDifferences::default());
    let whole = recorded(&first, &woken(&[("BITBUCKET_STEP_OIDC_TOKEN", "")])).unwrap();
    assert_eq!(prints.compare(&whole).missing, ["BITBUCKET_STEP_OIDC_TOKEN"]);
}

#[test]
fn nothing_that_goes_into_the_store_holds_a_secret() {
    let first = first();
    let record = serde_json::to_string(first.record.as_ref().unwrap()).unwrap();
    let prints = serde_json::to_string(&SecretFingerprints::of(&first)).unwrap();
    for text in [&record, &prints] {
        assert!(!text.contains("s3cret") && !text.contains("AKIA") && !text.contains("WAKE_TOKEN"), "{text}");
        assert!(text.contains("WANDB_API_KEY") && text.contains("DATABASE"), "{text}");
    }
    assert!(record.contains(r#""EPOCHS":"40""#) && record.contains("g4dn.xlarge"), "{record}");
    assert!(!record.contains("/first") && !record.contains("BUILD_NUMBER"), "{record}");
}

#[test]
fn a_secret_in_another_variable_is_refused() {
    for (name, value, why) in [
        ("TRAIN_COMMAND", "KEY=s3cret-inline python train.py", "holds the value of HF_TOKEN"),
        ("DVC_REMOTE", "https://me:pw@host/data", "holds an address with a password"),
        (
            "STARTUP_SCRIPT",
            "pip install --index-url https://me:pw@host/x y",
            "holds an address with a password",
        ),
    ] {
        let mut environment = told();
        environment.extend(owned(&[(name, value)]));
        let problems = Config::load(environment).unwrap_err().to_string();
        assert!(problems.contains(&format!("\n  {name} {why}")), "{problems}");
        assert!(!problems.contains("s3cret") && !problems.contains("pw"), "{problems}");
    }
    for (name, value) in [
        (
            "TRAIN_COMMAND",
            "pip install --index-url https://$USER:$PASSWORD@host/x y; curl http://host:80/@a:b",
        ),
        ("INCLUDE", "keys/s3cret-gdrive.json"),
        ("DVC_REMOTE", "ssh://me@host:22/data"),
    ] {
        let mut environment = told();
        environment.extend(owned(&[(name, value)]));
        assert!(Config::load(environment).is_ok(), "{value}");
    }
}
