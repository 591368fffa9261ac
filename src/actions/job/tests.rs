//! Machines that are no more than their answers.

use super::*;
use crate::agent::protocol::{How, Notice, Reply, Request, State as Training, Status, Wish};
use crate::compute::{Pool, Rate, RunId, Sight};
use crate::link::{Finished, Link, Session};
use crate::transfer::{Header, Sender, find};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What a machine does when its training is started.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// The training ends well after a minute.
    Trains,
    /// The link works no more after 10 s, and its provider says this.
    Vanishes(&'static str),
    /// The notice comes after 10 s, the end 20 s later, with a checkpoint.
    IsTaken,
    /// The training goes on until it is told to leave.
    GoesOn,
    /// Nobody gets in.
    NeverBoots,
    /// Another pipe holds it.
    IsHeld,
}

#[derive(Clone)]
struct Server {
    fate: Fate,
    started: Option<Instant>,
    leaving: bool,
    resumed: bool,
    ended: bool,
}

#[derive(Default)]
struct World {
    fates: Vec<Fate>,
    servers: Vec<Server>,
    /// Verbs and calls that fail once, in this order.
    failing: Vec<&'static str>,
    /// All that was done, in order.
    done: Vec<String>,
}

/// The provider, and with a number also the way to one of its machines.
#[derive(Clone)]
struct Fake {
    world: Arc<Mutex<World>>,
    number: usize,
}

