//! Runs that outlive their pipe: what they need, what cannot be had together with them, and what is only odd.

use super::{Changes, GOOD, told_of_each};
use secrecy::ExposeSecret as _;
use std::time::Duration;
use trainspot::config::variables::Action;
use trainspot::config::{Cloud, Config, Detach, StoreSettings};
use trainspot_compute::RunId;
use trainspot_store::{BucketCredentials, StoreAddress};

/// The least that a detached run needs, besides what a training on a rented machine does.
const LEAST: &[(&str, &str)] = &[
    ("CLOUD", "aws"),
    ("AWS_DEFAULT_REGION", "eu-west-1"),
    ("INSTANCE_TYPE", "m5.2xlarge"),
    ("DETACH", "true"),
    ("STORE", "s3://models/trainspot"),
    ("INSTANCE_PROFILE", "machine"),
];
const KEY: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")];
const ID: &str = "0123456789abcdef";

fn load(changes: &[(&str, &str)]) -> Config {
    let all = [GOOD, LEAST, changes].concat();
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::load(all).unwrap_or_else(|problems| panic!("{problems}\n{changes:?}"))
}

fn detach(changes: &[(&str, &str)]) -> Detach {
    let config = load(changes);
    assert_eq!(config.warnings, Vec::<String>::new(), "{changes:?}");
    config.train.unwrap().detach.unwrap()
}

fn capacity_wait(changes: &[(&str, &str)]) -> Duration {
    match load(changes).train.unwrap().cloud {
        Cloud::Aws(aws) => aws.capacity_wait,
        Cloud::Local => panic!("{changes:?} is local"),
    }
}

#[test]
fn every_wrong_detached_run_is_told_in_full() {
    insta::assert_snapshot!(told_of_each(LEAST, WRONG));
}

#[test]
fn the_least_that_is_needed_gets_the_defaults() {
    let Detach { store, instance_profile, wake_token, wake_bus, wake_pipeline } = detach(&[]);
    let bucket = StoreAddress::Bucket { bucket: "models".to_owned(), prefix: "trainspot".to_owned() };
    assert_eq!(store.address, bucket);
    assert_eq!((store.access.region.as_str(), store.access.endpoint), ("eu-west-1", None));
    assert!(matches!(store.access.credentials, BucketCredentials::InstanceProfile));
    assert_eq!(store.account.unwrap().regions, ["eu-west-1"]);
    assert_eq!(instance_profile.as_deref(), Some("machine"));
    assert!(wake_token.is_none() && wake_bus.is_none() && wake_pipeline.is_none());
}

#[test]
fn all_that_can_be_wished_arrives() {
    let wishes = [
        ("STORE_ENDPOINT", "https://minio.example:9000/"),
        ("WAKE_TOKEN", "s3cr3t-wake"),
        ("WAKE_BUS", "wake"),
        ("WAKE_PIPELINE", "retrain"),
        ("PUBLISH", "none"),
    ];
    let Detach { store, wake_token, wake_bus, wake_pipeline, .. } = detach(&[&wishes[..], &KEY].concat());
    assert_eq!(store.access.endpoint.as_deref(), Some("https://minio.example:9000"));
    let BucketCredentials::Keys { id, secret, session_token } = store.access.credentials else {
        panic!("no key")
    };
    assert_eq!(
        (id.as_str(), secret.expose_secret(), session_token.is_none()),
        ("AKIAEXAMPLE", "s3cr3tvalue", true)
    );
    assert_eq!(wake_token.unwrap().expose_secret(), "s3cr3t-wake");
    assert_eq!((wake_bus.as_deref(), wake_pipeline.as_deref()), (Some("wake"), Some("retrain")));
}

#[test]
fn a_folder_keeps_the_runs_of_this_machine() {
    let local =
        [("CLOUD", "local"), ("INSTANCE_TYPE", ""), ("AWS_DEFAULT_REGION", ""), ("INSTANCE_PROFILE", "")];
    let store = detach(&[&local[..], &[("STORE", "/srv/runs")]].concat()).store;
    assert_eq!((store.address, store.account.is_none()), (StoreAddress::Folder("/srv/runs".into()), true));
    let StoreSettings { access, account, .. } = detach(&[&local[..], &KEY].concat()).store;
    assert_eq!((access.region.as_str(), account.is_none()), ("us-east-1", true));
    assert!(matches!(access.credentials, BucketCredentials::Keys { .. }));
}

#[test]
fn a_detached_run_looks_for_capacity_briefly_unless_it_is_told_otherwise() {
    let minutes = Duration::from_mins;
    assert_eq!(capacity_wait(&[]), minutes(2));
    // The default in pipe.yml, which reaches the pipe as if it had been given.
    assert_eq!(capacity_wait(&[("CAPACITY_WAIT", "6h")]), minutes(2));
    assert_eq!(capacity_wait(&[("CAPACITY_WAIT", "20m")]), minutes(20));
    assert_eq!(capacity_wait(&[("DETACH", "false"), ("STORE", "")]), minutes(360));
}

/// A custom pipeline's variable that nobody gives is empty; one that is not declared stays as it is written.
#[test]
fn a_run_that_nobody_named_is_a_new_one() {
    for nothing in ["", " ", "$TRAINSPOT_RUN", "${TRAINSPOT_RUN}"] {
        let config = load(&[("RUN", nothing)]);
        assert!(config.run.is_none() && config.train.is_some() && config.record.is_some(), "{nothing}");
    }
}

