//! Machines that are no more than their answers.

use super::super::*;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use trainspot_compute::link::{Link, RunningVerb, VerbExit};
use trainspot_compute::{MachineStatus, Pool, Rate, RunId};
use trainspot_protocol::{
    AgentCommand, AgentRequest, AgentStatus, CommandExit, CommandState, ExitReason, Notice, Reply,
};
use trainspot_transfer::{BundleHeader, BundleSender, FileStability, find};

/// What a machine does when its training is started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// The training ends well after a minute.
    Trains,
    /// The link works no more after 10 s, and its provider says this.
    Vanishes(&'static str),
    /// The notice comes after 10 s, the end 20 s later, with a checkpoint.
    IsTaken,
    /// The machine tells of the same notice and the same end, but nobody takes it.
    LiesOfItsEnd,
    /// The training goes on whatever it is told.
    HeedsNothing,
    /// Its provider alone says after 10 s that it is about to take the machine, which does not know
    /// of that.
    IsLeaving,
    /// The training goes on until it is told to leave.
    GoesOn,
    /// Nobody gets in.
    NeverBoots,
    /// Its provider takes it after 10 s, without a notice.
    IsReclaimed,
    /// Another pipe holds it.
    IsHeld,
    /// Its provider takes it after 30 s of its boot.
    IsTakenAtBoot,
    /// It takes ten minutes to boot, and then nobody gets in.
    BootsSlowly,
    /// It is paid for on demand, takes a checkpoint every 100 s, and its training ends well after ten
    /// minutes.
    OnDemand,
}

#[derive(Clone)]
pub(super) struct Server {
    fate: Fate,
    started: Option<Instant>,
    /// When the machine was told to leave, and until when it has.
    pub(super) leaving: Option<(Instant, Option<u64>)>,
    pub(super) resumed: bool,
    ended: bool,
    /// Signs of life before its training was started.
    pub(super) idle_beats: u32,
}

#[derive(Default)]
pub(super) struct World {
    /// Machines that were left to themselves.
    left: Vec<usize>,
    fates: Vec<Fate>,
    pub(super) servers: Vec<Server>,
    /// Verbs and calls that fail once, in this order.
    failing: Vec<&'static str>,
    /// How long the provider takes for each call that ends or removes something, or finds out what there is
    /// to end.
    pub(super) ending_takes: Duration,
    /// All that was done, in order.
    done: Vec<String>,
}

/// The provider, and with a number also the way to one of its machines.
#[derive(Clone)]
pub(super) struct Fake {
    pub(super) world: Arc<Mutex<World>>,
    number: usize,
}

impl Fake {
    pub(super) fn new(fates: &[Fate], failing: &[&'static str]) -> Self {
        let world = World { fates: fates.to_vec(), failing: failing.to_vec(), ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), number: 0 }
    }

    fn fails(&self, what: &str) -> bool {
        let failing = &mut self.world.lock().unwrap().failing;
        let fails = failing.first() == Some(&what);
        if fails {
            failing.remove(0);
        }
        fails
    }

    pub(super) fn done(&self) -> Vec<String> {
        self.world.lock().unwrap().done.clone()
    }

    async fn take_time(&self) {
        let time = self.world.lock().unwrap().ending_takes;
        tokio::time::sleep(time).await;
    }

    fn note(&self, what: String) {
        self.world.lock().unwrap().done.push(what);
    }

