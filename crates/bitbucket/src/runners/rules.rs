//! What Bitbucket takes as a runner's name and labels, checked before a machine is rented for it.

use crate::fitting;
use trainspot_base::error::{Error, Kind, Result};

/// The longest name or label of a runner that Bitbucket takes, in characters.
const LABEL_LIMIT_CHARS: usize = 50;
/// The most labels that Bitbucket takes beside its own.
const LABELS_LIMIT: usize = 10;
/// The label that every runner of one's own carries.
const SELF_HOSTED_LABEL: &str = "self.hosted";
/// Bitbucket's own labels for a runner's platform; each runner has one of them.
const PLATFORM_LABELS: [&str; 5] = ["linux", "linux.arm64", "linux.shell", "windows", "macos"];

/// What runs a runner's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// A Docker engine on x86-64. Its steps' containers see no GPU.
    LinuxDocker,
    /// A Docker engine on 64-bit ARM.
    LinuxDockerArm,
    /// Bash on the machine itself, GPU included.
    LinuxShell,
}

impl Platform {
    /// Its label; a step without one of these in `runs-on` wants [`Platform::LinuxDocker`].
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LinuxDocker => "linux",
            Self::LinuxDockerArm => "linux.arm64",
            Self::LinuxShell => "linux.shell",
        }
    }
}

/// A runner to register, within Bitbucket's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRunner {
    name: String,
    labels: Vec<String>,
}

impl NewRunner {
    /// A runner that is found by `name`, which must be of this run alone: of one that is too long for
    /// Bitbucket (50 characters), the end becomes a hash. `labels` are those of the steps that it is for;
    /// Bitbucket's own (`self.hosted` and the platform's) may be among them, as in a step's `runs-on`, and
    /// are added if they are not.
    ///
    /// # Errors
    /// Every label against the rules is named, with the rule.
    pub fn new(name: &str, platform: Platform, labels: &[String]) -> Result<Self> {
        let mut wrong = Self::faults(platform, labels);
        if name.is_empty() || name.chars().any(char::is_control) {
            wrong.push(format!("{name:?} is no name for a runner"));
        }
        if wrong.is_empty() {
            return Ok(Self { name: fitting(name, LABEL_LIMIT_CHARS), labels: all(platform, labels) });
        }
        let message = format!("the runner's labels are not what Bitbucket takes: {}", wrong.join("; "));
        Err(Error::new(message).kind(Kind::Configuration).hint(
            "RUNNER_LABELS are the labels of the step's runs-on: lower-case letters, digits and dots, such as gpu.train",
        ))
    }

    /// What is wrong with labels, in words for each.
    #[must_use]
    pub fn faults(platform: Platform, labels: &[String]) -> Vec<String> {
        let mut wrong: Vec<String> = labels.iter().filter_map(|label| fault(label, platform)).collect();
        let own = all(platform, labels).len() - system(platform).len();
        if own > LABELS_LIMIT {
            wrong.push(format!("{own} are too many: Bitbucket takes {LABELS_LIMIT}"));
        }
        wrong
    }

    /// Its name, as Bitbucket will list it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All its labels, Bitbucket's own first.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }
}

fn system(platform: Platform) -> [&'static str; 2] {
    [SELF_HOSTED_LABEL, platform.label()]
}

/// Each label once, Bitbucket's own first.
fn all(platform: Platform, labels: &[String]) -> Vec<String> {
    let mut all: Vec<String> = system(platform).map(str::to_owned).into();
    for label in labels {
        if !all.contains(label) {
            all.push(label.clone());
        }
    }
    all
}

/// What is wrong with a label.
fn fault(label: &str, platform: Platform) -> Option<String> {
    if let Some(fault) = label_fault(label) {
        return Some(if label.is_empty() { fault } else { format!("{label:?} {fault}") });
    }
    let other = PLATFORM_LABELS.contains(&label) && label != platform.label();
    other.then(|| format!("{label} is the label of another kind of runner: this one is {}", platform.label()))
}

/// What is wrong with a label on any runner.
#[must_use]
pub fn label_fault(label: &str) -> Option<String> {
    let fits = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '.');
    if label.is_empty() {
        return Some("one is empty".to_owned());
    }
    if !label.chars().all(fits) {
        return Some("may hold only lower-case letters, digits and dots".to_owned());
    }
    let length = label.len();
    (length > LABEL_LIMIT_CHARS).then(|| format!("has {length} characters, {LABEL_LIMIT_CHARS} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(platform: Platform, labels: &[&str]) -> Result<Vec<String>, String> {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let new = NewRunner::new("trainspot", platform, &labels);
        new.map(|new| new.labels).map_err(|error| error.render())
    }

    #[test]
    fn bitbuckets_own_labels_are_there_once_and_first() {
        let expected = ["self.hosted", "linux.shell", "gpu.train", "a1"];
        let shell = Platform::LinuxShell;
        assert_eq!(labels(shell, &["gpu.train", "a1"]).unwrap(), expected);
        assert_eq!(
            labels(shell, &["gpu.train", "self.hosted", "linux.shell", "a1", "a1"]).unwrap(),
            expected
        );
        assert_eq!(labels(Platform::LinuxDocker, &[]).unwrap(), ["self.hosted", "linux"]);
        assert_eq!(labels(Platform::LinuxDockerArm, &[]).unwrap(), ["self.hosted", "linux.arm64"]);
    }

    #[test]
    fn labels_against_the_rules_are_all_named() {
        let long = "l".repeat(51);
        let error = labels(Platform::LinuxDocker, &["GPU", "", "a b", "ü", &long, "linux.shell", "fine"]);
        let error = error.unwrap_err();
        for part in
            [r#""GPU" may hold"#, "one is empty", r#""a b""#, r#""ü""#, "51 characters", "linux.shell is the"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("fine"), "{error}");
        assert!(error.contains("RUNNER_LABELS"), "{error}");
    }

    #[test]
    fn ten_labels_and_fifty_characters_are_the_most() {
        let many: Vec<String> = (0..11).map(|number| format!("l{number}")).collect();
        assert!(NewRunner::new("n", Platform::LinuxDocker, &many[..10]).is_ok());
        let error = NewRunner::new("n", Platform::LinuxDocker, &many).unwrap_err();
        assert!(error.render().contains("11 are too many"), "{}", error.render());
        assert!(labels(Platform::LinuxDocker, &[&"l".repeat(50)]).is_ok());
        let name = NewRunner::new(&"n".repeat(60), Platform::LinuxDocker, &[]).unwrap().name;
        assert_eq!(name.len(), 50);
        assert!(NewRunner::new("", Platform::LinuxDocker, &[]).is_err());
        assert!(NewRunner::new("a\nb", Platform::LinuxDocker, &[]).is_err());
    }
}
