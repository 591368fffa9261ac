//! A runner as the work of machines: registered, started on each, online, and what is run on it.

use super::child::Child;
use crate::config::Config;
use crate::config::runner::{Program, RunnerSettings};
use crate::job::{
    AttemptEnd, ConnectedMachine, Cost, Job, TRANSFER_RETRY, Workload, ask_until_answered, judge_transfer,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::Secret;
use trainspot_base::log::lines::Lines;
use trainspot_base::log::progress::in_words;
use trainspot_base::mutex::lock;
use trainspot_base::retry::retry;
use trainspot_bitbucket::{Client, NewRegistration, NewRunner, RegistrationStatus, Scope};
use trainspot_compute::link::{Agent, AskError, Link};
use trainspot_compute::{Compute, Machine};
use trainspot_protocol::runner_log::Phase;
use trainspot_protocol::{AgentCommand, AgentStatus, CommandSpec, CommandState, Registry, RunnerActivity};

const DOCKER_SCRIPT: &str = concat!(include_str!("machine.sh"), include_str!("docker.sh"));
const SHELL_SCRIPT: &str = concat!(include_str!("machine.sh"), include_str!("shell.sh"));

/// The wait between two questions to the machine. They cost nothing.
const AGENT_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The wait between two questions to Bitbucket once the runner's log says that the runner is online.
const ONLINE_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The wait between two questions to Bitbucket before that.
const BITBUCKET_POLL_INTERVAL: Duration = Duration::from_secs(15);
/// Of the runner's own log, in an error.
const LAST_LINES: usize = 10;

/// A runner that machines are rented for.
pub(super) struct Serving<'a> {
    pub(super) config: &'a Config,
    pub(super) runner: &'a RunnerSettings,
    pub(super) bitbucket: &'a Client,
    pub(super) new: NewRunner,
    pub(super) spec: CommandSpec,
    /// What is run on it.
    pub(super) child: Option<Child<'a>>,
    pub(super) began: Instant,
    /// The runner that was registered before there is a machine for it.
    pub(super) registered: RefCell<Option<NewRegistration>>,
}

/// What came of it.
pub(super) struct Served {
    /// The last words of the run, or why it has failed although the machine is not ended.
    pub(super) words: Result<String>,
    /// Whether all of it is over: the runner is of no use any more, and the cost is known.
    pub(super) is_over: bool,
}

