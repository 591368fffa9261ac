//! A provider whose spot machines live as long as the trace says, and the agents on them.

use super::traces::{Trace, Zone};
use crate::job::tests::number;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use trainspot_agent::interruption::Interruption;
use trainspot_base::clock::stated_fraction;
use trainspot_base::error::{Error, Result};
use trainspot_compute::aws::Purchase;
use trainspot_compute::link::{Link, RunningVerb, VerbExit};
use trainspot_compute::{Compute, LaunchRequest, Machine, MachineStatus, Pool, Rate, RunId};
use trainspot_ec2::rounds::{CapacityType, PoolHistory};
use trainspot_ec2::rounds::{Market, Rounds};
use trainspot_protocol::{AgentCommand, AgentRequest, AgentStatus, CommandState, Notice, Reply};

/// What EC2 gives between the notice and the end.
const NOTICE: f64 = 120.0;
/// How long the training takes to save and end once it is told to.
pub(super) const SAVING: f64 = 5.0;
/// A supervisor answers at once. This one waits until there is news, or for so long, which saves most of the
/// beats.
const LONGEST_ANSWER: f64 = 12.0;
/// What the pipe's beats add until it has heard of news.
const HEARING: f64 = 1.0;

/// One machine, with its times in seconds of the trace; `gone` is infinite for one on demand.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) launched: f64,
    pub(super) gone: f64,
    up: f64,
    /// When its training began, and how far it was.
    pub(super) started: Option<(f64, f64)>,
    /// When it was told to leave.
    told: Option<f64>,
    pub(super) ended: Option<f64>,
}

impl Server {
    /// When its training is stopped, by the notice or by the pipe.
    pub(super) fn stop(&self) -> f64 {
        let told = self.told.unwrap_or(f64::INFINITY);
        if self.gone.is_infinite() { told } else { told.min(last_moment(self.gone)) }
    }

    /// How much of the work is done at a moment.
    pub(super) fn done_at(&self, at: f64) -> f64 {
        self.started.map_or(0.0, |(started, done)| done + (at.min(self.stop()) - started).max(0.0))
    }

    pub(super) fn end(&self) -> f64 {
        self.ended.unwrap_or(f64::INFINITY).min(self.gone)
    }
}

/// The last moment of a training on a machine that is gone then, as the agent's own code has it.
fn last_moment(gone: f64) -> f64 {
    let (now, noticed) = (std::time::Instant::now(), (gone - NOTICE).max(0.0));
    let at = UNIX_EPOCH + stated_fraction(noticed);
    let notice = Notice { why: String::new(), at: Some(gone as u64) };
    let interruption = Interruption::new(notice, now, at);
    let last = |second: &u64| {
        interruption.is_last_moment(now + Duration::from_secs(*second), stated_fraction(SAVING))
    };
    noticed + (0..=NOTICE as u64).find(last).unwrap() as f64
}

/// The state of the world.
pub(super) struct World {
    start: Instant,
    /// The moment of the trace when it began.
    offset: f64,
    pub(super) servers: Vec<Server>,
    random: fastrand::Rng,
}

/// The provider, and with a number also the way to one of its machines.
#[derive(Clone)]
pub(super) struct Provider {
    world: Arc<Mutex<World>>,
    pub(super) news: Arc<Notify>,
    trace: &'static Trace,
    zones: Arc<Vec<Zone>>,
    rounds: Rounds,
    interval: f64,
    number: usize,
}

impl Provider {
    pub(super) fn new(
        (trace, zones): (&'static Trace, Arc<Vec<Zone>>),
        rounds: Rounds,
        interval: f64,
        (offset, seed): (f64, u64),
    ) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let world = World { start: Instant::now(), offset, servers: Vec::new(), random };
        let (world, news) = (Arc::new(Mutex::new(world)), Arc::default());
        Self { world, news, trace, zones, rounds, interval, number: 0 }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn now(&self) -> f64 {
        let world = self.world();
        world.offset + world.start.elapsed().as_secs_f64()
    }

    pub(super) async fn until(&self, at: f64) {
        let (start, offset) = {
            let world = self.world();
            (world.start, world.offset)
        };
        sleep_until(start + stated_fraction((at - offset).clamp(0.0, 1e9))).await;
    }

    pub(super) fn server(&self, machine: &Machine) -> Server {
        self.world().servers[number(machine)].clone()
    }

    pub(super) fn start(&self, machine: &Machine, done: f64) {
        let now = self.now();
        self.world().servers[number(machine)].started = Some((now, done));
    }

    fn launch_in(&self, zone: Option<usize>) -> Machine {
        let now = self.now();
        let mut world = self.world();
        let down = zone.and_then(|zone| self.zones[zone].down_after(now));
        // A machine is never taken before its notice could come.
        let gone = down.map_or(f64::INFINITY, |down| down.max(now + NOTICE).ceil());
        let up = now + 60.0 + 90.0 * world.random.f64();
        let server = Server { launched: now, gone, up, started: None, told: None, ended: None };
        world.servers.push(server);
        let zones = &self.zones;
        let zone_name = zone.map_or_else(|| zones[0].name.clone(), |zone| zones[zone].name.clone());
        let (spot, on_demand) = (self.trace.spot, self.trace.on_demand);
        let price = if zone.is_some() { spot } else { on_demand };
        Machine {
            id: format!("m{}", world.servers.len() - 1),
            description: String::new(),
            pool: Some(Pool { zone: zone_name, instance_type: self.trace.instance_type.to_owned() }),
            spot: zone.is_some(),
            rate: Some(Rate { machine: price, on_demand: Some(on_demand), extras: self.trace.extras }),
            age: Duration::ZERO,
        }
    }

    /// The checkpoints that the machine has taken at its interval.
    fn checkpoints(&self, server: &Server, now: f64) -> u64 {
        let trained = server.started.map_or(0.0, |(started, _)| now.min(server.stop()) - started - SAVING);
        (trained / self.interval).max(0.0) as u64
    }

    async fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let request: AgentRequest = serde_json::from_slice(request).unwrap();
        let before = self.now();
        match request.command {
            AgentCommand::PrepareToEnd(notice) if notice.at.is_none() => {
                self.world().servers[self.number].told.get_or_insert(before);
                self.news.notify_waiters();
            }
            AgentCommand::Heartbeat => {
                let server = self.world().servers[self.number].clone();
                let next = self.checkpoints(&server, before) + 1;
                let next = server
                    .started
                    .map_or(f64::INFINITY, |(started, _)| started + SAVING + next as f64 * self.interval);
                let notice = server.gone - NOTICE;
                let news = [next, notice, server.gone].into_iter().filter(|at| *at > before);
                let news = news.fold(f64::INFINITY, f64::min) + HEARING;
                self.until(news.min(before + LONGEST_ANSWER)).await;
            }
            _ => {}
        }
        let now = self.now();
        let server = self.world().servers[self.number].clone();
        if now >= server.end() {
            return None;
        }
        let checkpoint = Some(self.checkpoints(&server, now)).filter(|number| *number > 0);
        let notice = (now >= server.gone - NOTICE)
            .then(|| Notice { why: "no capacity".to_owned(), at: Some(server.gone as u64) });
        let status = AgentStatus { checkpoint, notice, ..AgentStatus::with_state(CommandState::Running) };
        Some(serde_json::to_vec(&Reply::Status(Box::new(status))).unwrap())
    }
}

