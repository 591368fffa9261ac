//! Git's and Bitbucket's answers, spoiled field by field and as a whole, during whole runs.
//!
//! Whatever they say: the pipe ends with one of its exit codes, takes little memory, calls nobody else, and
//! says that it has published only what is there.

mod proxy;
mod spoil;

use crate::hostile_remote::elsewhere;
use crate::support::{Access, Run, Scene, memory_kib, say};
use proxy::{Plan, Proxy};
use spoil::Spoil;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a pipe may take, with a margin for the pages of a program that was built to be debugged.
const MEMORY_LIMIT_KIB: u64 = 64 << 10;

/// A scene whose Bitbucket is behind the proxy.
struct World {
    scene: Scene,
    proxy: Proxy,
    /// How often the address was called that spoiled answers lead to.
    calls: Arc<AtomicUsize>,
    main: String,
    number: u32,
}

impl World {
    fn new() -> Self {
        let mut scene = Scene::new(Access::Token, &[("metrics.json", "{\"a\": 1}\n")]);
        let upstream = scene.bitbucket.git_url().replace("http://", "").replace("/acme/forest.git", "");
        let (evil, calls) = elsewhere();
        let proxy = Proxy::start(upstream, evil);
        let url = format!("http://{}/acme/forest.git", proxy.address);
        scene.git(&["remote", "set-url", "origin", &url]);
        scene.set("BITBUCKET_GIT_HTTP_ORIGIN", &url);
        scene.set("BITBUCKET_API_URL", &format!("http://{}/2.0", proxy.address));
        scene.set("OUTPUTS", "model/m.bin,metrics.json").set("METRICS", "metrics.json");
        std::fs::create_dir(scene.clone().join("model")).unwrap();
        let main = scene.remote.head("main").unwrap();
        Self { scene, proxy, calls, main, number: 0 }
    }

    /// Runs the pipe with an output that was never there before. How it ended, the most memory in KiB, and
    /// what was asked.
    fn run(&mut self, plan: Plan, trains: bool) -> (Run, u64, Plan) {
        self.number += 1;
        let model = format!("model {}", self.number);
        let scene = &mut self.scene;
        if trains {
            let command = format!("echo training; mkdir -p model; printf '{model}' > model/m.bin");
            scene.set("ACTION", "train").set("TRAIN_COMMAND", &command);
        } else {
            scene.set("ACTION", "publish");
            std::fs::write(scene.clone().join("model/m.bin"), &model).unwrap();
        }
        self.proxy.plan(plan);
        let (run, memory) = measured(scene);
        (run, memory, self.proxy.plan(Plan::default()))
    }

    /// Has the next run find the branch that an earlier one made, or none.
    fn forget(&self) {
        let branches =
            self.scene.remote.git(&["for-each-ref", "--format=%(refname)", "refs/heads/trainspot/"]);
        for branch in branches.lines() {
            self.scene.remote.git(&["update-ref", "-d", branch]);
        }
    }

    /// What must hold however a run ended.
    fn check(&self, run: &Run, memory: u64, when: &str) {
        let text = || format!("{when}\n{}\n{}", run.log, run.out);
        assert!(
            run.code.is_some_and(|code| (0..=6).contains(&code)),
            "ended with {:?}: {}",
            run.code,
            text()
        );
        assert!(!run.log.contains("panicked") && !run.out.contains("panicked"), "{}", text());
        assert!(memory < MEMORY_LIMIT_KIB, "{memory} KiB: {}", text());
        assert_eq!(self.calls.load(Ordering::Relaxed), 0, "somebody else was called: {}", text());
        assert_eq!(self.scene.remote.head("main").unwrap(), self.main, "{}", text());
        let branches = self.scene.remote.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
        let ours = |branch: &str| branch == "main" || branch.starts_with("trainspot/main-");
        assert!(branches.lines().all(ours), "{branches}: {}", text());
        if run.code == Some(0) {
            let model = format!("model {}", self.number);
            let published = self.scene.remote.file(&self.scene.branch(), "model/m.bin");
            assert_eq!(published.as_deref(), Some(model.as_bytes()), "not what was published: {}", text());
        }
    }
}

