//! Self-hosted runners.

use std::time::{Duration, Instant};

/// A self-hosted runner.
#[derive(Clone, Debug)]
pub struct Runner {
    /// Its id, in braces.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// `UNREGISTERED`, `ONLINE`, `OFFLINE`, `DISABLED` or `UNHEALTHY`.
    pub status: String,
    /// Whether it belongs to the workspace, not to the repository.
    pub of_workspace: bool,
    /// The id of its OAuth client.
    pub oauth_id: String,
    /// The secret of its OAuth client, which is told once.
    pub oauth_secret: String,
    /// The id of the step that it runs.
    pub step: Option<String>,
    pub(crate) heard: Instant,
}

impl Runner {
    /// The `number`th runner, newly registered.
    pub(crate) fn new(number: usize, name: &str, labels: &[String], of_workspace: bool) -> Self {
        Self {
            uuid: format!("{{00000000-0000-4000-8000-{number:012}}}"),
            name: name.into(),
            labels: labels.into(),
            status: "UNREGISTERED".into(),
            of_workspace,
            oauth_id: format!("fake-oauth-id-{number}"),
            oauth_secret: format!("fake-oauth-secret-{number}"),
            step: None,
            heard: Instant::now(),
        }
    }

    /// Whether it would take a step with these labels. One that names no platform wants Linux and Docker.
    pub(crate) fn takes(&self, labels: &[String]) -> bool {
        let platforms = ["linux", "linux.arm64", "linux.shell", "windows", "macos"];
        let any = labels.iter().any(|label| platforms.contains(&&**label));
        self.status == "ONLINE"
            && labels.iter().all(|label| self.labels.contains(label))
            && (any || self.labels.iter().any(|label| label == "linux"))
    }

    /// Whether its program has not been heard of for so long that it counts as gone.
    pub(crate) fn is_silent(&self, silence: Duration) -> bool {
        self.status == "ONLINE" && self.heard.elapsed() > silence
    }
}
