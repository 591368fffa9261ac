//! The machine's supervisor. It lives as long as the machine, and needs neither network nor credentials.

use super::checkpoint::{CheckpointWriter, newest};
use super::checkpoint_scheduler::CheckpointScheduler;
use super::command::{TrainingProcess, end_descendants};
use super::detached::Reporter;
use super::ending::remove;
use super::guard::{Guard, power_off};
use super::home::{Home, reserve, write_whole};
use super::interruption::Interruption;
use super::metadata::{self, MetadataEvent};
use super::requests::{self, PendingRequest};
use super::runner::{NextAction, SupervisedRunner};
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_protocol::EndMode;
use trainspot_protocol::{
    AgentCommand, AgentRequest, AgentStatus, CommandExit, CommandSpec, CommandState, ExitReason, Notice,
    Reply,
};

/// How often the training is looked at. A request is answered at once.
const TICK_INTERVAL: Duration = Duration::from_millis(50);
/// A pipe beats every few seconds. After this silence, but while the machine is there, another one may take
/// it over.
const CLAIM_DURATION: Duration = Duration::from_secs(20);
/// What a training may do between SIGTERM and SIGKILL, but no longer than the machine lives without a pipe.
const TERM_GRACE: Duration = Duration::from_secs(15);

/// The options that a supervisor is started with.
pub(super) struct SupervisorOptions {
    /// The machine ends after this much silence.
    pub(super) grace: Duration,
    /// How it ends.
    pub(super) ending: EndMode,
    /// The guard's folder, on a machine that has one.
    pub(super) guard: Option<PathBuf>,
    /// Where the machine's metadata is, if it has any.
    pub(super) metadata: Option<String>,
}

/// Watches over a machine until its end.
///
/// # Errors
/// There is a supervisor already; there is no guard. The machine is then as it was before.
pub(super) fn run(home: &Home, options: SupervisorOptions) -> Result<()> {
    let guard = options.guard.map(Guard::find).transpose()?;
    // A session of its own: neither the pipe's terminal nor the end of its connection can end it.
    rustix::process::setsid().ok();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become a sub-reaper")?;
    // Only now, so that there is never a home without a supervisor.
    home.create()?;
    std::env::set_current_dir(home.run())
        .with_context(|| format!("cannot enter {}", home.run().display()))?;
    // First of all: a second supervisor must touch nothing of the first one's.
    let socket = requests::open()?;
    let log = File::create(home.agent_log()).context("cannot write the supervisor's log")?;
    rustix::stdio::dup2_stderr(&log).context("cannot write the supervisor's log")?;
    let news = options.metadata.as_deref().map(metadata::watch).transpose()?;
    let requests_in = requests::listen(socket)?;
    let mut supervisor = Supervisor::new(home, options.grace, guard);
    let writer = supervisor.watch(&requests_in, news.as_ref());
    end_descendants();
    match options.ending {
        EndMode::Remove => remove(home, writer),
        EndMode::PowerOff => power_off(supervisor.guard.as_ref()),
    }
}

struct Supervisor {
    home: Home,
    grace: Duration,
    guard: Option<Guard>,
    owner: Option<String>,
    last_contact: Instant,
    spec: Option<CommandSpec>,
    training: Option<TrainingProcess>,
    scheduler: Option<CheckpointScheduler>,
    /// The command, if it is a runner.
    runner: Option<SupervisedRunner>,
    /// Who sends what the training leaves, if its pipe goes.
    reporter: Option<Reporter>,
    /// The end of a training whose last checkpoint is being taken: until that is there, it counts as running.
    pending_exit: Option<CommandExit>,
    exit: Option<CommandExit>,
    interruption: Option<Interruption>,
    ending: bool,
}

impl Supervisor {
    fn new(home: &Home, grace: Duration, guard: Option<Guard>) -> Self {
        Self {
            home: home.clone(),
            grace,
            guard,
            owner: None,
            last_contact: Instant::now(),
            spec: None,
            training: None,
            scheduler: None,
            runner: None,
            reporter: None,
            pending_exit: None,
            exit: None,
            interruption: None,
            ending: false,
        }
    }

