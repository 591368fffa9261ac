//! A machine as a runner of Bitbucket's.

use super::Requirement::{Default, Optional};
use super::ValueKind::{Branch, Choice, Each, Environment, One, Switch, Text, Url};
use super::{Action, HOUR_SECONDS, Requirement, ValueKind, ValueShape, VariableSpec, seconds, variable};

const fn runner(
    name: &'static str,
    kind: ValueKind,
    requirement: Requirement,
    help: &'static str,
) -> VariableSpec {
    variable(name, kind, requirement, &[Action::Runner], help)
}

pub(super) const RUNNER_VARIABLES: &[VariableSpec] = &[
    runner(
        "RUNNER_LABELS",
        Each(ValueShape::Label),
        Optional,
        "Labels of the runner, as the steps that it is for name them in `runs-on`. `self.hosted` and the platform's are added.",
    ),
    runner(
        "RUNNER_TYPE",
        Choice(&["docker", "shell"]),
        Default("docker"),
        "`docker` runs steps in containers (label `linux`, or `linux.arm64`); `shell` runs them on the machine itself, GPU included (label `linux.shell`).",
    ),
    runner(
        "RUNNER_SCOPE",
        Choice(&["repository", "workspace"]),
        Default("repository"),
        "Whose steps the runner takes: this repository's, or the whole workspace's.",
    ),
    runner(
        "RUNNER_IDLE_TIMEOUT",
        seconds(1, 24 * HOUR_SECONDS),
        Default("5m"),
        "A runner that has had no step for this time goes, and its machine with it.",
    ),
    runner("RUNNER_SINGLE", Switch, Default("false"), "Whether the runner goes after one step."),
    runner(
        "RUNNER_REUSE",
        Choice(&["never", "idle", "any"]),
        Default("never"),
        "Whether a runner with the same labels that is online is used instead of a new one: `idle` if it has no step, `any` also if it has.",
    ),
    runner(
        "RUNNER_IMAGE",
        Text,
        Default("docker-public.packages.atlassian.com/sox/atlassian/bitbucket-pipelines-runner:5.6.0"),
        "The image of Atlassian's runner, for `RUNNER_TYPE: docker`. With `@sha256:…` at its end no other image is taken.",
    ),
    runner(
        "RUNNER_ARCHIVE",
        Url,
        Default(
            "https://product-downloads.atlassian.com/software/bitbucket/pipelines/atlassian-bitbucket-pipelines-runner-5.7.0.tar.gz",
        ),
        "The archive of Atlassian's runner, for `RUNNER_TYPE: shell`.",
    ),
    runner(
        "RUNNER_ARCHIVE_SHA256",
        One(ValueShape::Sha256),
        Optional,
        "The SHA-256 of that archive. A machine unpacks no other one. Without it, any archive that the address gives is taken.",
    ),
    VariableSpec {
        secret: true,
        ..runner(
            "RUNNER_ACCESS_TOKEN",
            Text,
            Optional,
            "A token that the machine itself gets, with the scopes `runner:write` and `pipeline`: it takes its runner off Bitbucket's list when it goes. Without it, `ACTION: sweep` does that. Steps on the machine can read it.",
        )
    },
    runner(
        "RUN_PIPELINE",
        Text,
        Optional,
        "A custom pipeline to run once the runner is online. The pipe shows its steps' logs, ends with its result, and runs it again when the machine is taken away.",
    ),
    runner(
        "RUN_BRANCH",
        Branch,
        Optional,
        "The branch to run it on. Default: the pipeline's own, at the pipeline's commit.",
    ),
    runner(
        "RUN_VARIABLES",
        Environment,
        Optional,
        "Variables that it gets: `NAME` passes on the pipe's own variable, `NAME=value` sets one. Those whose names say so are secured.",
    ),
];
