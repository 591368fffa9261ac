//! Answers of every verb changed at random, field by field and in their bytes, over whole runs.

use crate::plan::{Attack, Plan};
use crate::run::Hostile;
use crate::support::say;
use std::collections::BTreeMap;
use std::time::Instant;

pub(crate) const TESTS: [(&str, fn()); 1] =
    [("no_changed_answer_misleads_the_pipe", no_changed_answer_misleads_the_pipe)];
/// How many runs there are.
const COUNT_VARIABLE: &str = "TRAINSPOT_MUTATIONS";
const SHORT_COUNT: u64 = 12;
/// The verbs whose answers are changed, the more often the more they say.
const VERBS: [&str; 10] =
    ["ask", "ask", "ask", "pack", "pack", "pack-checkpoint", "pack-checkpoint", "dvc", "rescue", "follow"];

fn no_changed_answer_misleads_the_pipe() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let count = number(COUNT_VARIABLE).unwrap_or(SHORT_COUNT);
    let seed = number("TRAINSPOT_SEED").unwrap_or_else(|| fastrand::u64(..));
    say(&format!("{count} runs with a changed answer, TRAINSPOT_SEED={seed}"));
    let (mut codes, mut verbs) = (BTreeMap::<i32, u32>::new(), BTreeMap::<&str, u32>::new());
    let (mut changed, mut peak_kib, start) = (0, 0, Instant::now());
    let mut random = fastrand::Rng::with_seed(seed);
    for run in 0..count {
        let verb = VERBS[random.usize(..VERBS.len())];
        let first = if verb == "ask" { random.usize(1..6) } else { 1 };
        let plan = Plan {
            verb: verb.to_owned(),
            calls: (first, random.usize(1..4)),
            attack: Attack::Mutated(random.u64(..)),
        };
        // A checkpoint comes into the clone when the training fails, and outputs when it does not.
        let fails = verb == "pack-checkpoint" || (matches!(verb, "ask" | "follow") && random.u8(..) < 80);
        let code = if fails { 3 } else { 0 };
        let mut hostile = Hostile::new(&plan, code);
        if matches!(verb, "dvc" | "rescue") || random.bool() {
            hostile = hostile.with_dvc();
        }
        if verb == "rescue" {
            std::fs::write(hostile.scene.folder.path().join("store"), "a file, no folder").unwrap();
        }
        let when = format!("TRAINSPOT_SEED={seed}, run {run}: {verb} {:?}", plan.calls);
        let outcome = hostile.run(&when);
        say(&format!("{run}: code {}, {} KiB, {:?}", outcome.code, outcome.peak_kib, outcome.done));
        *codes.entry(outcome.code).or_default() += 1;
        *verbs.entry(verb).or_default() += 1;
        changed += outcome.done.len();
        peak_kib = peak_kib.max(outcome.peak_kib);
    }
    let took = start.elapsed().as_secs();
    say(&format!(
        "{count} runs, {changed} answers changed {verbs:?}: exit codes {codes:?}, at most {peak_kib} KiB, {took} s; \
         no file that was not asked for, no panic"
    ));
    assert!(changed > 0 || count == 0, "no answer was changed");
}