impl<C: Compute> Workload<C> for Serving<'_> {
    type Done = Served;

    const STOPPED_MESSAGE: &'static str =
        "stopped while a machine was rented as a runner, or a pipeline ran on it";
    const PROGRESS_WORDS: &'static str = "";
    const RESTART_HINT: &'static str = "";

    fn fingerprint(&self) -> &str {
        &self.spec.fingerprint
    }

    /// Another pipeline's step may run there. A pipeline of this step's own is ended with its machine.
    fn must_not_terminate(&self, status: Option<&AgentStatus>) -> Option<Error> {
        let runner = status.map(|status| status.runner.as_ref());
        let busy = match runner {
            Some(runner) => runner.is_some_and(|runner| matches!(runner.phase, Phase::Busy(_))),
            None => self.child.is_none(),
        };
        let what = if runner.is_some() { "has a step" } else { "may have a step, and cannot be asked" };
        busy.then(|| {
            Error::new(format!("the runner of an earlier try of this step, {}, {what}", self.new.name()))
                .kind(Kind::Machine)
                .hint("run the step again when that runner is gone: it ends itself when it is idle")
        })
    }

    async fn run_on(&self, job: &Job<'_, C>, reached: &ConnectedMachine<C>) -> Result<AttemptEnd<Served>> {
        let agent = &reached.agent;
        let status = ask_until_answered(agent, AgentCommand::Heartbeat).await?;
        match (status.state, status.runner) {
            // What ran there has nothing to go on with.
            (CommandState::Ended(_), _) => {
                return Ok(AttemptEnd::MachineLost(Error::new("its runner has ended")));
            }
            (CommandState::Idle, _) => {
                if let Some(child) = &self.child {
                    // It may have come to its end when its machine did.
                    if let Some(words) = child.has_succeeded().await? {
                        return Ok(AttemptEnd::Done(Served { words: Ok(words), is_over: true }));
                    }
                    child.stop().await?;
                }
                self.start(agent).await?;
            }
            (_, Some(_)) => match agent.ask(AgentCommand::Claim).await {
                Err(AskError::Refused(why)) => return Ok(AttemptEnd::MachineLost(Error::new(why))),
                held => drop(held?),
            },
            (_, None) => return Err(Error::new("the machine has no runner").kind(Kind::Machine)),
        }
        let online = self.online(agent).await;
        if let Some(notice) = ask_until_answered(agent, AgentCommand::Heartbeat).await?.notice {
            return Ok(AttemptEnd::Interrupted(notice.why));
        }
        online?;
        let name = self.new.name();
        let Some(child) = &self.child else {
            ask_until_answered(agent, AgentCommand::Release).await?;
            let idle = in_words(self.runner.idle);
            info!("the machine ends itself {idle} after the runner's last step");
            let words = Ok(format!("the runner {name} is online"));
            return Ok(AttemptEnd::HandedOver(Served { words, is_over: false }));
        };
        child.start().await?;
        let is_over = async |step: &str| drop(agent.ask(AgentCommand::StepFinished(step.to_owned())).await);
        let outcome = child.follow(is_over, || self.must_stop(job)).await?;
        let verdict = child.verdict(&outcome);
        let status = match (agent.ask(AgentCommand::Heartbeat).await, &verdict) {
            // What was done is done, wherever the machine is.
            (Err(_), Ok(words)) => {
                return Ok(AttemptEnd::Done(Served { words: Ok(words.clone()), is_over: true }));
            }
            // A machine that is gone does not answer; that it is lost, its provider tells.
            (Err(_), Err(_)) => ask_until_answered(agent, AgentCommand::Heartbeat).await?,
            (Ok(status), _) => status,
        };
        if let (Err(error), Some(notice)) = (&verdict, status.notice) {
            warn!("{}", error.render());
            return Ok(AttemptEnd::Interrupted(notice.why));
        }
        let running = status.runner.map(|runner| runner.phase);
        match (verdict, running) {
            // Labels are no reservation.
            (verdict, Some(Phase::Busy(step))) if !child.is(&step.pipeline) => {
                warn!("the runner has a step of another pipeline: its machine ends after that");
                ask_until_answered(agent, AgentCommand::Drain).await?;
                Ok(AttemptEnd::HandedOver(Served { words: verdict, is_over: false }))
            }
            (Ok(words), _) => Ok(AttemptEnd::Done(Served { words: Ok(words), is_over: true })),
            (Err(error), _) => Ok(AttemptEnd::Failed(error)),
        }
    }

    async fn fetch_checkpoint(&self, _: &Agent<C::Link>, _: &Machine, _: u64) -> Result<bool> {
        Ok(false)
    }

    fn on_machine_lost(&self, cost: Option<Cost>) {
        let cost = cost.map_or_else(String::new, |cost| format!(" (so far {})", cost.in_words()));
        let what = self.child.as_ref().map(|child| format!("pipeline {}", child.name()));
        warn!("the {} begins again{cost}", what.unwrap_or_else(|| "runner".to_owned()));
    }

    fn progress(&self) -> u64 {
        0
    }

    fn time_left(&self) -> Duration {
        self.runner.max_runtime.saturating_sub(self.began.elapsed())
    }

    fn salvage(&self, error: Error) -> Error {
        error
    }
}