    fn answer(&self, request: &AgentRequest) -> Option<Reply> {
        let mut world = self.world.lock().unwrap();
        let server = &mut world.servers[self.number];
        match &request.command {
            AgentCommand::Start(spec) => {
                (server.started, server.resumed) = (Some(Instant::now()), spec.resume);
            }
            AgentCommand::PrepareToEnd(notice) => server.leaving = Some((Instant::now(), notice.at)),
            AgentCommand::EndMachine => {
                let number = self.number;
                world.done.push(format!("end {number}"));
                return None;
            }
            _ => {}
        }
        if server.fate == Fate::IsHeld {
            return Some(Reply::Refused("another run of this step is using the machine".to_owned()));
        }
        let age = server.started.map_or(0, |started| started.elapsed().as_secs());
        server.idle_beats +=
            u32::from(server.started.is_none() && matches!(request.command, AgentCommand::Heartbeat));
        if matches!(server.fate, Fate::Vanishes(_) | Fate::IsReclaimed) && age >= 10 || server.ended {
            return None;
        }
        let (how, seconds) = match server.fate {
            Fate::IsTaken | Fate::LiesOfItsEnd if age >= 30 => (Some(ExitReason::Interrupted), 30.0),
            Fate::GoesOn | Fate::IsLeaving | Fate::OnDemand if server.leaving.is_some() => {
                (Some(ExitReason::Interrupted), 60.0)
            }
            Fate::OnDemand if age >= 600 => (Some(ExitReason::Exited(0)), 600.0),
            Fate::Trains if age >= 60 => (Some(ExitReason::Exited(0)), 60.0),
            _ => (None, 0.0),
        };
        let state = match (server.started, how) {
            (None, _) => CommandState::Idle,
            (_, Some(how)) => CommandState::Ended(CommandExit { reason: how, seconds }),
            _ => CommandState::Running,
        };
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 20;
        let noticed = matches!(server.fate, Fate::IsTaken | Fate::LiesOfItsEnd) && age >= 10;
        let notice = noticed.then(|| Notice { why: "no spot capacity".to_owned(), at: Some(at) });
        let regular = if server.fate == Fate::OnDemand { age / 100 } else { 0 };
        let newest = regular + u64::from(how == Some(ExitReason::Interrupted));
        let checkpoint = (newest > 0).then_some(newest);
        Some(Reply::Status(Box::new(AgentStatus { checkpoint, notice, ..AgentStatus::with_state(state) })))
    }

    async fn serve(
        self,
        verb: String,
        mut input: tokio::io::DuplexStream,
        mut output: tokio::io::DuplexStream,
    ) {
        match verb.as_str() {
            "ask" => {
                let mut request = Vec::new();
                input.read_to_end(&mut request).await.unwrap();
                let reply = self.answer(&serde_json::from_slice(&request).unwrap());
                if let Some(reply) = reply {
                    output.write_all(&serde_json::to_vec(&reply).unwrap()).await.ok();
                }
            }
            "pack-checkpoint" => {
                let folder = tempfile::tempdir().unwrap();
                std::fs::write(folder.path().join("epoch"), "7").unwrap();
                let entries = find(folder.path(), &["**".to_owned()]).unwrap().files;
                let header = BundleHeader { entries, unmatched: Vec::new() };
                let mut bundle = Vec::new();
                BundleSender { root: folder.path(), files: FileStability::Final, progress: &mut |_| {} }
                    .send(&header, &mut bundle)
                    .unwrap();
                output.write_all(&bundle).await.unwrap();
            }
            "follow" => {
                output.write_all(b"fitting\n").await.ok();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            _ => drop(input.read_to_end(&mut Vec::new()).await),
        }
    }
}

impl Link for Fake {
    async fn agent(&self, verb: &str, _: &[(&str, String)]) -> Result<RunningVerb> {
        if self.fails(verb) {
            return Err(Error::new("the link is down").transient());
        }
        if matches!(verb, "unpack" | "commit") {
            self.note(format!("{verb} {}", self.number));
        }
        let ((input, far_input), (output, far_output)) =
            (tokio::io::duplex(1 << 20), tokio::io::duplex(1 << 20));
        let served = tokio::spawn(self.clone().serve(verb.to_owned(), far_input, far_output));
        let finished = async {
            served.await.unwrap();
            Ok(VerbExit { success: true, stderr_tail: String::new() })
        };
        Ok(RunningVerb {
            input: Some(Box::pin(input)),
            output: Some(Box::pin(output)),
            exit: Box::pin(finished),
        })
    }
}

/// The number in a machine's id.
pub(crate) fn number(machine: &Machine) -> usize {
    machine.id.trim_start_matches('m').parse().unwrap()
}

pub(super) fn machine(number: usize) -> Machine {
    let pool = Pool { zone: "z".to_owned(), instance_type: format!("t{number}") };
    let rate = Rate { machine: 60.0, on_demand: None, extras: 0.0 };
    Machine {
        id: format!("m{number}"),
        description: "fake".to_owned(),
        pool: Some(pool),
        spot: true,
        rate: Some(rate),
        age: Duration::ZERO,
    }
}

impl Server {
    /// Whether its provider took it.
    fn is_gone(&self) -> bool {
        self.ended
            || self.started.is_some_and(|started| match self.fate {
                Fate::IsTaken => started.elapsed().as_secs() >= 30,
                Fate::IsReclaimed => started.elapsed().as_secs() >= 10,
                _ => false,
            })
    }
}

impl Compute for Fake {
    type Link = Self;

    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<Machine> {
        let mut world = self.world.lock().unwrap();
        let number = world.servers.len();
        let avoid: Vec<_> = request.avoid.iter().map(|pool| pool.instance_type.as_str()).collect();
        let which = if request.spot_now { "spot now".to_owned() } else { format!("not {avoid:?}") };
        world.done.push(format!("launch {number} {which}"));
        // One machine at a time is all that the quota allows.
        if request.spot_now && world.failing.first() == Some(&"spot now") {
            world.failing.remove(0);
            return Err(Error::new("no capacity"));
        }
        if world.failing == ["quota"] && world.servers.iter().any(|server| !server.is_gone()) {
            return Err(Error::new("the quota is used up"));
        }
        let Some(&fate) = world.fates.get(number) else { return Err(Error::new("no capacity")) };
        world.servers.push(Server {
            fate,
            started: None,
            leaving: None,
            resumed: false,
            ended: false,
            idle_beats: 0,
        });
        Ok(Machine { spot: fate != Fate::OnDemand, ..machine(number) })
    }

