//! Runs over machines that are no more than their answers.

mod deadline;
mod fake;
mod money;
mod policy;

use super::*;
use crate::actions::train::{Checkpoints, Trained, TrainingWorkload};
pub(super) use fake::number;
use fake::{Fake, Fate};
use std::sync::Mutex;
use std::time::SystemTime;
use tokio::time::Instant;
use trainspot_compute::RunId;
use trainspot_protocol::{CommandExit, CommandSpec};

/// A clone, and the job in it.
struct Scene {
    folder: tempfile::TempDir,
    fake: Fake,
    max_restarts: u32,
    max_cost: Option<f64>,
    max_time: Option<Duration>,
    max_runtime: Duration,
    returns_to_spot: bool,
}

impl Scene {
    fn new(fates: &[Fate], failing: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            fake: Fake::new(fates, failing),
            max_restarts: 3,
            max_cost: None,
            max_time: None,
            max_runtime: Duration::from_mins(10),
            returns_to_spot: false,
        }
    }

    async fn run(&self, fetch_outputs: impl AsyncFn() -> Result<()>) -> Result<FinishedJob<Trained<()>>> {
        let request = LaunchRequest { max_runtime: self.max_runtime, ..launch_request() };
        let shutdown = CancellationToken::new();
        let clone_dir = self.folder.path().join("clone");
        std::fs::create_dir_all(&clone_dir).unwrap();
        let training = TrainingWorkload {
            checkpoints: Checkpoints::new(self.folder.path(), &request.run, &["epoch".to_owned()]).unwrap(),
            clone_dir: &clone_dir,
            workspace: Vec::new(),
            commit: trainspot_git::Snapshot::default(),
            resumed: Vec::new(),
            slowest_transfer: Cell::default(),
            fetch_outputs: async |_: &Agent<Fake>, _: &CommandExit, _: Duration| fetch_outputs().await,
            clock: RefCell::default(),
            spec: CommandSpec {
                fingerprint: String::new(),
                command: String::new(),
                environment: std::collections::BTreeMap::new(),
                max_runtime: request.max_runtime,
                checkpoints: Vec::new(),
                checkpoint_interval: Duration::from_mins(1),
                resume: false,
                runner: None,
                detached: None,
            },
        };
        let job = Job {
            found: self.fake.find(&request.run).await.unwrap(),
            max_restarts: self.max_restarts,
            returns_to_spot: self.returns_to_spot,
            max_cost: self.max_cost,
            deadline: self.max_time.map(|max_time| Deadline::new(max_time, Duration::ZERO)),
            launch_request: request,
            ..job(&self.fake, &shutdown)
        };
        let finished = job.run(&training).await?;
        job.delete_run_resources().await?;
        Ok(finished)
    }

    async fn train(&self) -> Result<FinishedJob<Trained<()>>> {
        self.run(async || Ok(())).await
    }

    fn resumed(&self, number: usize) -> bool {
        self.fake.world.lock().unwrap().servers[number].resumed
    }
}

fn launch_request() -> LaunchRequest {
    LaunchRequest {
        run: RunId::new(&["r"]),
        orphan_grace: Duration::from_mins(10),
        max_runtime: Duration::from_mins(10),
        avoid: Vec::new(),
        spot_now: false,
    }
}

/// A job that finds no machine, knows no limit, and starts nothing again.
pub(super) fn job<'a, C>(compute: &'a C, shutdown: &'a CancellationToken) -> Job<'a, C> {
    Job {
        compute,
        launch_request: launch_request(),
        owner: owner(),
        found: Vec::new(),
        max_restarts: 0,
        returns_to_spot: false,
        max_cost: None,
        deadline: None,
        shutdown,
        state: JobState::default(),
    }
}

/// Work after which its machine stays.
struct Stays {
    spares: bool,
}

impl Workload<Fake> for Stays {
    type Done = ();

    const STOPPED_MESSAGE: &'static str = "stopped";
    const PROGRESS_WORDS: &'static str = "";
    const RESTART_HINT: &'static str = "";

    fn fingerprint(&self) -> &'static str {
        "this"
    }

    fn must_not_terminate(&self, _: Option<&AgentStatus>) -> Option<Error> {
        self.spares.then(|| Error::new("it has a step"))
    }

    async fn run_on(&self, _: &Job<'_, Fake>, _: &ConnectedMachine<Fake>) -> Result<AttemptEnd<()>> {
        Ok(AttemptEnd::HandedOver(()))
    }

    async fn fetch_checkpoint(&self, _: &Agent<Fake>, _: &Machine, _: u64) -> Result<bool> {
        Ok(false)
    }

    fn on_machine_lost(&self, _: Option<Cost>) {}

    fn progress(&self) -> u64 {
        0
    }

    fn time_left(&self) -> Duration {
        Duration::MAX
    }

    fn salvage(&self, error: Error) -> Error {
        error
    }
}