impl Serving<'_> {
    /// Why the pipeline is to be stopped, if it is.
    fn must_stop<C: Compute>(&self, job: &Job<'_, C>) -> Option<Error> {
        let (limit, name) = (self.runner.max_runtime, self.child.as_ref().map(Child::name)?);
        if self.began.elapsed() >= limit {
            let what = format!("the pipeline {name} was stopped after MAX_RUNTIME ({})", in_words(limit));
            return Some(Error::new(what).kind(Kind::Training).hint("raise MAX_RUNTIME"));
        }
        job.is_over_max_cost().then(|| job.max_cost_error())
    }

    /// Puts the runner on Bitbucket's list, in the place of one of an earlier machine. That costs nothing
    /// yet, and shows whether it may be done.
    pub(super) async fn register(&self) -> Result<()> {
        self.unregister().await?;
        let registered = self.bitbucket.register_runner(self.runner.level, &self.new).await?;
        *self.registered.borrow_mut() = Some(registered);
        Ok(())
    }

    /// Starts the runner's program on the machine.
    async fn start<L: Link>(&self, agent: &Agent<L>) -> Result<()> {
        let level = self.runner.level;
        if self.registered.borrow().is_none() {
            self.register().await?;
        }
        let registered = self.registered.take().ok_or_else(|| Error::new("no runner was registered"))?;
        let (runner, oauth) = (registered.runner, registered.oauth);
        trainspot_base::log::hide([Secret::new("OAUTH_CLIENT_SECRET", oauth.secret.clone())]);
        info!("registered the runner {} with the labels {}", runner.name, self.new.labels().join(", "));
        let mut spec = self.spec.clone();
        let pipeline = &self.config.pipeline;
        let account = pipeline.repo_owner_uuid.clone();
        let repository = pipeline.repo_uuid.clone().filter(|_| level == Scope::Repository);
        let variables = [
            ("ACCOUNT_UUID", account),
            ("REPOSITORY_UUID", repository),
            ("RUNNER_UUID", Some(runner.uuid.clone())),
            ("OAUTH_CLIENT_ID", Some(oauth.id)),
        ];
        let given = variables.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        spec.environment.extend(given);
        spec.environment.insert("OAUTH_CLIENT_SECRET".to_owned(), oauth.secret);
        spec.runner = Some(Box::new(trainspot_protocol::RunnerSpec {
            uuid: runner.uuid,
            idle_timeout: self.runner.idle,
            single_step: self.runner.single && self.child.is_none(),
            registry: self.registry(),
        }));
        let start = async |number| {
            // The answer alone may have been lost.
            if number > 1
                && ask_until_answered(agent, AgentCommand::Heartbeat).await?.state != CommandState::Idle
            {
                return Ok(());
            }
            agent.ask(AgentCommand::Start(Box::new(spec.clone()))).await.map(drop).map_err(Error::from)
        };
        retry(TRANSFER_RETRY, async |number| judge_transfer(start(number).await, number)).await
    }

    fn registry(&self) -> Option<Registry> {
        let (config, token) = (self.config, self.runner.token.clone()?);
        Some(Registry {
            api_url: config.bitbucket.api_url.clone(),
            workspace: config.pipeline.workspace.clone()?,
            repo_slug: config.pipeline.repo_slug.clone()?,
            of_workspace: self.runner.level == Scope::Workspace,
            token,
        })
    }

    /// Returns once Bitbucket says that the runner is online: until then a step that is for it fails at once.
    async fn online<L: Link>(&self, agent: &Agent<L>) -> Result<()> {
        let log = Mutex::new(Lines::new(Instant::now()));
        let mut show = |line: &str| info!("runner: {line}");
        let showing = async {
            let mut offset = 0;
            loop {
                let take = &mut |bytes: &[u8]| lock(&log).feed(bytes, Instant::now(), &mut show);
                if let Err(error) = agent.follow(&mut offset, take).await {
                    debug!("following the runner's log again: {}", chain(&error));
                }
                tokio::time::sleep(AGENT_POLL_INTERVAL).await;
            }
        };
        let waited = tokio::select! {
            never = showing => never,
            waited = self.until_online(agent) => waited,
        };
        waited.map_err(|error| {
            let mut log = lock(&log);
            log.finish(Instant::now(), &mut show);
            let tail = log.tail();
            let last = &tail[tail.len().saturating_sub(LAST_LINES)..];
            if last.is_empty() || error.exit_kind() != Kind::Machine {
                error
            } else {
                error.source(format!("\n{}", last.join("\n")))
            }
        })
    }

    async fn until_online<L: Link>(&self, agent: &Agent<L>) -> Result<()> {
        let start = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            let status = ask_until_answered(agent, AgentCommand::Heartbeat).await?;
            let ended = matches!(status.state, CommandState::Ended(_));
            let runner = status.runner.ok_or_else(|| Error::new("the machine has no runner"))?;
            if ended || matches!(runner.phase, Phase::Gone(_) | Phase::Unhealthy) {
                // Its last words may be on their way.
                tokio::time::sleep(AGENT_POLL_INTERVAL).await;
                return Err(never_online("its program ended", &runner));
            }
            let wait = if matches!(runner.phase, Phase::Starting) {
                BITBUCKET_POLL_INTERVAL
            } else {
                ONLINE_POLL_INTERVAL
            };
            if asked.is_none_or(|asked| asked.elapsed() >= wait) {
                asked = Some(Instant::now());
                match self.bitbucket.runner(self.runner.level, &runner.uuid).await? {
                    Some(seen) if seen.status == RegistrationStatus::Online => {
                        ask_until_answered(agent, AgentCommand::RunnerOnline).await?;
                        let seconds = start.elapsed().as_secs_f64();
                        info!("the runner is online ({seconds:.1} s)");
                        return Ok(());
                    }
                    Some(seen) => debug!("Bitbucket says of the runner: {:?}", seen.status),
                    None => return Err(never_online("Bitbucket does not know it any more", &runner)),
                }
            }
            let patience = self.runner.aws.boot_timeout;
            if start.elapsed() >= patience {
                let why = format!("Bitbucket did not see it within BOOT_TIMEOUT ({})", in_words(patience));
                return Err(never_online(&why, &runner));
            }
            tokio::time::sleep(AGENT_POLL_INTERVAL).await;
        }
    }

    /// Stops the pipeline, if one runs. That it cannot be stopped is told.
    pub(super) async fn stop_child(&self) {
        if let Some(child) = &self.child
            && let Err(error) = child.stop().await
        {
            warn!("{}", error.render());
        }
    }

    /// Takes the runner of this name off Bitbucket's list. Its machine, if it had one, is gone.
    pub(super) async fn unregister(&self) -> Result<()> {
        let level = self.runner.level;
        let named = self.bitbucket.runners_of(level).await?.into_iter();
        for runner in named.filter(|runner| runner.name == self.new.name()) {
            self.bitbucket.delete_runner(level, &runner.uuid).await?;
        }
        Ok(())
    }
}