    /// Watches until the machine's end, and hands back the thread that may still copy a checkpoint.
    fn watch(
        &mut self,
        requests_in: &Receiver<PendingRequest>,
        news: Option<&Receiver<MetadataEvent>>,
    ) -> Option<JoinHandle<CheckpointWriter>> {
        loop {
            self.guard.iter_mut().for_each(Guard::beat_if_due);
            if let Ok((request, client)) = requests_in.recv_timeout(TICK_INTERVAL) {
                let reply = self.answer(request);
                client.answer(&reply).unwrap_or_else(|error| tracing::warn!("{}", error.render()));
            }
            news.into_iter().flat_map(Receiver::try_iter).for_each(|news| self.on_metadata(news));
            self.check_notice();
            self.check_training();
            self.check_last_checkpoint();
            self.check_runner();
            self.check_silence();
            self.check_report();
            if self.ending && self.training.is_none() {
                return self.scheduler.take().and_then(CheckpointScheduler::end);
            }
        }
    }

    fn answer(&mut self, request: AgentRequest) -> Reply {
        if matches!(
            request.command,
            AgentCommand::Status | AgentCommand::Drain | AgentCommand::ResetIdleTimer
        ) && self.owner.as_ref() != Some(&request.owner)
        {
            return self.answer_visitor(&request.command);
        }
        let held = self.owner.as_ref().is_some_and(|owner| *owner != request.owner);
        let held = held && self.runner.as_ref().is_none_or(SupervisedRunner::is_claimed);
        if held && self.last_contact.elapsed() < CLAIM_DURATION.min(self.grace / 2) {
            return Reply::Refused("another run of this step is using the machine".to_owned());
        }
        self.owner = Some(request.owner);
        self.last_contact = Instant::now();
        match request.command {
            AgentCommand::Heartbeat | AgentCommand::Status => {}
            AgentCommand::Stop => self.stop(ExitReason::Stopped),
            AgentCommand::PrepareToEnd(notice) => self.leave(notice),
            AgentCommand::Claim => {
                if !self.runner.as_mut().is_some_and(SupervisedRunner::claim) {
                    return Reply::Refused("the machine's runner is about to go".to_owned());
                }
            }
            AgentCommand::Release => {
                self.runner.iter_mut().for_each(SupervisedRunner::release);
                if let Some(reporter) = &mut self.reporter {
                    reporter.release();
                    self.owner = None;
                }
            }
            AgentCommand::Drain => self.runner.iter_mut().for_each(SupervisedRunner::drain),
            AgentCommand::ResetIdleTimer => {
                self.runner.iter_mut().for_each(SupervisedRunner::reset_idle_timer);
            }
            AgentCommand::RunnerOnline => self.runner.iter_mut().for_each(SupervisedRunner::mark_online),
            AgentCommand::StepFinished(step) => {
                self.runner.iter_mut().for_each(|runner| runner.finish_step(&step));
            }
            AgentCommand::EndMachine => {
                self.stop(ExitReason::Stopped);
                self.ending = true;
            }
            AgentCommand::Start(spec) => {
                if let Err(error) = self.start(*spec) {
                    return Reply::Refused(error.render());
                }
            }
        }
        Reply::Status(Box::new(self.status()))
    }

    /// What somebody asks for who does not want the machine: nobody's hold is touched.
    fn answer_visitor(&mut self, command: &AgentCommand) -> Reply {
        let runner = self.runner.as_mut().filter(|runner| !runner.is_claimed());
        match (command, runner) {
            (AgentCommand::Status, _) => {}
            (AgentCommand::Drain, Some(runner)) => runner.drain(),
            (AgentCommand::ResetIdleTimer, Some(runner)) => runner.reset_idle_timer(),
            _ => return Reply::Refused("a pipe holds the machine".to_owned()),
        }
        Reply::Status(Box::new(self.status()))
    }

