//! Answers of every verb changed at random, field by field, in their bytes and in their ends, over whole
//! runs.

use crate::plan::{Attack, Plan};
use crate::run::{Hostile, Outcome};
use crate::support::say;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub(crate) const TESTS: [(&str, fn()); 1] =
    [("no_changed_answer_misleads_the_pipe", no_changed_answer_misleads_the_pipe)];
/// How many runs there are.
const COUNT_VARIABLE: &str = "TRAINSPOT_MUTATIONS";
const SHORT_COUNT: u64 = 12;
/// A run mostly waits.
const RUNS_AT_ONCE: usize = 4;
/// The verbs whose answers are changed, the more often the more they say.
const VERBS: [&str; 12] = [
    "ask",
    "ask",
    "ask",
    "pack",
    "pack",
    "pack-checkpoint",
    "pack-checkpoint",
    "dvc",
    "rescue",
    "follow",
    "unpack",
    "commit",
];

/// A run that is to be tried.
struct Trial {
    plan: Plan,
    /// The training's exit code.
    code: u8,
    with_dvc: bool,
}

impl Trial {
    fn drawn(random: &mut Rng) -> Self {
        let verb = VERBS[random.usize(..VERBS.len())];
        let first = if verb == "ask" { random.usize(1..6) } else { 1 };
        let plan = Plan {
            verb: verb.to_owned(),
            calls: (first, random.usize(1..4)),
            attack: Attack::Mutated(random.u64(..)),
        };
        // A checkpoint comes into the clone when the training fails, and outputs when it does not.
        let fails = verb == "pack-checkpoint" || (matches!(verb, "ask" | "follow") && random.u8(..) < 80);
        let with_dvc = matches!(verb, "dvc" | "rescue") || random.bool();
        Self { plan, code: if fails { 3 } else { 0 }, with_dvc }
    }

    fn run(&self, when: &str) -> Outcome {
        let mut hostile = Hostile::new(&self.plan, self.code);
        if self.with_dvc {
            hostile = hostile.with_dvc();
        }
        if self.plan.verb == "rescue" {
            std::fs::write(hostile.scene.folder.path().join("store"), "a file, no folder").unwrap();
        }
        hostile.run(when)
    }
}

/// What the runs came to.
#[derive(Default)]
struct Counts {
    codes: BTreeMap<i32, u32>,
    verbs: BTreeMap<String, u32>,
    changed: usize,
    peak_kib: u64,
}

impl Counts {
    fn add(&mut self, trial: &Trial, outcome: &Outcome) {
        *self.codes.entry(outcome.code).or_default() += 1;
        *self.verbs.entry(trial.plan.verb.clone()).or_default() += 1;
        self.changed += outcome.done.len();
        self.peak_kib = self.peak_kib.max(outcome.peak_kib);
    }
}

fn no_changed_answer_misleads_the_pipe() {
    // The answer of `restore` is empty, and no run has it whose pipe stays.
    let is_left_out = |verb: &&str| ["supervise", "restore"].contains(verb);
    let answering = trainspot_protocol::AGENT_VERBS.into_iter().filter(|verb| !is_left_out(verb));
    let left_out: Vec<_> = answering.filter(|verb| !VERBS.contains(verb)).collect();
    assert!(left_out.is_empty(), "the answers of {left_out:?} are not changed");
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let count = number(COUNT_VARIABLE).unwrap_or(SHORT_COUNT);
    let seed = number("TRAINSPOT_SEED").unwrap_or_else(|| fastrand::u64(..));
    say(&format!("{count} runs with a changed answer, TRAINSPOT_SEED={seed}"));
    let mut random = Rng::with_seed(seed);
    let trials: Vec<Trial> = (0..count).map(|_| Trial::drawn(&mut random)).collect();
    let (next, counts, start) = (AtomicUsize::new(0), Mutex::new(Counts::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..RUNS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    let Some(trial) = trials.get(run) else { break };
                    let Plan { verb, calls, .. } = &trial.plan;
                    let outcome = trial.run(&format!("TRAINSPOT_SEED={seed}, run {run}: {verb} {calls:?}"));
                    let Outcome { code, peak_kib, done, .. } = &outcome;
                    say(&format!("{run}: code {code}, {peak_kib} KiB, {done:?}"));
                    counts.lock().unwrap().add(trial, &outcome);
                }
            });
        }
    });
    let Counts { codes, verbs, changed, peak_kib } = counts.into_inner().unwrap();
    let took = start.elapsed().as_secs();
    say(&format!(
        "{count} runs, {changed} answers changed {verbs:?}: exit codes {codes:?}, at most {peak_kib} KiB, {took} s; \
         no file that was not asked for, no panic"
    ));
    assert!(changed > 0 || count == 0, "no answer was changed");
}
