//! What a trained model costs on spot machines as they were to be had in 2023: trainspot's own job, on a
//! paused clock, beside models of other tools. `make bill` prints the table; docs/bill.md explains it.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of a few weeks, in seconds"
)]

mod models;
mod product;
mod provider;
mod traces;

use crate::config::variables::{Requirement, find};
use models::{MODELS, Model};
use product::Settings;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use traces::{TRACES, Trace, Zone};
use trainspot_compute::aws::Purchase;

/// From a machine that is up to its training: the workspace and the checkpoint are sent, packages installed.
const SET_UP: f64 = 60.0;
/// Dollars for a minute of Pipelines, and for a gigabyte that leaves AWS, as in docs/costs.md.
const MINUTE: f64 = 0.01;
const GIGABYTE: f64 = 0.09;
/// The size of one checkpoint.
const CHECKPOINT_GB: f64 = 1.0;
const HOUR: f64 = 3600.0;
/// How many moments of the trace a line begins runs at.
const STARTS: u32 = 240;

/// A work to be done over a trace.
struct Case {
    trace: &'static Trace,
    zones: Arc<Vec<Zone>>,
    /// Seconds of training, and between two saves.
    work: f64,
    interval: f64,
}

/// What became of one run.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    ended: bool,
    /// Dollars for machines, disks and addresses.
    cost: f64,
    /// Seconds from its start to its end, and those of them that a step of Pipelines waited.
    took: f64,
    waited: f64,
    /// The part of the rented time in which nothing was trained.
    idle: f64,
    checkpoints: u64,
}

/// From the launch to a machine that is up.
fn boot(random: &mut fastrand::Rng) -> f64 {
    60.0 + 90.0 * random.f64()
}

/// Whose runs a line of the table is about.
#[derive(Clone, Copy)]
enum Policy {
    Model(Model),
    Product(&'static str, Settings),
}

impl Policy {
    fn name(&self) -> &'static str {
        match self {
            Self::Model(model) => model.name,
            Self::Product(name, _) => name,
        }
    }

    fn run(&self, case: &Case, offset: f64, seed: u64) -> Outcome {
        match self {
            Self::Model(model) => model.run(case, offset, seed),
            Self::Product(_, settings) => product::run(case, *settings, offset, seed),
        }
    }
}

/// A variable's default, of the program's own table.
fn default_of(name: &str) -> &'static str {
    match find(name).unwrap().requirement {
        Requirement::Default(default) => default,
        _ => unreachable!("{name} has no default"),
    }
}

/// What is to be tried in the place of a variable's default, or that.
fn tried(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default_of(name).to_owned())
}

fn wait(variable: &str, name: &str) -> Duration {
    humantime::parse_duration(&tried(variable, name)).unwrap()
}

/// trainspot as it comes, but for the way to pay.
fn defaults(purchase: Purchase) -> Settings {
    Settings {
        purchase,
        max_restarts: tried("TRAINSPOT_BILL_MAX_RESTARTS", "MAX_RESTARTS").parse().unwrap(),
        capacity_wait: wait("TRAINSPOT_BILL_CAPACITY_WAIT", "CAPACITY_WAIT"),
        spot_wait: wait("TRAINSPOT_BILL_SPOT_WAIT", "SPOT_WAIT"),
        heeds: true,
    }
}

const SPOT: &str = "trainspot, spot";
const BOTH: &str = "trainspot, spot-then-on-demand";

fn policies() -> Vec<Policy> {
    let spot = defaults(Purchase::Spot);
    let ours = [
        Policy::Product(SPOT, spot),
        Policy::Product("… training ignores SIGTERM", Settings { heeds: false, ..spot }),
        Policy::Product(
            "… limits of 0.1.0",
            Settings { max_restarts: 3, capacity_wait: Duration::from_mins(15), ..spot },
        ),
        Policy::Product(BOTH, defaults(Purchase::SpotThenOnDemand)),
    ];
    let all = MODELS.iter().copied().map(Policy::Model).chain(ours);
    let wanted = std::env::var("TRAINSPOT_BILL_LINES").unwrap_or_default();
    all.filter(|policy| policy.name().contains(&wanted)).collect()
}