impl Link for Provider {
    async fn agent(&self, _: &str, _: &[(&str, String)]) -> Result<RunningVerb> {
        let ((input, mut far_input), (output, mut far_output)) =
            (tokio::io::duplex(4096), tokio::io::duplex(4096));
        let link = self.clone();
        let finished = async move {
            let mut request = Vec::new();
            far_input.read_to_end(&mut request).await.unwrap();
            if let Some(reply) = link.answer(&request).await {
                far_output.write_all(&reply).await.ok();
            }
            Ok(VerbExit { success: true, stderr_tail: String::new() })
        };
        Ok(RunningVerb {
            input: Some(Box::pin(input)),
            output: Some(Box::pin(output)),
            exit: Box::pin(finished),
        })
    }
}

/// One search's view of the trace.
struct Search<'a> {
    provider: &'a Provider,
    avoid: &'a [Pool],
}

impl Market for Search<'_> {
    type Machine = Machine;

    fn begin_round(&mut self) {}

    fn has_asked(&self) -> bool {
        true
    }

    async fn attempt(&mut self, pass: PoolHistory, mode: CapacityType, _: usize) -> Option<Machine> {
        if mode == CapacityType::OnDemand {
            return Some(self.provider.launch_in(None));
        }
        let (now, zones) = (self.provider.now(), &self.provider.zones);
        let lost = |zone: &Zone| self.avoid.iter().any(|pool| pool.zone == zone.name);
        let fits = |zone: &Zone| zone.is_up(now) && lost(zone) == (pass == PoolHistory::Lost);
        zones.iter().position(fits).map(|zone| self.provider.launch_in(Some(zone)))
    }
}

impl Compute for Provider {
    type Link = Self;

    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn launch(&self, launch_request: &LaunchRequest) -> Result<Machine> {
        let rounds = if launch_request.spot_now {
            Rounds { purchase: Purchase::Spot, capacity_wait: Duration::ZERO, ..self.rounds }
        } else {
            self.rounds
        };
        let mut search = Search { provider: self, avoid: &launch_request.avoid };
        rounds.run(&mut search).await.map_err(|why| Error::new(format!("no machine: {why:?}")))
    }

    async fn find(&self, _: &RunId) -> Result<Vec<Machine>> {
        Ok(Vec::new())
    }

    async fn launched_by_this_process(&self, _: &RunId) -> Result<Vec<Machine>> {
        let servers = self.world().servers.clone();
        let alive = servers.iter().enumerate().filter(|(_, server)| server.ended.is_none());
        let machine = |(number, _)| Machine {
            id: format!("m{number}"),
            description: String::new(),
            pool: None,
            spot: true,
            rate: None,
            age: Duration::ZERO,
        };
        Ok(alive.map(machine).collect())
    }

    async fn connect(&self, machine: &Machine, _: &LaunchRequest) -> Result<Self> {
        let server = self.server(machine);
        self.until(server.up.min(server.gone)).await;
        if server.gone <= server.up {
            return Err(Error::new("it is gone"));
        }
        Ok(Self { number: number(machine), ..self.clone() })
    }

    async fn status(&self, machine: &Machine) -> Result<MachineStatus> {
        let gone = self.now() >= self.server(machine).gone;
        Ok(if gone { MachineStatus::Reclaimed("no capacity".to_owned()) } else { MachineStatus::Running })
    }

    async fn terminate(&self, machine: &Machine) -> Result<()> {
        let now = self.now();
        self.world().servers[number(machine)].ended.get_or_insert(now);
        Ok(())
    }

    async fn detach(&self, _: &Machine, _: &RunId) -> Result<()> {
        Ok(())
    }

    async fn delete_run_resources(&self, _: &RunId) -> Result<()> {
        Ok(())
    }
}
