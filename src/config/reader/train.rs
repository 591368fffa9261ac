//! How to train.

use super::super::values;
use super::super::variables::Provider;
use super::super::{Cloud, Train};
use super::ConfigReader;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The shortest grace to which `MAX_RUNTIME` cuts `ORPHAN_GRACE`: a lost link takes seconds to come back.
const SHORTEST_GRACE: Duration = Duration::from_secs(30);

impl ConfigReader {
    pub(super) fn train(&mut self) -> Train {
        let cloud = self.cloud();
        let train = Train {
            detach: self.detach(&cloud),
            cloud,
            command: self.text("TRAIN_COMMAND"),
            environment: self.passed_on("TRAIN_ENV"),
            include: self.list("INCLUDE"),
            checkpoints: self.list("CHECKPOINTS"),
            resume: self.switch("RESUME"),
            checkpoint_interval: self.duration("CHECKPOINT_INTERVAL"),
            max_runtime: self.duration("MAX_RUNTIME"),
            step_max_time: Some(self.duration("STEP_MAX_TIME")).filter(|time| !time.is_zero()),
            max_restarts: self.count("MAX_RESTARTS"),
            orphan_grace: self.orphan_grace(),
            machine_environment: self.machine_environment(),
            scratch: PathBuf::from(self.environment.get("TMPDIR").unwrap_or("/tmp")),
        };
        if train.checkpoints.is_empty() && self.chosen("CHECKPOINT_INTERVAL") {
            self.warnings.push("CHECKPOINT_INTERVAL has no effect without CHECKPOINTS".to_owned());
        }
        if train.resume && train.checkpoints.is_empty() {
            self.problems.add("RESUME", "needs CHECKPOINTS, which names the files to go on from");
        }
        if let Cloud::Aws(aws) = &train.cloud {
            self.warn_of_lost_work(aws, &train);
            self.warn_of_keys(&train);
        }
        train
    }

    fn cloud(&mut self) -> Cloud {
        match self.provider {
            Some(Provider::Aws) => Cloud::Aws(Box::new(self.aws())),
            Some(Provider::Local) | None => Cloud::Local,
        }
    }

    /// The grace of `ORPHAN_GRACE`, but at most `MAX_RUNTIME`: a machine that no pipe watches must not live
    /// longer than one that a pipe does.
    pub(super) fn orphan_grace(&mut self) -> Duration {
        let (grace, most) = (self.duration("ORPHAN_GRACE"), self.duration("MAX_RUNTIME").max(SHORTEST_GRACE));
        if grace > most && self.chosen("ORPHAN_GRACE") {
            let most = humantime::format_duration(most);
            self.warnings.push(format!("ORPHAN_GRACE is longer than MAX_RUNTIME, and cut to {most}"));
        }
        grace.min(most)
    }

    /// The variables that a list of `NAME` and `NAME=value` stands for.
    pub(super) fn passed_on(&mut self, list: &'static str) -> BTreeMap<String, SecretString> {
        if let Some(record) = &self.record {
            return self.recorded_training(record);
        }
        let mut environment = BTreeMap::new();
        for item in self.list(list) {
            if let Some((name, value)) = item.split_once('=') {
                environment.insert(name.to_owned(), value.into());
            } else if self.environment.get(&item).is_some() {
                // As it is: the end of a line that `get` leaves out may be part of a key.
                environment.insert(item.clone(), self.environment.0[&item].as_str().into());
            } else if !values::is_no_secret(&item) {
                self.problems.add(
                    list,
                    "has an item that is no variable of the pipe (not shown, because it may be the value of one); write NAME, not $NAME",
                );
            } else {
                self.problems.add(
                    list,
                    format!("names '{item}', which the pipe does not have; map it, as in {item}: ${item}, or write {item}=value"),
                );
            }
        }
        environment
    }

    /// The variables of an allow-list. A variable that is not on it may be a secret, and would be missing on
    /// a rented machine.
    fn machine_environment(&self) -> BTreeMap<String, SecretString> {
        const MACHINE_VARIABLES: [&str; 20] = [
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LANGUAGE",
            "TZ",
            "TMPDIR",
            "VIRTUAL_ENV",
            "LD_LIBRARY_PATH",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "PYENV_ROOT",
            "PYTHONPATH",
        ];
        const MACHINE_PREFIXES: [&str; 6] = ["LC_", "CONDA_", "CUDA_", "NVIDIA_", "PIP_", "XDG_"];
        let described = |name: &str| {
            MACHINE_VARIABLES.iter().any(|known| name.eq_ignore_ascii_case(known))
                || MACHINE_PREFIXES.iter().any(|family| name.starts_with(family))
        };
        let all = self.environment.0.iter().filter(|(name, _)| described(name));
        all.map(|(name, value)| (name.clone(), value.as_str().into())).collect()
    }
}