impl Fake {
    fn new(fates: &[Fate], failing: &[&'static str]) -> Self {
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

    fn done(&self) -> Vec<String> {
        self.world.lock().unwrap().done.clone()
    }

    fn note(&self, what: String) {
        self.world.lock().unwrap().done.push(what);
    }

    fn answer(&self, request: Request) -> Option<Reply> {
        let mut world = self.world.lock().unwrap();
        let server = &mut world.servers[self.number];
        match request.wish {
            Wish::Start(spec) => (server.started, server.resumed) = (Some(Instant::now()), spec.resume),
            Wish::Leave(_) => server.leaving = true,
            _ => {}
        }
        if server.fate == Fate::IsHeld {
            return Some(Reply::Refused("another run of this step is using the machine".to_owned()));
        }
        let age = server.started.map_or(0, |started| started.elapsed().as_secs());
        if matches!(server.fate, Fate::Vanishes(_)) && age >= 10 || server.ended {
            return None;
        }
        let (how, seconds) = match server.fate {
            Fate::IsTaken if age >= 30 => (Some(How::Interrupted), 30.0),
            Fate::GoesOn if server.leaving => (Some(How::Interrupted), 60.0),
            Fate::Trains if age >= 60 => (Some(How::Exited(0)), 60.0),
            _ => (None, 0.0),
        };
        let state = match (server.started, how) {
            (None, _) => Training::Idle,
            (_, Some(how)) => Training::Ended(Exit { how, seconds }),
            _ => Training::Running,
        };
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 20;
        let noticed = server.fate == Fate::IsTaken && age >= 10;
        let notice = noticed.then(|| Notice { why: "no spot capacity".to_owned(), at: Some(at) });
        let checkpoint = (how == Some(How::Interrupted)).then_some(1);
        Some(Reply::Status(Status { state, fingerprint: None, checkpoint, unsaved: None, notice }))
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
                let reply = self.answer(serde_json::from_slice(&request).unwrap());
                if let Some(reply) = reply {
                    output.write_all(&serde_json::to_vec(&reply).unwrap()).await.ok();
                }
            }
            "pack-checkpoint" => {
                let folder = tempfile::tempdir().unwrap();
                std::fs::write(folder.path().join("epoch"), "7").unwrap();
                let entries = find(folder.path(), &["**".to_owned()]).unwrap().files;
                let header = Header { entries, unmatched: Vec::new() };
                let mut bundle = Vec::new();
                Sender { root: folder.path(), progress: &mut |_| {} }.send(&header, &mut bundle).unwrap();
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
    async fn agent(&self, verb: &str, _: &[(&str, String)]) -> Result<Session> {
        if self.fails(verb) {
            return Err(Error::new("the link is down"));
        }
        if verb == "unpack" {
            self.note(format!("unpack {}", self.number));
        }
        let ((input, far_input), (output, far_output)) =
            (tokio::io::duplex(1 << 20), tokio::io::duplex(1 << 20));
        let served = tokio::spawn(self.clone().serve(verb.to_owned(), far_input, far_output));
        let finished = async {
            served.await.unwrap();
            Ok(Finished { success: true, words: String::new() })
        };
        Ok(Session {
            input: Some(Box::pin(input)),
            output: Some(Box::pin(output)),
            finished: Box::pin(finished),
        })
    }
}

fn number(machine: &Machine) -> usize {
    machine.id.trim_start_matches('m').parse().unwrap()
}

fn machine(number: usize) -> Machine {
    let pool = Pool { zone: "z".to_owned(), instance_type: format!("t{number}") };
    let rate = Rate { machine: 60.0, on_demand: None, extras: 0.0 };
    Machine {
        id: format!("m{number}"),
        description: "fake".to_owned(),
        pool: Some(pool),
        spot: true,
        rate: Some(rate),
    }
}

impl Server {
    /// Whether its provider took it.
    fn is_gone(&self) -> bool {
        self.ended
            || self
                .started
                .is_some_and(|started| self.fate == Fate::IsTaken && started.elapsed().as_secs() >= 30)
    }
}

impl Compute for Fake {
    type Link = Self;

    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn launch(&self, order: &Order) -> Result<Machine> {
        let mut world = self.world.lock().unwrap();
        let number = world.servers.len();
        let avoid: Vec<_> = order.avoid.iter().map(|pool| pool.instance_type.as_str()).collect();
        world.done.push(format!("launch {number} not {avoid:?}"));
        // One machine at a time is all that the quota allows.
        if world.failing == ["quota"] && world.servers.iter().any(|server| !server.is_gone()) {
            return Err(Error::new("the quota is used up"));
        }
        let Some(&fate) = world.fates.get(number) else { return Err(Error::new("no capacity")) };
        world.servers.push(Server { fate, started: None, leaving: false, resumed: false, ended: false });
        Ok(machine(number))
    }

    async fn find(&self, _: &RunId) -> Result<Vec<Machine>> {
        let world = self.world.lock().unwrap();
        Ok((0..world.servers.len()).filter(|number| !world.servers[*number].ended).map(machine).collect())
    }

    async fn connect(&self, machine: &Machine, _: &Order) -> Result<Self> {
        let link = Self { number: number(machine), ..self.clone() };
        let fate = link.world.lock().unwrap().servers[link.number].fate;
        if fate == Fate::NeverBoots { Err(Error::new("no answer at its address")) } else { Ok(link) }
    }

    async fn look(&self, machine: &Machine) -> Result<Sight> {
        let server = self.world.lock().unwrap().servers[number(machine)].clone();
        Ok(match server.fate {
            Fate::Vanishes(why)
                if !why.is_empty() && server.started.is_some_and(|at| at.elapsed().as_secs() >= 10) =>
            {
                Sight::Gone(why.to_owned())
            }
            _ => Sight::There,
        })
    }

    async fn terminate(&self, machine: &Machine) -> Result<()> {
        if self.fails("terminate") {
            return Err(Error::new("access denied"));
        }
        let mut world = self.world.lock().unwrap();
        world.servers[number(machine)].ended = true;
        world.done.push(format!("terminate {}", number(machine)));
        Ok(())
    }

    async fn clean(&self, _: &RunId) -> Result<()> {
        self.note("clean".to_owned());
        Ok(())
    }
}

/// A clone, and the job in it.
struct Scene {
    folder: tempfile::TempDir,
    fake: Fake,
    max_restarts: u32,
    max_cost: Option<f64>,
}

impl Scene {
    fn new(fates: &[Fate], failing: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, fake: Fake::new(fates, failing), max_restarts: 3, max_cost: None }
    }

    async fn run(&self, harvest: impl AsyncFn() -> Result<()>) -> Result<Trained> {
        let run = RunId::new(&["r"]);
        let max_runtime = Duration::from_mins(10);
        let clone_dir = self.folder.path().join("clone");
        std::fs::create_dir_all(&clone_dir).unwrap();
        let job = Job {
            compute: &self.fake,
            checkpoints: Checkpoints::new(self.folder.path(), &run).unwrap(),
            order: Order { run, orphan_grace: Duration::from_mins(10), max_runtime, avoid: Vec::new() },
            owner: owner(),
            spec: Spec {
                fingerprint: String::new(),
                command: String::new(),
                environment: std::collections::BTreeMap::new(),
                max_runtime,
                checkpoints: Vec::new(),
                checkpoint_interval: Duration::from_mins(1),
                resume: false,
            },
            found: self.fake.find(&RunId::new(&[])).await.unwrap(),
            clone_dir: &clone_dir,
            workspace: Vec::new(),
            max_restarts: self.max_restarts,
            max_cost: self.max_cost,
            shutdown: &CancellationToken::new(),
            state: State::default(),
        };
        job.run(async |_, _| harvest().await).await.map(|(trained, ())| trained)
    }

    async fn train(&self) -> Result<Trained> {
        self.run(async || Ok(())).await
    }

    fn resumed(&self, number: usize) -> bool {
        self.fake.world.lock().unwrap().servers[number].resumed
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_once_is_opened_again() {
    for failing in [vec!["follow"], vec!["follow", "ask"], vec!["unpack"], vec!["unpack", "ask", "follow"]] {
        let scene = Scene::new(&[Fate::Trains], &failing);
        assert!(scene.train().await.is_ok(), "{failing:?}");
        assert_eq!(scene.fake.world.lock().unwrap().servers.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_whose_stream_broke_off_are_fetched_again() {
    let (scene, left) = (Scene::new(&[Fate::Trains], &[]), Mutex::new(2));
    let breaks = async || {
        let mut left = left.lock().unwrap();
        *left -= 1;
        if *left > 0 { Err(Error::new("the stream of files ended early")) } else { Ok(()) }
    };
    assert!(scene.run(breaks).await.is_ok());
    let scene = Scene::new(&[Fate::Trains], &[]);
    let missing = async || Err(Error::new("no such output").kind(Kind::Training));
    assert_eq!(scene.run(missing).await.err().unwrap().exit_kind(), Kind::Training);
}

#[tokio::test(start_paused = true)]
async fn what_was_trained_survives_a_machine_that_cannot_be_ended() {
    let scene = Scene::new(&[Fate::Trains], &["terminate"]);
    let leftover = scene.train().await.ok().unwrap().leftover.unwrap();
    assert_eq!(
        leftover.render(),
        "cannot end the machine m0: access denied\nStill there: machine m0; it ends itself within 10m"
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_machine_is_asked_for_before_the_old_one_is_gone() {
    let scene = Scene::new(&[Fate::IsTaken, Fate::IsTaken, Fate::Trains], &[]);
    let trained = scene.train().await.ok().unwrap();
    assert_eq!(
        scene.fake.done(),
        [
            "launch 0 not []",
            "unpack 0",
            "launch 1 not [\"t0\"]",
            "unpack 1",
            "unpack 1",
            "launch 2 not [\"t1\"]",
            "unpack 2",
            "unpack 2",
            // What its provider takes within the hour is free, unless we end it: that comes last.
            "terminate 0",
            "terminate 1",
            "terminate 2",
            "clean",
        ]
    );
    assert!(!scene.resumed(0) && scene.resumed(1) && scene.resumed(2));
    assert_eq!(trained.restarts, 2);
    assert!(trained.lost < Duration::from_secs(5), "{:?}", trained.lost);
    // One minute at a dollar, and the machine's own boot.
    assert!((0.9..1.5).contains(&trained.cost.unwrap().total()), "{:?}", trained.cost);
}

#[tokio::test(start_paused = true)]
async fn a_quota_for_one_machine_only_delays_the_next() {
    let scene = Scene::new(&[Fate::IsTaken, Fate::Trains], &["quota"]);
    assert_eq!(scene.train().await.ok().unwrap().restarts, 1);
    let launches = scene.fake.done().iter().filter(|done| done.starts_with("launch 1")).count();
    assert_eq!(launches, 2);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_gone_is_replaced_at_once_and_a_silent_one_after_half_the_grace() {
    for (why, least, most) in [("Server.InternalError", 10, 60), ("", 300, 400)] {
        let scene = Scene::new(&[Fate::Vanishes(why), Fate::Trains], &[]);
        let start = Instant::now();
        let trained = scene.train().await.ok().unwrap();
        let lost = start.elapsed().as_secs() - 60;
        assert!((least..most).contains(&lost), "{why}: {lost} s");
        assert_eq!(trained.restarts, 1);
        assert!(scene.fake.done().contains(&"launch 1 not [\"t0\"]".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_does_not_boot_is_ended_and_replaced_once() {
    let scene = Scene::new(&[Fate::NeverBoots, Fate::Trains], &[]);
    assert!(scene.train().await.is_ok());
    let done = scene.fake.done();
    assert_eq!(done[..3], ["launch 0 not []", "terminate 0", "launch 1 not [\"t0\"]"]);

    let scene = Scene::new(&[Fate::NeverBoots, Fate::NeverBoots, Fate::Trains], &[]);
    let error = scene.train().await.err().unwrap();
    assert_eq!(error.render(), "the machine m1 did not come up: no answer at its address");
    assert_eq!(scene.fake.done().last().unwrap(), "clean");
    assert!(scene.fake.find(&RunId::new(&[])).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn restarts_end_with_the_checkpoint_in_the_clone() {
    let mut scene = Scene::new(&[Fate::IsTaken, Fate::IsTaken], &[]);
    scene.max_restarts = 1;
    let error = scene.train().await.err().unwrap();
    assert_eq!(
        error.render(),
        "the machine was lost, after 1 restarts: no spot capacity, after 30s of training\n\
         Still there: the newest checkpoint (1 files), in the clone; the step's artifacts can keep it for the next run\n\
         Next: raise MAX_RESTARTS, or set CHECKPOINTS so that a restart goes on where it was"
    );
    assert_eq!(std::fs::read(scene.folder.path().join("clone/epoch")).unwrap(), b"7");
    assert_eq!(
        scene.fake.world.lock().unwrap().servers.len(),
        2,
        "no machine is asked for that may not be used"
    );
}

#[tokio::test(start_paused = true)]
async fn the_run_ends_with_a_checkpoint_when_it_cost_what_it_may() {
    let mut scene = Scene::new(&[Fate::GoesOn], &[]);
    scene.max_cost = Some(5.0);
    let start = Instant::now();
    let error = scene.train().await.err().unwrap();
    // A dollar a minute.
    assert!((290..330).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(
        error.render().starts_with("the run was ended because it reached MAX_COST: about $5."),
        "{}",
        error.render()
    );
    assert_eq!(error.exit_kind(), Kind::Training);
    assert!(scene.folder.path().join("clone/epoch").exists());
    assert_eq!(scene.fake.done().last().unwrap(), "clean");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_another_pipe_holds_is_not_ended() {
    let scene = Scene::new(&[Fate::IsHeld], &[]);
    let order = Order {
        run: RunId::new(&["r"]),
        orphan_grace: Duration::from_mins(1),
        max_runtime: Duration::from_mins(1),
        avoid: Vec::new(),
    };
    scene.fake.launch(&order).await.unwrap();
    let error = scene.train().await.err().unwrap();
    assert_eq!(
        error.render(),
        "another run of this step is using the machine\nNext: wait for the other run to end, or stop it"
    );
    assert_eq!(scene.fake.done(), ["launch 0 not []"]);
}