fn never_online(why: &str, runner: &RunnerActivity) -> Error {
    let error = Error::new(format!("the runner did not come online: {why}")).kind(Kind::Machine);
    let error = error.hint(
        "see the runner's own words; it needs a way out to Bitbucket, and to where its program comes from",
    );
    match &runner.complaint {
        Some(complaint) => error.source(complaint.clone()),
        None => error,
    }
}

/// What machines run for a runner. The fingerprint tells this runner from another one that the step once
/// wanted.
pub(super) fn spec(config: &Config, runner: &RunnerSettings, labels: &[String]) -> CommandSpec {
    let (command, variables) = match &runner.program {
        Program::Docker { image } => (DOCKER_SCRIPT, vec![("RUNNER_IMAGE", image.clone())]),
        Program::Shell { archive, sha256 } => {
            let sha256 = sha256.iter().map(|sha256| ("RUNNER_ARCHIVE_SHA256", sha256.clone()));
            (SHELL_SCRIPT, [("RUNNER_ARCHIVE", archive.clone())].into_iter().chain(sha256).collect())
        }
    };
    let environment: BTreeMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let parts = format!(
        "{command} {environment:?} {labels:?} {:?} {:?} {} {:?} {:?}",
        runner.level, runner.idle, runner.single, runner.max_runtime, config.pipeline.repo_uuid
    );
    CommandSpec {
        fingerprint: blake3::hash(parts.as_bytes()).to_hex().to_string(),
        command: command.to_owned(),
        environment: environment.into_iter().map(|(name, value)| (name, value.into())).collect(),
        max_runtime: runner.max_runtime,
        checkpoints: Vec::new(),
        checkpoint_interval: Duration::ZERO,
        resume: false,
        runner: None,
        detached: None,
    }
}

#[cfg(test)]
mod tests;
