//! A machine on this one, reached by its real agent: for tests of what is below a whole run.

use crate::support::{agents, is_late, memory_kib, patience, processes_with};
use rustix::process::Pid;
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trainspot_agent::{Home, end_all};
use trainspot_compute::link::local::LocalLink;
use trainspot_compute::link::{Agent, AskError, Link};
use trainspot_compute::local::LocalCompute;
use trainspot_compute::{Compute as _, LaunchRequest, Machine, RunId};
use trainspot_protocol::EndMode;
use trainspot_protocol::{AgentCommand, AgentStatus, CommandExit, CommandSpec, CommandState};

/// Nothing here takes longer, on a slow machine either; one that is busy gets more.
const LONG: Duration = Duration::from_secs(30);

/// A machine. What is left of it is killed when this is dropped.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) compute: LocalCompute,
    pub(crate) machine: Machine,
}

impl Rig {
    /// Launches a machine that ends itself after `grace` seconds of silence.
    pub(crate) async fn new(grace: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let compute = LocalCompute {
            program: PathBuf::from(env!("CARGO_BIN_EXE_trainspot")),
            root: folder.path().join("machines"),
            environment: BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap().into())]),
            detached: std::sync::Arc::default(),
        };
        let request = launch_request(grace);
        let machine = compute.launch(&request).await.unwrap();
        compute.connect(&machine, &request).await.unwrap();
        Self { folder, compute, machine }
    }

    /// A machine that powers itself off, as a rented one does, with these flags beside the usual ones.
    ///
    /// Whatever could power off the machine that runs the tests is out of its reach: its `PATH` leads to
    /// scripts that write down how they were called (see [`Rig::calls`]).
    pub(crate) async fn rented(grace: u64, flags: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        for name in ["sudo", "systemctl", "poweroff"] {
            let script = format!("#!/bin/sh\necho {name} \"$@\" >> '{}/calls'\n", folder.path().display());
            std::fs::write(programs.join(name), script).unwrap();
            std::fs::set_permissions(programs.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        let environment = [("PATH", programs.to_str().unwrap()), ("http_proxy", "http://127.0.0.1:9")];
        let compute = LocalCompute {
            program: PathBuf::from(env!("CARGO_BIN_EXE_trainspot")),
            root: folder.path().join("machines"),
            environment: environment.map(|(name, value)| (name.to_owned(), value.into())).into(),
            detached: std::sync::Arc::default(),
        };
        let machine = Machine {
            id: "rented".to_owned(),
            description: String::new(),
            pool: None,
            spot: false,
            rate: None,
            age: Duration::ZERO,
        };
        let rig = Self { folder, compute, machine };
        #[allow(clippy::zombie_processes, reason = "it is this machine, which the end of the test kills")]
        let _ = rig.supervise(grace, flags).spawn().unwrap();
        rig.compute.connect(&rig.machine, &launch_request(grace)).await.unwrap();
        rig
    }

    /// A supervisor of this machine, ready to be started.
    pub(crate) fn supervise(&self, grace: u64, flags: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.compute.program);
        command.args(["agent", "supervise", "--home"]).arg(self.home().path());
        command.args(["--grace", &grace.to_string(), "--ending", EndMode::PowerOff.as_str()]);
        command.args(flags.iter().flat_map(|(name, value)| [name, value]));
        let environment = &self.compute.environment;
        command.env_clear().envs(environment.iter().map(|(name, value)| (name, value.expose_secret())));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// How the machine tried to power itself off.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// The agent of a pipe that started this training.
    pub(crate) async fn train(&self, spec: CommandSpec) -> Agent<LocalLink> {
        let agent = self.agent("test").await;
        agent.ask(AgentCommand::Start(Box::new(spec))).await.unwrap();
        agent
    }

    /// A machine on which this command runs, and the agent of the pipe that started it.
    pub(crate) async fn training(grace: u64, spec: CommandSpec) -> (Self, Agent<LocalLink>) {
        let rig = Self::new(grace).await;
        let agent = rig.train(spec).await;
        (rig, agent)
    }

    pub(crate) async fn agent(&self, owner: &str) -> Agent<LocalLink> {
        Agent::new(self.compute.connect(&self.machine, &launch_request(0)).await.unwrap(), owner)
    }

    pub(crate) fn home(&self) -> Home {
        Home::new(self.compute.root.join(&self.machine.id))
    }

    /// A new folder beside the machine.
    pub(crate) fn aside(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The process ids of this machine's agents of one verb.
    pub(crate) fn agents(&self, verb: &str) -> Vec<Pid> {
        agents(self.home().path().to_str().unwrap(), verb)
    }

    /// The most memory that an agent of this verb has used so far, in KiB; 0 if there is none.
    pub(crate) fn peak(&self, verb: &str) -> u64 {
        let peak = |pid: &Pid| {
            let kib = |figure| memory_kib(pid.as_raw_nonzero(), figure);
            // Without the program's own pages, of which a debug build has many.
            Some(kib("VmHWM")?.saturating_sub(kib("RssFile")?))
        };
        self.agents(verb).iter().filter_map(peak).max().unwrap_or(0)
    }

    /// Fails unless nothing of the machine is left, nor any process that names `marks`, within `limit`.
    pub(crate) async fn assert_gone_within(&self, limit: Duration, marks: &[&str]) {
        let start = Instant::now();
        let home = self.home().path().to_str().unwrap().to_owned();
        loop {
            let marks = marks.iter().copied().chain([home.as_str()]);
            let processes: Vec<_> = marks.flat_map(processes_with).collect();
            let folder = self.home().path().exists();
            if processes.is_empty() && !folder {
                return;
            }
            assert!(!is_late(start, limit), "after {limit:?}: folder: {folder}, processes: {processes:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the machine as a pipe does, at once.
    pub(crate) async fn end(&self) {
        let ended = tokio::time::timeout(patience(LONG), self.compute.terminate(&self.machine));
        ended.await.unwrap().unwrap();
        self.assert_gone_within(Duration::ZERO, &[]).await;
    }
}

fn launch_request(grace: u64) -> LaunchRequest {
    LaunchRequest {
        run: RunId::new(&["test"]),
        orphan_grace: Duration::from_secs(grace),
        max_runtime: Duration::from_mins(5),
        avoid: Vec::new(),
        spot_now: false,
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let start = Instant::now();
        while end_all(&self.home()) && start.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A training of this command, without limits that matter.
pub(crate) fn spec(command: &str) -> CommandSpec {
    CommandSpec {
        fingerprint: "f".to_owned(),
        command: command.to_owned(),
        environment: BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap().into())]),
        max_runtime: Duration::from_hours(1),
        checkpoints: Vec::new(),
        checkpoint_interval: Duration::from_hours(1),
        resume: false,
        runner: None,
        detached: None,
    }
}

/// Asks until `wanted` is there.
pub(crate) async fn until<T>(agent: &Agent<impl Link>, wanted: impl Fn(&AgentStatus) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        let status = agent.ask(AgentCommand::Heartbeat).await.unwrap();
        if let Some(found) = wanted(&status) {
            return found;
        }
        assert!(!is_late(start, LONG), "still {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for the training's end.
pub(crate) async fn ended(agent: &Agent<impl Link>) -> CommandExit {
    until(agent, |status| match &status.state {
        CommandState::Ended(exit) => Some(exit.clone()),
        _ => None,
    })
    .await
}

/// Does `work` while the machine hears from the pipe.
pub(crate) async fn beating<T>(agent: &Agent<impl Link>, work: impl Future<Output = T>) -> T {
    let beat = async {
        loop {
            if let Err(AskError::Refused(why)) = agent.ask(AgentCommand::Heartbeat).await {
                panic!("{why}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! { done = work => done, () = beat => unreachable!() }
}

/// Waits until there is this file.
pub(crate) async fn exists(path: PathBuf) {
    let start = Instant::now();
    while !path.exists() {
        assert!(!is_late(start, LONG), "{} does not come", path.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