    async fn find(&self, _: &RunId) -> Result<Vec<Machine>> {
        let world = self.world.lock().unwrap();
        Ok((0..world.servers.len()).filter(|number| !world.servers[*number].ended).map(machine).collect())
    }

    async fn launched_by_this_process(&self, run: &RunId) -> Result<Vec<Machine>> {
        self.take_time().await;
        let found = self.find(run).await?;
        let world = self.world.lock().unwrap();
        let ours = |found: &Machine| {
            let number = number(found);
            world.servers[number].fate != Fate::IsHeld && !world.left.contains(&number)
        };
        Ok(found.into_iter().filter(ours).collect())
    }

    async fn connect(&self, machine: &Machine, _: &LaunchRequest) -> Result<Self> {
        let link = Self { number: number(machine), ..self.clone() };
        let fate = link.world.lock().unwrap().servers[link.number].fate;
        if fate == Fate::IsTakenAtBoot {
            tokio::time::sleep(Duration::from_secs(30)).await;
            return Err(Error::new("it is terminated"));
        }
        if fate == Fate::BootsSlowly {
            tokio::time::sleep(Duration::from_mins(10)).await;
            return Err(Error::new("no answer at its address"));
        }
        if fate == Fate::NeverBoots { Err(Error::new("no answer at its address")) } else { Ok(link) }
    }

    async fn status(&self, machine: &Machine) -> Result<MachineStatus> {
        let server = self.world.lock().unwrap().servers[number(machine)].clone();
        Ok(match server.fate {
            Fate::IsTakenAtBoot => MachineStatus::Reclaimed("no spot capacity".to_owned()),
            Fate::IsReclaimed if server.is_gone() => MachineStatus::Reclaimed("no spot capacity".to_owned()),
            // Some seconds after the last checkpoint was taken.
            Fate::IsTaken if server.started.is_some_and(|at| at.elapsed().as_secs() >= 40) => {
                MachineStatus::Reclaimed("no spot capacity".to_owned())
            }
            Fate::IsLeaving if server.started.is_some_and(|at| at.elapsed().as_secs() >= 10) => {
                MachineStatus::InterruptionNotice("no spot capacity".to_owned())
            }
            Fate::Vanishes(why)
                if !why.is_empty() && server.started.is_some_and(|at| at.elapsed().as_secs() >= 10) =>
            {
                MachineStatus::Gone(why.to_owned())
            }
            _ => MachineStatus::Running,
        })
    }

    async fn terminate(&self, machine: &Machine) -> Result<()> {
        self.take_time().await;
        if self.fails("terminate") {
            return Err(Error::new("access denied"));
        }
        let mut world = self.world.lock().unwrap();
        world.servers[number(machine)].ended = true;
        world.done.push(format!("terminate {}", number(machine)));
        Ok(())
    }

    async fn detach(&self, machine: &Machine, _: &RunId) -> Result<()> {
        self.note(format!("hand over {}", number(machine)));
        self.world.lock().unwrap().left.push(number(machine));
        Ok(())
    }

    async fn delete_run_resources(&self, _: &RunId) -> Result<()> {
        self.take_time().await;
        self.note("clean".to_owned());
        Ok(())
    }
}