/// What the runs of one line come to.
struct Line {
    policy: &'static str,
    ended: f64,
    /// Percent of the same work on demand, for each model that came of the runs; then of the single runs that
    /// ended.
    share: f64,
    shares: Vec<f64>,
    minutes: f64,
    gigabytes: f64,
    total: f64,
    makespans: Vec<f64>,
    idle: f64,
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

impl Line {
    fn of(policy: &Policy, case: &Case, starts: u32) -> Self {
        let span = case.zones[0].span();
        let outcomes: Vec<Outcome> = (0..starts)
            .map(|number| policy.run(case, span * f64::from(number) / f64::from(starts), u64::from(number)))
            .collect();
        let trace = case.trace;
        let on_demand = (case.work + SET_UP + 105.0) / HOUR * (trace.on_demand + trace.extras);
        let ended: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.ended).collect();
        // What failed is paid for, too, and begun again until there is a model.
        let each =
            |figure: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(figure).sum::<f64>() / ended.len() as f64;
        let sorted = |figure: &dyn Fn(&Outcome) -> f64| {
            let mut all: Vec<f64> = ended.iter().map(|outcome| figure(outcome)).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let minutes = each(&|outcome| outcome.waited / 60.0);
        let gigabytes = each(&|outcome| outcome.checkpoints as f64) * CHECKPOINT_GB;
        let cost = each(&|outcome| outcome.cost);
        Self {
            policy: policy.name(),
            ended: 100.0 * ended.len() as f64 / outcomes.len() as f64,
            share: 100.0 * cost / on_demand,
            shares: sorted(&|outcome| 100.0 * outcome.cost / on_demand),
            minutes,
            gigabytes,
            total: cost + minutes * MINUTE + gigabytes * GIGABYTE,
            makespans: sorted(&|outcome| outcome.took / case.work),
            idle: 100.0 * outcomes.iter().map(|outcome| outcome.idle).sum::<f64>() / outcomes.len() as f64,
        }
    }

    fn text(&self) -> String {
        let (low, high) = (percentile(&self.shares, 10), percentile(&self.shares, 90));
        let (median, slow) = (percentile(&self.makespans, 50), percentile(&self.makespans, 90));
        format!(
            "| {} | {:.0} | {:.1} | {low:.0}–{high:.0} | {:.0} | {:.0} | {:.2} | {median:.2} | {slow:.2} | {:.1} |",
            self.policy, self.ended, self.share, self.minutes, self.gigabytes, self.total, self.idle
        )
    }
}

const HEADINGS: &str = "\
| Policy | Ended % | AWS, % of on demand | p10–p90 | Build minutes | Checkpoints, GB | Total $ | Makespan p50 | p90 | Idle % |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// The lines of one trace.
fn lines(trace: &'static Trace, zones: Vec<Zone>, policies: &[Policy], hours: f64, starts: u32) -> Vec<Line> {
    let case = Case { trace, zones: Arc::new(zones), work: hours * HOUR, interval: 600.0 };
    policies.iter().map(|policy| Line::of(policy, &case, starts)).collect()
}

fn table(trace: &Trace, lines: &[Line]) -> String {
    let mut text = format!("**{}**\n\n{HEADINGS}\n", trace.name);
    for line in lines {
        writeln!(text, "{}", line.text()).unwrap();
    }
    text
}

fn named<'a>(lines: &'a [Line], name: &str) -> &'a Line {
    lines.iter().find(|line| line.policy == name).unwrap()
}

/// The part of docs/bill.md that `make bill` writes, with these around it.
const RECORDED: [&str; 2] = ["<!-- Printed by `make bill`. -->\n\n", "\n<!-- End. -->"];

/// Puts the table into the document, or compares it with a recorded one of as many starts, and of the same
/// work.
fn record(text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bill.md");
    let document = std::fs::read_to_string(&file).unwrap();
    let from = document.find(RECORDED[0]).unwrap() + RECORDED[0].len();
    let to = document.find(RECORDED[1]).unwrap();
    let recorded = &document[from..to];
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, format!("{}{text}{}", &document[..from], &document[to..])).unwrap();
    } else if recorded.lines().next() == text.lines().next() {
        assert!(recorded == text, "docs/bill.md has another table; UPDATE_DOCS=1 make bill records this one");
    }
}

