//! What DVC keeps, and the credentials of its remotes.

use super::ConfigReader;
use secrecy::SecretString;
use std::collections::BTreeMap;
use trainspot_base::log::{Secret, is_secret_name};
use trainspot_dvc::{DvcSettings, is_of_remotes};

impl ConfigReader {
    pub(super) fn dvc(&mut self) -> DvcSettings {
        let (outputs, push) = (self.list("DVC_OUTPUTS"), self.switch("DVC_PUSH"));
        if self.missing("OUTPUTS") && outputs.is_empty() && !push && self.publishes() {
            self.problems.add(
                "OUTPUTS",
                "is missing: name the files to commit, or in DVC_OUTPUTS those that DVC is to keep",
            );
        }
        if let Some(glob) = outputs.iter().find(|output| output.contains(['*', '?'])) {
            self.problems.add(
                "DVC_OUTPUTS",
                format!("has the glob '{glob}', but DVC tracks each output by its path; name the files or their folder"),
            );
        }
        let plain = |output: &String| output.trim_start_matches("./").trim_end_matches('/').to_owned();
        let outputs: Vec<String> = outputs.iter().map(plain).collect();
        let committed: Vec<String> = self.list("OUTPUTS").iter().map(plain).collect();
        for (pattern, output) in in_both(&committed, &outputs) {
            let problem = if pattern == output {
                format!("and OUTPUTS both name '{output}'; git or DVC can have it, not both")
            } else {
                format!(
                    "names '{output}', so nothing is left for '{pattern}' of OUTPUTS; git or DVC can have it, not both"
                )
            };
            self.problems.add("DVC_OUTPUTS", problem);
        }
        if outputs.is_empty() && !push && self.some("DVC_REMOTE").is_some() {
            self.warnings.push("DVC_REMOTE has no effect without DVC_OUTPUTS or DVC_PUSH".to_owned());
        }
        let used = !outputs.is_empty() || push;
        let environment = if used { self.of_remotes() } else { BTreeMap::new() };
        let trusted_hosts = self.list("DVC_TRUSTED_HOSTS");
        DvcSettings { outputs, push, remote: self.some("DVC_REMOTE"), environment, trusted_hosts }
    }

    fn of_remotes(&self) -> BTreeMap<String, SecretString> {
        let all = self.environment.0.iter().filter(|(name, value)| is_of_remotes(name) && !value.is_empty());
        all.map(|(name, value)| (name.clone(), value.as_str().into())).collect()
    }
}

/// The patterns that match nothing but what is in an output of DVC's, each with that output.
fn in_both<'a>(patterns: &'a [String], outputs: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    patterns.iter().filter_map(|pattern| {
        let fixed = trainspot_transfer::fixed_part(pattern);
        let output = outputs.iter().find(|output| fixed.starts_with(output))?;
        Some((pattern.as_str(), output.as_str()))
    })
}

/// The credentials among the settings, which the log hides.
pub(in super::super) fn secrets(settings: &DvcSettings) -> impl Iterator<Item = Secret> {
    const NO_SECRETS: [&str; 7] =
        ["REGION", "ENDPOINT", "PROFILE", "_FILE", "HOME", "USER", "SSH_KNOWN_HOSTS"];
    let secret = |name: &str| !NO_SECRETS.iter().any(|word| name.contains(word)) && is_secret_name(name);
    let found = settings.environment.iter().filter(move |(name, _)| secret(name));
    found.map(|(name, value)| Secret::new(name, value.clone()))
}
