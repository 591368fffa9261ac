//! A machine as a runner of Bitbucket's.

use super::super::BitbucketSettings;
use super::super::runner::{Program, Reuse, RunPipeline, RunnerSettings};
use super::ConfigReader;
use trainspot_base::log::{Secret, is_secret_name};
use trainspot_bitbucket::{Credential, NewRunner, Platform, Scope, StepVariables};

impl ConfigReader {
    pub(super) fn runner(
        &mut self,
        pipeline: &StepVariables,
        bitbucket: &BitbucketSettings,
    ) -> RunnerSettings {
        self.refuse_detached_runner();
        let aws = self.aws();
        let program = self.program();
        self.check_labels(program.platform());
        self.check_access(pipeline, bitbucket);
        RunnerSettings {
            aws,
            program,
            labels: self.list("RUNNER_LABELS"),
            level: self.level(),
            idle: self.duration("RUNNER_IDLE_TIMEOUT"),
            single: self.switch("RUNNER_SINGLE"),
            reuse: {
                let all = [("never", Reuse::Never), ("idle", Reuse::Idle), ("any", Reuse::Any)];
                self.choice("RUNNER_REUSE", &all, Reuse::Never)
            },
            token: self.secret("RUNNER_ACCESS_TOKEN"),
            max_runtime: self.duration("MAX_RUNTIME"),
            max_restarts: self.count("MAX_RESTARTS"),
            orphan_grace: self.orphan_grace(),
            run: self.run_pipeline(pipeline),
        }
    }

    fn level(&self) -> Scope {
        let all = Scope::ALL.map(|level| (level.name(), level));
        self.choice("RUNNER_SCOPE", &all, Scope::Repository)
    }

    fn program(&mut self) -> Program {
        let shell = self.choice("RUNNER_TYPE", &[("docker", false), ("shell", true)], false);
        let others: &[_] =
            if shell { &["RUNNER_IMAGE"] } else { &["RUNNER_ARCHIVE", "RUNNER_ARCHIVE_SHA256"] };
        let kind = self.text("RUNNER_TYPE");
        let idle: Vec<_> = others.iter().filter(|other| self.chosen(other)).collect();
        self.warnings
            .extend(idle.iter().map(|other| format!("{other} has no effect with RUNNER_TYPE '{kind}'")));
        if shell {
            let (archive, sha256) = (self.text("RUNNER_ARCHIVE"), self.some("RUNNER_ARCHIVE_SHA256"));
            Program::Shell { archive, sha256 }
        } else {
            Program::Docker { image: self.text("RUNNER_IMAGE") }
        }
    }

    fn check_labels(&mut self, platform: Platform) {
        let wrong = NewRunner::faults(platform, &self.list("RUNNER_LABELS"));
        if !wrong.is_empty() {
            self.problems.add("RUNNER_LABELS", format!("are not what Bitbucket takes: {}", wrong.join("; ")));
        }
    }

    fn check_access(&mut self, pipeline: &StepVariables, bitbucket: &BitbucketSettings) {
        let parts = [
            ("BITBUCKET_WORKSPACE", pipeline.workspace.is_some()),
            ("BITBUCKET_REPO_SLUG", pipeline.repo_slug.is_some()),
            ("BITBUCKET_REPO_OWNER_UUID", pipeline.repo_owner_uuid.is_some()),
            ("BITBUCKET_REPO_UUID", pipeline.repo_uuid.is_some()),
        ];
        for (name, _) in parts.into_iter().filter(|(_, given)| !given) {
            self.problems
                .add(name, "is missing: Pipelines sets it; set it yourself to try the pipe elsewhere");
        }
        if !matches!(bitbucket.credential, Some(Credential::AccessToken(_) | Credential::ApiToken { .. }))
            && self.missing("BITBUCKET_ACCESS_TOKEN")
        {
            let scopes = if self.missing("RUN_PIPELINE") {
                "the scope runner:write"
            } else {
                "the scopes runner:write and pipeline:write"
            };
            self.problems.add(
                "BITBUCKET_ACCESS_TOKEN",
                format!("is missing: a runner is registered with an access token that has {scopes}"),
            );
        }
    }

    fn run_pipeline(&mut self, pipeline: &StepVariables) -> Option<RunPipeline> {
        let Some(name) = self.some("RUN_PIPELINE") else {
            for name in ["RUN_BRANCH", "RUN_VARIABLES"] {
                if self.chosen(name) || self.chosen(&format!("{name}_COUNT")) {
                    self.warnings.push(format!("{name} has no effect without RUN_PIPELINE"));
                }
            }
            return None;
        };
        if self.switch("RUNNER_SINGLE") {
            self.warnings.push(
                "RUNNER_SINGLE has no effect with RUN_PIPELINE, which ends the machine itself".to_owned(),
            );
        }
        let branch = self.some("RUN_BRANCH");
        let own = branch.is_none() || branch == pipeline.branch;
        let Some(branch) = branch.or_else(|| pipeline.branch.clone()) else {
            if self.missing("RUN_BRANCH") {
                self.problems.add(
                    "RUN_BRANCH",
                    "is missing: this pipeline is on no branch that RUN_PIPELINE could run on",
                );
            }
            return None;
        };
        let variables = self.passed_on("RUN_VARIABLES");
        Some(RunPipeline { name, branch, own_commit: own, variables })
    }
}

/// The variables of the other pipeline whose names say that they are secret.
pub(super) fn secrets(runner: &RunnerSettings) -> impl Iterator<Item = Secret> {
    let variables = runner.run.iter().flat_map(|run| &run.variables);
    let secret = variables.filter(|(name, _)| is_secret_name(name));
    secret.map(|(name, value)| Secret::new(name, value.clone()))
}