#[test]
fn a_run_that_is_named_is_known_before_its_record_is_read() {
    // Of these the woken pipeline has nothing, or what nobody reads.
    let config = load(&[
        ("RUN", ID),
        ("TRAIN_COMMAND", ""),
        ("OUTPUTS", ""),
        ("TRAIN_ENV", "EPOCHS"),
        ("MAX_RUNTIME", "soon"),
    ]);
    assert_eq!((config.action, config.run), (Action::Train, RunId::parse(ID)));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(config.store.is_some() && config.woken.is_some());
    assert!(config.train.is_none() && config.record.is_none());
}

#[test]
fn a_pipe_without_its_runs_record_hides_whatever_may_be_secret() {
    let secrets =
        load(&[("RUN", ID), ("WANDB_API_KEY", "s3cr3tvalue"), ("TRAIN_ENV", "HF_TOKEN=s3cr3t-too")]).secrets;
    for name in ["WANDB_API_KEY", "HF_TOKEN"] {
        assert!(secrets.iter().any(|secret| secret.name == name), "{name}");
    }
}

#[test]
fn runs_are_looked_after_with_what_leads_to_them() {
    let nothing = [
        ("TRAIN_COMMAND", ""),
        ("OUTPUTS", ""),
        ("INSTANCE_TYPE", ""),
        ("INSTANCE_PROFILE", ""),
        ("DETACH", ""),
    ];
    for (action, run) in [("status", ""), ("status", ID), ("stop", ID)] {
        let config = load(&[&nothing[..], &KEY, &[("ACTION", action), ("RUN", run)]].concat());
        assert_eq!(config.warnings, Vec::<String>::new(), "{action}");
        assert_eq!((config.action.name(), config.run), (action, RunId::parse(run)));
        let store = config.store.unwrap();
        assert!(matches!(store.access.credentials, BucketCredentials::Keys { .. }), "{action}");
        assert!(
            config.train.is_none() && store.account.is_some_and(|account| account.key.is_some()),
            "{action}"
        );
    }
    let sweep = [("ACTION", "sweep"), ("CLOUD", "")];
    let config = load(&[&nothing[..], &sweep].concat());
    assert!(config.store.is_some() && config.sweep.is_some() && config.warnings.is_empty());
    assert!(load(&[&nothing[..], &sweep, &[("STORE", "")]].concat()).store.is_none());
}

#[test]
fn what_is_odd_is_told() {
    for (changes, words) in [
        (&[("DETACH", "false")] as &[_], "STORE has no effect without DETACH"),
        (&[("DETACH", "no"), ("STORE", ""), ("WAKE_BUS", "wake")], "WAKE_BUS has no effect without DETACH"),
        (
            &[("DETACH", ""), ("STORE", ""), ("WAKE_PIPELINE", "x")],
            "WAKE_PIPELINE has no effect without DETACH",
        ),
    ] {
        assert_eq!(load(changes).warnings, [words], "{changes:?}");
    }
    // It may be there for the sake of other steps.
    assert_eq!(
        load(&[("DETACH", "false"), ("STORE", ""), ("WAKE_TOKEN", "a-token")]).warnings,
        Vec::<String>::new()
    );
}

#[rustfmt::skip]
const WRONG: &[Changes] = &[
    &[("STORE", "")],
    &[("STORE", "models")],
    &[("STORE", "s3://Models")],
    &[("STORE", "s3://models/../x")],
    &[("STORE", "$STORE")],
    &[("STORE", "/srv/runs")],
    &[("STORE", ""), ("INSTANCE_PROFILE", "")],
    &[("INSTANCE_PROFILE", "")],
    &[("STORE_ENDPOINT", "minio:9000")],
    &[("CLOUD", "local")],
    &[("DETACH", "perhaps"), ("STORE", "")],
    &[("RUN", "7")],
    &[("RUN", "0123456789ABCDEF")],
    &[("RUN", "$RUN")],
    &[("RUN", "$OTHER")],
    &[("RUN", ID), ("DETACH", "false")],
    &[("RUN", ID), ("STORE", "")],
    &[("RUN", ID), ("DETACH", ""), ("STORE", "")],
    &[("WAKE_BUS", "a bus")],
    &[("WAKE_BUS", "arn:aws:events:eu-west-1:123456789012:rule/wake")],
    &[("WAKE_TOKEN", "s3cr3t value")],
    &[("WAKE_TOKEN", "$TOKEN")],
    &[("WAKE_TOKEN", "s3cr3t-long-value"), ("STARTUP_SCRIPT", "echo s3cr3t-long-value")],
    &[("DVC_REMOTE", "https://me:s3cr3tvalue@host/x"), ("DVC_OUTPUTS", "x")],
    &[("ACTION", "status"), ("STORE", "")],
    &[("ACTION", "status"), ("RUN", "x")],
    &[("ACTION", "status"), ("AWS_DEFAULT_REGION", "")],
    &[("ACTION", "stop")],
    &[("ACTION", "stop"), ("STORE", "")],
    &[("ACTION", "sweep"), ("STORE", "/srv/runs")],
    &[("ACTION", "runner"), ("BITBUCKET_ACCESS_TOKEN", "a-token"), ("BITBUCKET_WORKSPACE", "w"), ("BITBUCKET_REPO_SLUG", "r"), ("BITBUCKET_REPO_OWNER_UUID", "{o}"), ("BITBUCKET_REPO_UUID", "{u}")],
];
