//! A machine as a runner of Bitbucket's.

use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::Duration;
use trainspot_bitbucket::{Platform, Scope};
use trainspot_compute::aws::AwsSettings;

/// What machine to rent as which runner.
#[derive(Debug)]
pub struct RunnerSettings {
    /// The machine.
    pub aws: AwsSettings,
    /// What runs on it.
    pub program: Program,
    /// The labels of the steps that it is for, besides Bitbucket's own.
    pub labels: Vec<String>,
    /// Whose steps it takes.
    pub level: Scope,
    /// It goes after this much time without a step.
    pub idle: Duration,
    /// It goes after one step.
    pub single: bool,
    /// When a runner that is there will do.
    pub reuse: Reuse,
    /// The machine's own token.
    pub token: Option<SecretString>,
    /// It gets no step after this time.
    pub max_runtime: Duration,
    /// How often a lost machine is replaced, where a pipeline is run.
    pub max_restarts: u32,
    /// A machine without a runner ends itself after this long without a word from the pipe.
    pub orphan_grace: Duration,
    /// What to run on it.
    pub run: Option<RunPipeline>,
}

/// Which of Atlassian's programs the runner is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Steps run in containers; the image of the runner itself.
    Docker {
        /// Its name, with a tag.
        image: String,
    },
    /// Steps run on the machine; the archive of the runner.
    Shell {
        /// Its address.
        archive: String,
        /// The SHA-256 that it must have, in lower case; any will do without one.
        sha256: Option<String>,
    },
}

impl Program {
    /// What it is to Bitbucket, on a machine of this program's own architecture.
    #[must_use]
    pub fn platform(&self) -> Platform {
        match self {
            Self::Shell { .. } => Platform::LinuxShell,
            Self::Docker { .. } if std::env::consts::ARCH == "aarch64" => Platform::LinuxDockerArm,
            Self::Docker { .. } => Platform::LinuxDocker,
        }
    }
}

/// When a runner that is there will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Never.
    Never,
    /// If it is online and has no step.
    Idle,
    /// If it is online.
    Any,
}

/// A custom pipeline to run.
#[derive(Debug)]
pub struct RunPipeline {
    /// Its name below `custom:`.
    pub name: String,
    /// On which branch.
    pub branch: String,
    /// Whether at the pipeline's own commit; else at the branch's newest.
    pub own_commit: bool,
    /// Its variables, values included.
    pub variables: BTreeMap<String, SecretString>,
}
