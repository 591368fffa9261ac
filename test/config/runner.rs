//! What can be wrong with a runner, and what is only odd.

use super::{Changes, GOOD, told_of_each};
use secrecy::ExposeSecret as _;
use std::time::Duration;
use trainspot::config::Config;
use trainspot::config::runner::{Program, Reuse, RunnerSettings};
use trainspot_bitbucket::{Platform, Scope};

/// The least that a runner needs.
const LEAST: &[(&str, &str)] = &[
    ("ACTION", "runner"),
    ("CLOUD", ""),
    ("TRAIN_COMMAND", ""),
    ("OUTPUTS", ""),
    ("AWS_DEFAULT_REGION", "eu-west-1"),
    ("INSTANCE_TYPE", "g5.xlarge"),
    ("BITBUCKET_ACCESS_TOKEN", "a-token"),
    ("BITBUCKET_BRANCH", "main"),
    ("BITBUCKET_WORKSPACE", "acme"),
    ("BITBUCKET_REPO_SLUG", "forest"),
    ("BITBUCKET_REPO_OWNER_UUID", "{a}"),
    ("BITBUCKET_REPO_UUID", "{b}"),
];

fn load(changes: &[(&str, &str)]) -> (RunnerSettings, Vec<String>) {
    let all = [GOOD, LEAST, changes].concat();
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(all).unwrap_or_else(|problems| panic!("{problems}\n{changes:?}"));
    (config.runner.unwrap(), config.warnings)
}

#[test]
fn every_wrong_runner_is_told_in_full() {
    insta::assert_snapshot!(told_of_each(LEAST, WRONG));
}

#[test]
fn the_least_that_is_needed_gets_the_defaults() {
    let (runner, warnings) = load(&[]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((runner.level, runner.reuse, runner.single), (Scope::Repository, Reuse::Never, false));
    assert_eq!((runner.idle, runner.max_runtime), (Duration::from_mins(5), Duration::from_hours(12)));
    assert_eq!(runner.program.platform(), Platform::LinuxDocker);
    assert!(runner.labels.is_empty() && runner.token.is_none() && runner.run.is_none());
}

#[test]
fn all_that_can_be_wished_arrives() {
    let (runner, warnings) = load(&[
        ("RUNNER_TYPE", "shell"),
        ("RUNNER_ARCHIVE", "https://example.com/runner.tar.gz"),
        ("RUNNER_ARCHIVE_SHA256", &"AB".repeat(32)),
        ("RUNNER_LABELS", "gpu.train, self.hosted"),
        ("RUNNER_SCOPE", "workspace"),
        ("RUNNER_REUSE", "idle"),
        ("RUNNER_ACCESS_TOKEN", "its-own-token"),
        ("RUN_PIPELINE", "train"),
        ("RUN_VARIABLES", "EPOCHS=10,WANDB_API_KEY"),
        ("WANDB_API_KEY", "a-secret"),
    ]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        runner.program,
        Program::Shell {
            archive: "https://example.com/runner.tar.gz".to_owned(),
            sha256: Some("ab".repeat(32))
        }
    );
    assert_eq!((runner.level, runner.reuse), (Scope::Workspace, Reuse::Idle));
    assert_eq!(runner.labels, ["gpu.train", "self.hosted"]);
    assert_eq!(runner.token.as_ref().unwrap().expose_secret(), "its-own-token");
    let run = runner.run.unwrap();
    assert_eq!((run.name.as_str(), run.branch.as_str(), run.own_commit), ("train", "main", true));
    assert_eq!(run.variables["EPOCHS"].expose_secret(), "10");
    assert_eq!(run.variables["WANDB_API_KEY"].expose_secret(), "a-secret");
    let run = load(&[("RUN_PIPELINE", "train"), ("RUN_BRANCH", "other")]).0.run.unwrap();
    assert_eq!((run.branch.as_str(), run.own_commit), ("other", false));
}

#[test]
fn secrets_of_runners_are_hidden() {
    let all = [
        GOOD,
        LEAST,
        &[
            ("RUNNER_ACCESS_TOKEN", "its-own-token"),
            ("RUN_PIPELINE", "train"),
            ("RUN_VARIABLES", "API_KEY=a-secret"),
        ],
    ]
    .concat();
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let hidden = Config::load(all).unwrap().secrets;
    for name in ["RUNNER_ACCESS_TOKEN", "API_KEY", "BITBUCKET_ACCESS_TOKEN"] {
        assert!(hidden.iter().any(|secret| secret.name == name), "{name}");
    }
}

#[test]
fn what_is_odd_is_told() {
    for (changes, words) in [
        (
            &[("RUNNER_ARCHIVE", "https://example.com/a.tar.gz")] as &[_],
            "RUNNER_ARCHIVE has no effect with RUNNER_TYPE 'docker'",
        ),
        (
            &[("RUNNER_TYPE", "shell"), ("RUNNER_IMAGE", "a:1")],
            "RUNNER_IMAGE has no effect with RUNNER_TYPE 'shell'",
        ),
        (&[("RUN_BRANCH", "main")], "RUN_BRANCH has no effect without RUN_PIPELINE"),
        (
            &[("RUN_PIPELINE", "train"), ("RUNNER_SINGLE", "true")],
            "RUNNER_SINGLE has no effect with RUN_PIPELINE, which ends the machine itself",
        ),
        (&[("CLOUD", "local")], "CLOUD has no effect with ACTION 'runner'"),
        (&[("OUTPUTS", "model.bin")], "OUTPUTS has no effect with ACTION 'runner'"),
    ] {
        assert_eq!(load(changes).1, [words], "{changes:?}");
    }
}

#[rustfmt::skip]
const WRONG: &[Changes] = &[
    &[("BITBUCKET_ACCESS_TOKEN", "")],
    &[("BITBUCKET_ACCESS_TOKEN", ""), ("RUN_PIPELINE", "train"), ("BITBUCKET_GIT_HTTP_ORIGIN", "http://bitbucket.org/a/b")],
    &[("BITBUCKET_REPO_UUID", "")],
    &[("RUNNER_TYPE", "windows")],
    &[("RUNNER_LABELS", "gpu,GPU")],
    &[("RUNNER_LABELS", "linux.shell,windows")],
    &[("RUNNER_LABELS", "a,b,c,d,e,f,g,h,i,j,k")],
    &[("RUNNER_IDLE_TIMEOUT", "300")],
    &[("RUNNER_REUSE", "always")],
    &[("RUNNER_ARCHIVE_SHA256", "ab"), ("RUNNER_TYPE", "shell")],
    &[("RUNNER_ARCHIVE", "runner.tar.gz"), ("RUNNER_TYPE", "shell")],
    &[("RUN_PIPELINE", "train"), ("BITBUCKET_BRANCH", "")],
    &[("RUN_PIPELINE", "train"), ("RUN_VARIABLES", "EPOCHS")],
    &[("RUNNER_LABEL", "gpu")],
    &[("INSTANCE_TYPE", "")],
];