    fn status(&self) -> AgentStatus {
        let state = match &self.exit {
            Some(exit) => CommandState::Ended(exit.clone()),
            None if self.training.is_some() || self.pending_exit.is_some() => CommandState::Running,
            None => CommandState::Idle,
        };
        let fingerprint = self.spec.as_ref().map(|spec| spec.fingerprint.clone());
        let notice = self.interruption.as_ref().map(|interruption| interruption.notice().clone());
        let checkpoint_error =
            self.scheduler.as_ref().and_then(|scheduler| scheduler.problem().map(str::to_owned));
        let checkpoint_error = checkpoint_error.or_else(|| self.reporter.as_ref()?.trouble());
        let left_out = self.scheduler.as_ref().and_then(|scheduler| scheduler.left_out().map(str::to_owned));
        let runner = self.runner.as_ref().map(SupervisedRunner::status);
        AgentStatus {
            state,
            fingerprint,
            checkpoint: newest(&self.home),
            checkpoint_error,
            left_out,
            notice,
            runner,
        }
    }

    fn start(&mut self, spec: CommandSpec) -> Result<()> {
        if self.spec.is_some() {
            return Err(Error::new("a training was started on this machine before"));
        }
        reserve(&self.home.exit())?;
        reserve(&self.home.notice())?;
        self.reporter =
            spec.detached.as_ref().map(|detached| Reporter::start(&self.home, detached)).transpose()?;
        let scheduler = (!spec.checkpoints.is_empty()).then(|| CheckpointScheduler::new(&self.home, &spec));
        self.training = Some(TrainingProcess::start(&self.home, &spec)?);
        self.runner =
            spec.runner.as_ref().map(|runner| SupervisedRunner::new(&self.home, runner, spec.max_runtime));
        (self.scheduler, self.spec) = (scheduler, Some(spec));
        Ok(())
    }

    fn term_grace(&self) -> Duration {
        TERM_GRACE.min(self.grace)
    }

    fn stop(&mut self, why: ExitReason) {
        let patience = self.term_grace();
        if let Some(training) = &mut self.training {
            training.stop(why, patience);
        }
    }

    fn on_metadata(&mut self, news: MetadataEvent) {
        match news {
            MetadataEvent::Notice(notice) => self.leave(notice),
            MetadataEvent::Rebalance => self.scheduler.iter_mut().for_each(CheckpointScheduler::request_now),
        }
    }

    /// Takes in a notice, and tells the training of it if it is the first or earlier than the others.
    fn leave(&mut self, notice: Notice) {
        let heard = Interruption::new(notice, Instant::now(), SystemTime::now());
        if let Some(interruption) = &mut self.interruption {
            if !interruption.merge(heard) {
                return;
            }
        } else {
            self.interruption = Some(heard);
        }
        let Some(interruption) = &self.interruption else { return };
        tracing::info!("{}", interruption.notice().why);
        write_whole(&self.home.notice(), interruption.for_training().as_bytes())
            .unwrap_or_else(|error| tracing::warn!("{}", error.render()));
        self.scheduler.iter_mut().for_each(CheckpointScheduler::request_now);
        // A runner that nobody replaces takes no step that would be cut off.
        self.runner.iter_mut().filter(|runner| !runner.is_claimed()).for_each(SupervisedRunner::drain);
    }

    /// Ends the training at the last moment that leaves time for its checkpoint.
    fn check_notice(&mut self) {
        let (now, term_grace) = (Instant::now(), self.term_grace());
        let longest = self.scheduler.as_ref().map(CheckpointScheduler::longest).unwrap_or_default();
        // To a store a checkpoint may take longer than to the disk.
        let longest = longest.max(self.reporter.as_ref().map(Reporter::longest_transfer).unwrap_or_default());
        let (Some(interruption), Some(training), None) =
            (&self.interruption, &mut self.training, &self.runner)
        else {
            // A runner has nothing to save: its step may still come to its end.
            return;
        };
        if interruption.is_last_moment(now, longest) {
            training.stop(ExitReason::Interrupted, interruption.time_to_exit(now, term_grace));
        }
    }