async fn stays(fake: &Fake, spares: bool) -> Result<FinishedJob<()>> {
    let shutdown = CancellationToken::new();
    let job = Job { found: fake.find(&launch_request().run).await.unwrap(), ..job(fake, &shutdown) };
    job.run(&Stays { spares }).await
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_handed_over_stays() {
    let fake = Fake::new(&[Fate::GoesOn], &[]);
    assert!(stays(&fake, false).await.unwrap().leftover.is_none());
    assert_eq!(fake.done(), ["launch 0 not []", "hand over 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_must_not_be_ended_is_left_and_no_other_one_is_launched() {
    let fake = Fake::new(&[Fate::GoesOn, Fate::GoesOn], &[]);
    fake.launch(&launch_request()).await.unwrap();
    assert_eq!(stays(&fake, true).await.err().unwrap().render(), "it has a step");
    assert_eq!(fake.done(), ["launch 0 not []"]);
    assert!(stays(&fake, false).await.is_ok());
    // The last one makes sure: it is no error that it is gone.
    assert_eq!(fake.done()[1..], ["terminate 0", "launch 1 not []", "hand over 1", "terminate 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_once_is_opened_again() {
    for failing in [
        vec!["follow"],
        vec!["follow", "ask"],
        vec!["unpack"],
        vec!["commit"],
        vec!["unpack", "ask", "follow"],
    ] {
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
        if *left > 0 { Err(Error::new("the stream of files ended early").transient()) } else { Ok(()) }
    };
    assert!(scene.run(breaks).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_an_error_says_of_itself_and_not_its_kind_decides_on_another_attempt() {
    for kind in [None, Some(Kind::Training), Some(Kind::Machine)] {
        let error = || kind.into_iter().fold(Error::new("no outputs"), Error::kind);
        for (is_transient, attempts) in [(true, TRANSFER_RETRY.attempts), (false, 1)] {
            let (scene, made) = (Scene::new(&[Fate::Trains], &[]), Mutex::new(0));
            let fails = async || {
                *made.lock().unwrap() += 1;
                Err(if is_transient { error().transient() } else { error() })
            };
            let failed = scene.run(fails).await.err().unwrap();
            assert_eq!(failed.exit_kind(), error().exit_kind());
            assert_eq!(made.into_inner().unwrap(), attempts, "{is_transient}, {:?}", failed.exit_kind());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_trained_survives_a_machine_that_cannot_be_ended() {
    let scene = Scene::new(&[Fate::Trains], &["terminate"]);
    let leftover = scene.train().await.ok().unwrap().leftover.unwrap();
    assert_eq!(
        leftover.render(),
        "cannot end the machine m0: access denied\nStill there: machine m0; it ends itself within 10m"
    );
    assert_eq!(scene.fake.done()[3..], ["end 0", "clean"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_next_try_of_the_step_launched_meanwhile_is_not_ended() {
    let scene = Scene::new(&[Fate::Trains, Fate::IsHeld], &[]);
    let request = launch_request();
    let next_try = async || scene.fake.launch(&request).await.map(drop);
    assert!(scene.run(next_try).await.is_ok());
    assert_eq!(scene.fake.done()[3..], ["launch 1 not []", "terminate 0", "clean"]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_taken_back_without_a_notice_costs_nothing() {
    let scene = Scene::new(&[Fate::IsReclaimed, Fate::Trains], &[]);
    let trained = scene.train().await.ok().unwrap();
    assert_eq!(trained.restarts, 1);
    assert!((0.9..1.2).contains(&trained.cost.unwrap().total()), "{:?}", trained.cost);
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_provider_alone_tells_of_its_end_is_told_to_leave_in_time() {
    let scene = Scene::new(&[Fate::IsLeaving, Fate::Trains], &[]);
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let trained = tokio::time::timeout(Duration::from_hours(1), scene.train()).await;
    let trained = trained.expect("the machine is told to leave").ok().unwrap();
    assert_eq!(trained.restarts, 1);
    assert!(scene.resumed(1), "the last checkpoint is brought to the next machine");
    let (_, until) = scene.fake.world.lock().unwrap().servers[0].leaving.unwrap();
    // EC2 gives two minutes. The provider is asked every half minute, so its word may be as old as that.
    let left = until.unwrap() - start;
    assert!((60..=90).contains(&left), "{left} s");
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
            "commit 0",
            "launch 1 not [\"t0\"]",
            "unpack 1",
            "commit 1",
            "unpack 1",
            "launch 2 not [\"t1\"]",
            "unpack 2",
            "commit 2",
            "unpack 2",
            // What its provider takes within the hour is free, unless we end it: that comes last.
            "terminate 0",
            "terminate 1",
            "terminate 2",
            "clean",
        ]
    );
    assert!(!scene.resumed(0) && scene.resumed(1) && scene.resumed(2));
    let waited = scene.fake.world.lock().unwrap().servers[1].idle_beats;
    assert!(waited >= 8, "{waited} signs of life to the machine that waits for the present one's end");
    assert_eq!(trained.restarts, 2);
    let losses = trained.done.losses;
    assert_eq!(losses.repeated, Duration::ZERO);
    assert!(losses.idle < Duration::from_secs(5), "{losses:?}");
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
    let mut scene = Scene::new(&[Fate::IsTaken, Fate::Trains], &[]);
    scene.max_restarts = 0;
    let error = scene.train().await.err().unwrap();
    assert_eq!(
        error.render(),
        "the machine was lost, after 0 restarts in a row without a newer checkpoint: no spot capacity, after 30s of training\n\
         Still there: the newest checkpoint (1 file), in the clone; the step's artifacts can keep it for the next run\n\
         Next: raise MAX_RESTARTS, or set CHECKPOINTS so that a restart goes on where it was"
    );
    assert_eq!(std::fs::read(scene.folder.path().join("clone/epoch")).unwrap(), b"7");
    assert_eq!(
        scene.fake.world.lock().unwrap().servers.len(),
        1,
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
    scene.fake.launch(&launch_request()).await.unwrap();
    let error = scene.train().await.err().unwrap();
    assert_eq!(
        error.render(),
        "another run of this step is using the machine\nNext: wait for the other run to end, or stop it"
    );
    assert_eq!(scene.fake.done(), ["launch 0 not []"]);
}