/// The whole table: `make bill`. Each trace has a thread.
#[test]
#[ignore = "takes many minutes; `make bill` runs it"]
fn what_a_model_costs_over_the_measured_traces() {
    let Some(measured) = traces::measured() else {
        return skip::skip("../shared/traces/runs.json is not there");
    };
    let given = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u32>().unwrap());
    let (starts, hours) = (given("TRAINSPOT_BILL_STARTS"), given("TRAINSPOT_BILL_HOURS"));
    let (starts, hours) = (starts.unwrap_or(STARTS), f64::from(hours.unwrap_or(12)));
    let policies = policies();
    let all: Vec<Vec<Line>> = std::thread::scope(|scope| {
        let thread = |trace: &'static Trace| {
            let (zones, policies) = (trace.zones(&measured), &policies);
            scope.spawn(move || lines(trace, zones, policies, hours, starts))
        };
        let threads: Vec<_> = TRACES.iter().map(thread).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let tables = TRACES.iter().zip(&all).map(|(trace, lines)| table(trace, lines));
    let tables = tables.collect::<Vec<_>>().join("\n");
    let text = format!("{starts} starts a line, {hours} h of work, a save every 10 minutes.\n\n{tables}");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    let limits = ["LINES", "SPOT_WAIT", "CAPACITY_WAIT", "MAX_RESTARTS"];
    if limits.iter().any(|name| std::env::var_os(format!("TRAINSPOT_BILL_{name}")).is_some()) {
        // The goals, and the document, are about the defaults.
        return;
    }
    record(&text);
    for (trace, lines) in TRACES.iter().zip(&all) {
        let (spot, both) = (named(lines, SPOT), named(lines, BOTH));
        assert!(spot.ended >= 95.0, "{}: {} % of the runs ended", trace.name, spot.ended);
        assert!(both.ended >= 100.0, "{}: {} % of the runs ended", trace.name, both.ended);
        assert!(both.share <= 1.5 * spot.share, "{}: {} and {} %", trace.name, both.share, spot.share);
        let peer = named(lines, "SkyPilot-like");
        assert!(spot.share <= peer.share + 1.0, "{}: {} and {} %", trace.name, spot.share, peer.share);
    }
}

/// The short form, over capacity that comes and goes by chance.
fn invented(work: f64) -> Case {
    let zone = |seed| Zone::invented(&format!("zone-{seed}"), seed, 3.0, 1.5);
    Case {
        trace: &TRACES[1],
        zones: Arc::new((1..=2).map(zone).collect()),
        work: work * HOUR,
        interval: 600.0,
    }
}

#[test]
fn the_defaults_end_every_run_and_stay_cheap() {
    let (case, starts) = (invented(4.0), 6);
    let line = |purchase| Line::of(&Policy::Product("", defaults(purchase)), &case, starts);
    let (spot, both) = (line(Purchase::Spot), line(Purchase::SpotThenOnDemand));
    assert_eq!((spot.ended, both.ended), (100.0, 100.0));
    assert!(both.share <= 1.5 * spot.share, "{} and {} %", both.share, spot.share);
    assert!(both.makespans.iter().sum::<f64>() <= spot.makespans.iter().sum::<f64>());
    assert!(spot.idle < 8.0, "{} %", spot.idle);
    // Free hours make it less than the price alone.
    let price = 100.0 * case.trace.spot / case.trace.on_demand;
    assert!((0.6 * price..1.1 * price).contains(&spot.share), "{} and {price} %", spot.share);
}

#[test]
fn the_same_start_gives_the_same_run() {
    let case = invented(2.0);
    for purchase in [Purchase::Spot, Purchase::SpotThenOnDemand] {
        let run = || product::run(&case, defaults(purchase), 54_321.0, 7);
        assert_eq!(run(), run());
    }
}

#[test]
fn a_training_that_saves_on_sigterm_loses_nothing_and_another_one_does() {
    let case = invented(4.0);
    let heeding = defaults(Purchase::Spot);
    let trained = |settings| {
        let starts = [1.0, 2.0, 3.0].map(|start| product::run(&case, settings, start * 80_000.0, 3));
        starts.iter().map(|outcome| outcome.took * (1.0 - outcome.idle)).sum::<f64>()
    };
    assert!(trained(heeding) < trained(Settings { heeds: false, ..heeding }));
}

#[test]
fn models_on_a_machine_that_nobody_takes_cost_its_hours() {
    let case = Case { zones: Arc::new(vec![Zone::quiet()]), ..invented(4.0) };
    for model in MODELS {
        let outcome = model.run(&case, 0.0, 3);
        assert!(outcome.ended && outcome.took < case.work + 300.0, "{}: {outcome:?}", model.name);
        let trace = case.trace;
        let hourly = match model.name {
            "on demand" => trace.on_demand + trace.extras,
            "SageMaker-like" => trace.spot * trace.managed,
            _ => trace.spot + trace.extras,
        };
        let share = outcome.cost / (hourly * case.work / HOUR);
        assert!((1.0..1.02).contains(&share), "{}: {share}", model.name);
    }
}