/// Runs the pipe to its end, and looks at its memory all the while.
fn measured(scene: &Scene) -> (Run, u64) {
    let mut child = scene.start();
    let (mut out, mut log) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let process = child.id();
    let logging = std::thread::spawn(move || {
        let mut text = Vec::new();
        log.read_to_end(&mut text).map(|_| text).unwrap()
    });
    let watching = std::thread::spawn(move || {
        let mut most = 0;
        while let Some(peak) = memory_kib(process, "VmHWM") {
            most = u64::max(most, peak);
            std::thread::sleep(Duration::from_millis(2));
        }
        most
    });
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    let ended = child.wait().unwrap();
    let output = std::process::Output { status: ended, stdout: text, stderr: logging.join().unwrap() };
    (Run::from(output), watching.join().unwrap())
}

fn wished(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// `TRAINSPOT_HOSTILE_SERVERS` answers are spoiled, from `TRAINSPOT_SEED` on.
#[test]
fn no_answer_of_git_or_bitbucket_has_the_pipe_panic_swell_call_others_or_claim_what_is_not_so() {
    let count = wished("TRAINSPOT_HOSTILE_SERVERS", 30);
    let seed = wished("TRAINSPOT_SEED", fastrand::u64(..1_000_000));
    let mut world = World::new();
    let (clean, memory, plan) = world.run(Plan::default(), true);
    world.check(&clean.expect(0), memory, "without a spoiled answer");
    let (answers, mut codes, mut most) = (plan.asked.len(), BTreeMap::<_, u32>::new(), memory);
    assert!(answers > 6, "{:?}", plan.asked);
    for trial in seed..seed + count {
        let mut random = fastrand::Rng::with_seed(trial);
        if random.u8(..3) > 0 {
            world.forget();
        }
        let first = random.usize(..answers + 2);
        let may_stick = random.u8(..16) == 0;
        let (spoil, trains) = (Spoil::by(&mut random), random.u8(..6) == 0);
        let sticks = may_stick && !spoil.is_rate_limit();
        let planned = Plan { first, sticks, spoil: Some(spoil), ..Plan::default() };
        let (run, memory, plan) = world.run(planned, trains);
        world.check(&run, memory, &format!("seed {trial}, {:?}", plan.done));
        *codes.entry(run.code.unwrap_or(-1)).or_default() += 1;
        most = most.max(memory);
        world.scene.bitbucket.take_violations();
    }
    say(&format!(
        "hostile servers: {count} runs from seed {seed}, {answers} answers in a clean one; exit codes {codes:?}; at most {most} KiB"
    ));
}

/// The server throws the pack away and says that it took it.
#[test]
fn a_push_that_was_only_claimed_is_not_told_as_published() {
    let mut world = World::new();
    let (_, _, plan) = world.run(Plan::default(), false);
    let is_push = |question: &String| question.starts_with("POST") && question.ends_with("git-receive-pack");
    let first = plan.asked.iter().position(is_push).unwrap();
    world.forget();
    let forged = || Plan { first, sticks: true, spoil: Some(Spoil::Forged), ..Plan::default() };
    let (run, memory, _) = world.run(forged(), false);
    world.check(&run, memory, "every push is only claimed");
    assert_eq!(run.code, Some(5), "{}\n{}", run.log, run.out);
    assert!(run.out.contains("says that it took the push"), "{}", run.out);
    // Only the first one: the next attempt finds that it did not arrive, and pushes again.
    let (run, memory, _) = world.run(Plan { sticks: false, ..forged() }, false);
    world.check(&run.expect(0), memory, "one push is only claimed");
}
