//! Models of other ways to train on the same machines. None of their code runs: each is the arithmetic of
//! what its documentation and source say it does, simplified in its favour where that was open. docs/bill.md
//! says what each assumes.

use super::traces::Zone;
use super::{Case, Outcome, SET_UP, boot};

/// How a tool gets machines and what it does with their loss.
#[derive(Clone, Copy)]
pub(super) struct Model {
    pub(super) name: &'static str,
    /// Which zones it may use.
    zones: Zones,
    /// Whether the next machine goes on from the newest save.
    resumes: bool,
    /// Whether the notice is used to save.
    heeds: bool,
    /// From a loss to the job's start on the next machine, at least.
    recovery: f64,
    /// Between two looks for capacity, and the most that it grows to.
    pause: (f64, f64),
    /// A managed service: its prices are higher, and neither the boot nor disk and address are billed apart;
    /// no hour is free.
    is_managed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Zones {
    /// On demand in any zone.
    OnDemand,
    /// One that is drawn at the start.
    One,
    Any,
}

const BASE: Model = Model {
    name: "",
    zones: Zones::Any,
    resumes: true,
    heeds: false,
    recovery: 0.0,
    pause: (30.0, 30.0),
    is_managed: false,
};

pub(super) const MODELS: [Model; 5] = [
    Model { name: "on demand", zones: Zones::OnDemand, ..BASE },
    Model { name: "CML-like: one zone, from zero", zones: Zones::One, resumes: false, ..BASE },
    Model { name: "TPI-like: one zone, resumes", zones: Zones::One, ..BASE },
    Model { name: "SkyPilot-like", recovery: 180.0, pause: (60.0, 300.0), ..BASE },
    Model { name: "SageMaker-like", heeds: true, is_managed: true, ..BASE },
];

/// What EC2 takes back within this time is free.
const FREE: f64 = 3600.0;
/// No run goes on for longer than so many times its work.
const LONGEST: f64 = 20.0;
/// Minutes of Pipelines that starting such a job, and asking for its result, takes.
const CI_MINUTES: f64 = 5.0;

impl Model {
    pub(super) fn run(&self, case: &Case, offset: f64, seed: u64) -> Outcome {
        let mut random = fastrand::Rng::with_seed(seed);
        let only = random.usize(..case.zones.len());
        let mut run = Run { saved: 0.0, cost: 0.0, held: 0.0, trained: 0.0, checkpoints: 0 };
        let (mut now, mut lost) = (offset, f64::NEG_INFINITY);
        let mut ended = false;
        while !ended && now - offset < LONGEST * case.work {
            let (launched, gone) = match self.zones {
                Zones::OnDemand => (now, f64::INFINITY),
                Zones::One => self.get(&case.zones[only..=only], now),
                Zones::Any => self.get(&case.zones, now),
            };
            let started = (launched + boot(&mut random) + SET_UP).max(lost + self.recovery);
            (ended, now) = self.train(case, &mut run, (launched, started, gone));
            lost = now;
        }
        Outcome {
            ended,
            cost: run.cost,
            took: now - offset,
            waited: CI_MINUTES * 60.0,
            idle: 1.0 - run.trained / run.held,
            checkpoints: run.checkpoints,
        }
    }

    /// When a machine is had, and when it will be taken.
    fn get(&self, zones: &[Zone], from: f64) -> (f64, f64) {
        let (mut now, mut pause) = (from, self.pause.0);
        loop {
            if let Some(down) = zones.iter().find_map(|zone| zone.down_after(now)) {
                return (now, down.max(now + 120.0));
            }
            let next = zones.iter().map(|zone| zone.up_from(now)).fold(f64::INFINITY, f64::min);
            while now < next {
                now += pause;
                pause = (pause * 1.6).min(self.pause.1);
            }
        }
    }

    /// One machine's part; whether the work is done, and when that part ended.
    fn train(&self, case: &Case, run: &mut Run, (launched, started, gone): (f64, f64, f64)) -> (bool, f64) {
        let from = if self.resumes { run.saved } else { 0.0 };
        let done = started + case.work - from;
        let (ended, end) = (done <= gone, done.min(gone));
        let trained = (end - started).max(0.0);
        let saves = if self.resumes { (trained / case.interval).floor() } else { 0.0 };
        run.checkpoints += saves as u64;
        let kept = if self.heeds { trained } else { saves * case.interval };
        run.saved = run.saved.max(from + kept);
        run.held += end - launched;
        run.trained += trained;
        let trace = case.trace;
        let hours = (end - launched) / 3600.0;
        let billed = (end - started).max(0.0) / 3600.0;
        let rate = if self.zones == Zones::OnDemand { trace.on_demand } else { trace.spot };
        run.cost += if self.is_managed {
            (billed + SET_UP / 3600.0) * rate * trace.managed
        } else {
            let free = !ended && end - launched <= FREE;
            hours * (trace.extras + if free { 0.0 } else { rate })
        };
        (ended, end)
    }
}

struct Run {
    saved: f64,
    cost: f64,
    held: f64,
    trained: f64,
    checkpoints: u64,
}
