//! Bitbucket's list of runners, as the machine may change it: on threads of their own, since the watch must
//! not wait.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;
use trainspot_base::error::{Context as _, Error, Result, chain};
use trainspot_base::retry::RetryPolicy;
use trainspot_bitbucket::{Client, Credential, Patience, Scope};
use trainspot_protocol::Registry;
use trainspot_protocol::runner_log::StepId;

/// How long Bitbucket is waited for: the machine costs money meanwhile.
const BITBUCKET_PATIENCE: Patience = Patience {
    rate_limit: Duration::ZERO,
    request: Duration::from_secs(10),
    attempts: RetryPolicy {
        attempts: 4,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(5),
        total: Duration::from_secs(40),
    },
};

/// A runner's entry at Bitbucket.
pub(super) struct Registrar {
    registry: Registry,
    uuid: String,
}

/// Something that is being done. A failure is logged, and counts as the type's default.
pub(super) struct Task<T>(Receiver<T>);

impl<T: Default> Task<T> {
    /// The result of the task, once, as soon as there is one.
    pub(super) fn poll(&mut self) -> Option<T> {
        match self.0.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(T::default()),
        }
    }
}

impl Registrar {
    pub(super) fn new(registry: Registry, uuid: &str) -> Self {
        Self { registry, uuid: uuid.to_owned() }
    }

    /// Asks Bitbucket to give the runner no more steps. The result is whether Bitbucket agreed.
    pub(super) fn disable(&self) -> Task<bool> {
        let (uuid, level) = (self.uuid.clone(), self.level());
        self.start("disable the runner", async move |client| match client.runner(level, &uuid).await? {
            Some(runner) => client.disable_runner(level, &runner).await,
            None => Ok(true),
        })
    }

    pub(super) fn delete(&self) -> Task<()> {
        let (uuid, level) = (self.uuid.clone(), self.level());
        self.start("delete the runner", async move |client| client.delete_runner(level, &uuid).await)
    }

    /// Whether a step is over, as far as Bitbucket tells.
    pub(super) fn is_over(&self, step: &StepId) -> Task<bool> {
        let plain = |id: &str| id.trim_matches(['{', '}']).to_owned();
        let (pipeline, step) = (plain(&step.pipeline), plain(&step.step));
        self.start("look up the step", async move |client| {
            client.step_is_over(&pipeline, &step).await.map(|over| over == Some(true))
        })
    }

    fn level(&self) -> Scope {
        if self.registry.of_workspace { Scope::Workspace } else { Scope::Repository }
    }

    fn start<T: Default + Send + 'static>(
        &self,
        what: &'static str,
        call: impl AsyncFnOnce(Client) -> Result<T> + Send + 'static,
    ) -> Task<T> {
        let (sender, receiver) = channel();
        let registry = self.registry.clone();
        let work = move || {
            let done = connect(&registry).and_then(|(runtime, client)| runtime.block_on(call(client)));
            let done = done.unwrap_or_else(|error: Error| {
                tracing::warn!("cannot {what}: {}", chain(&error));
                T::default()
            });
            // Nobody may wait for it any more.
            sender.send(done).ok();
        };
        if let Err(error) = thread::Builder::new().spawn(work) {
            tracing::warn!("cannot {what}: {error}");
        }
        Task(receiver)
    }
}

fn connect(registry: &Registry) -> Result<(tokio::runtime::Runtime, Client)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let credential = Credential::AccessToken(registry.token.clone());
    let Registry { api_url, workspace, repo_slug, .. } = registry;
    let client = Client::new(api_url, workspace, repo_slug, credential)?.with_patience(BITBUCKET_PATIENCE);
    Ok((runtime.context("cannot start")?, client))
}