    fn check_training(&mut self) {
        self.record();
        let term_grace = self.term_grace();
        let (Some(training), Some(spec)) = (&mut self.training, &self.spec) else { return };
        if training.started.elapsed() > spec.max_runtime && self.runner.is_none() {
            training.stop(ExitReason::TimedOut, term_grace);
        }
        let over_cost = |reporter: &Reporter| reporter.is_over_cost(training.started.elapsed());
        if self.reporter.as_ref().is_some_and(over_cost) && self.interruption.is_none() {
            self.leave(Notice { why: "MAX_COST is reached".to_owned(), at: None });
            return;
        }
        let Some(reason) = training.reap() else {
            return self.scheduler.iter_mut().for_each(CheckpointScheduler::tick);
        };
        let reason = match reason {
            // It heard of the notice, or of what comes with the machine's end, and gave up by itself.
            ExitReason::Exited(1..) | ExitReason::Signalled(_) if self.interruption.is_some() => {
                ExitReason::Interrupted
            }
            reason => reason,
        };
        let code = if let ExitReason::Exited(code) = reason { Some(code) } else { None };
        self.runner.iter_mut().for_each(|runner| runner.mark_exited(code));
        self.pending_exit = Some(CommandExit { reason, seconds: training.started.elapsed().as_secs_f64() });
        self.training = None;
    }

    /// Ends the runner, and then the machine, when they are not needed any more.
    fn check_runner(&mut self) {
        let Some(runner) = &mut self.runner else { return };
        match runner.tick(Instant::now()) {
            NextAction::Stay => {}
            NextAction::Stop(why) => {
                match &self.training {
                    Some(training) if training.is_stopping() => {}
                    Some(_) => tracing::info!("the runner goes: {}", why.in_words()),
                    // Its program is gone, whatever the log says.
                    None => runner.mark_exited(None),
                }
                self.stop(ExitReason::Stopped);
            }
            NextAction::End => self.ending = true,
        }
    }

    /// Ends a machine that no pipe needs; one with a runner is left to that.
    fn check_silence(&mut self) {
        let is_released = self.reporter.as_ref().is_some_and(Reporter::is_released);
        if is_released || self.last_contact.elapsed() <= self.grace {
            return;
        }
        match &mut self.runner {
            Some(runner) if runner.is_claimed() => runner.release(),
            Some(_) => {}
            None => {
                self.stop(ExitReason::Orphaned);
                self.ending = true;
            }
        }
    }

    /// Tells the one who reports of the status, and ends a machine that is of no more use.
    fn check_report(&mut self) {
        let Some(reporter) = &self.reporter else { return };
        if reporter.is_done() && reporter.is_released() {
            self.ending = true;
        }
        if reporter.is_due() {
            let status = self.status();
            self.reporter.iter_mut().for_each(|reporter| reporter.update(status.clone()));
        }
    }

    /// Tells of the training's end, once the last checkpoint of one that is to go on elsewhere is there.
    fn check_last_checkpoint(&mut self) {
        let Some(exit) = &self.pending_exit else { return };
        let over =
            self.interruption.as_ref().is_some_and(|interruption| interruption.is_over(Instant::now()));
        if let (ExitReason::Interrupted, Some(scheduler)) = (exit.reason, &mut self.scheduler) {
            if over {
                // It comes too late. The one before it is complete.
                scheduler.abandon();
            } else if !scheduler.finish() {
                return;
            }
        }
        self.exit = self.pending_exit.take();
        self.record();
    }

    /// Writes the training's end beside its log. Whoever follows the log waits for it, so a disk that is full
    /// is asked again at every tick.
    fn record(&self) {
        let Some(exit) = &self.exit else { return };
        if !self.home.exit().exists() {
            let bytes = serde_json::to_vec(exit).context("cannot record the training's end");
            bytes
                .and_then(|bytes| write_whole(&self.home.exit(), &bytes))
                .unwrap_or_else(|error| tracing::warn!("{}", error.render()));
        }
    }
}
