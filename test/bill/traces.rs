//! Where and when spot machines were to be had, as somebody measured it.

use serde_json::Value;
use std::path::Path;

/// A set of zones that one run may choose from, and what a machine there costs.
pub(super) struct Trace {
    pub(super) name: &'static str,
    pub(super) instance_type: &'static str,
    zones: &'static str,
    source: &'static str,
    /// Dollars an hour.
    pub(super) spot: f64,
    pub(super) on_demand: f64,
    /// Disk and public address.
    pub(super) extras: f64,
    /// SageMaker's price for the same machine, beside EC2's.
    pub(super) managed: f64,
}

/// A GiB of gp3 for an hour, and a public address. Source: AWS's price list of 2023.
const GIB_HOUR: f64 = 0.08 / 730.0;
const ADDRESS: f64 = 0.005;

/// Spot prices are of one moment of early 2023 (SkyPilot's catalogue): the cheapest of the nine zones for
/// p3.2xlarge, the middle of the three for r5.16xlarge.
pub(super) const TRACES: [Trace; 3] = [
    Trace {
        name: "r5.16xlarge, 3 zones",
        instance_type: "r5.16xlarge",
        zones: "us-east-1",
        source: "04-19-2023",
        spot: 1.416,
        on_demand: 4.032,
        extras: 50.0 * GIB_HOUR + ADDRESS,
        managed: 1.2,
    },
    Trace {
        name: "p3.2xlarge, 3 zones",
        instance_type: "p3.2xlarge",
        zones: "us-west-2",
        source: "02-15-2023",
        spot: 0.934,
        on_demand: 3.06,
        extras: 100.0 * GIB_HOUR + ADDRESS,
        managed: 1.25,
    },
    Trace {
        name: "p3.2xlarge, 2 zones",
        instance_type: "p3.2xlarge",
        zones: "us-west-2",
        source: "04-22-2023",
        spot: 0.934,
        on_demand: 3.06,
        extras: 100.0 * GIB_HOUR + ADDRESS,
        managed: 1.25,
    },
];

/// A zone's capacity, in seconds since the trace began; after `span` it begins again.
pub(super) struct Zone {
    pub(super) name: String,
    up: Vec<(f64, f64)>,
    span: f64,
}

/// The file of measurements, which has no licence to be copied here; none where it is not beside the
/// checkout.
pub(super) fn measured() -> Option<Vec<Value>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces/runs.json");
    let text = std::fs::read_to_string(file).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

impl Trace {
    /// The zones of this trace, all of the same span.
    pub(super) fn zones(&self, measured: &[Value]) -> Vec<Zone> {
        let text = |zone: &Value, name: &str| zone[name].as_str().unwrap().to_owned();
        let ours = measured.iter().filter(|zone| {
            text(zone, "type") == self.instance_type
                && text(zone, "zone").starts_with(self.zones)
                && text(zone, "source").ends_with(self.source)
        });
        let mut zones: Vec<Zone> = ours.map(|zone| Zone::read(text(zone, "zone"), zone)).collect();
        let span = zones.iter().map(|zone| zone.span).fold(f64::INFINITY, f64::min);
        for zone in &mut zones {
            zone.span = span;
            zone.up.retain(|(from, _)| *from < span);
            zone.up.iter_mut().for_each(|(_, to)| *to = to.min(span));
        }
        zones
    }
}

impl Zone {
    pub(super) fn span(&self) -> f64 {
        self.span
    }

    fn read(name: String, zone: &Value) -> Self {
        let tick = zone["seconds"].as_f64().unwrap();
        let mut is_up = zone["first"] == 1;
        let (mut up, mut now) = (Vec::new(), 0.0);
        for run in zone["runs"].as_array().unwrap() {
            let end = now + run.as_f64().unwrap() * tick;
            if is_up {
                up.push((now, end));
            }
            (now, is_up) = (end, !is_up);
        }
        Self { name, up, span: now }
    }

    /// A zone whose capacity comes and goes by chance, within these hours: for tests, which cannot have the
    /// measured ones.
    pub(super) fn invented(name: &str, seed: u64, longest_up: f64, longest_down: f64) -> Self {
        let (mut random, span) = (fastrand::Rng::with_seed(seed), 5.0 * 86400.0);
        let (mut up, mut now) = (Vec::new(), 0.0);
        while now < span {
            let end = (now + 600.0 + random.f64() * longest_up * 3600.0).min(span);
            up.push((now, end));
            now = end + 300.0 + random.f64() * longest_down * 3600.0;
        }
        Self { name: name.to_owned(), up, span }
    }

    /// A zone that always has capacity.
    pub(super) fn quiet() -> Self {
        Self { name: "quiet".to_owned(), up: vec![(0.0, 86400.0)], span: 86400.0 }
    }

    pub(super) fn is_up(&self, at: f64) -> bool {
        self.end_of_time(at).is_some()
    }

    /// When what is up at this moment goes down; none where nothing is.
    pub(super) fn down_after(&self, at: f64) -> Option<f64> {
        let mut end = self.end_of_time(at)?;
        if self.up == [(0.0, self.span)] {
            return Some(f64::INFINITY);
        }
        // The trace's end is no loss where it begins with capacity again.
        while let Some(later) = self.end_of_time(end) {
            end = later;
        }
        Some(end)
    }

    /// When there is capacity next, this moment included.
    pub(super) fn up_from(&self, at: f64) -> f64 {
        if self.is_up(at) {
            return at;
        }
        let (round, within) = self.split(at);
        let next = self.up.iter().map(|(from, _)| *from).find(|from| *from > within);
        next.map_or_else(|| (round + 1.0) * self.span + self.up[0].0, |from| round * self.span + from)
    }

    fn end_of_time(&self, at: f64) -> Option<f64> {
        let (round, within) = self.split(at);
        let time = self.up.iter().find(|(from, to)| *from <= within && within < *to)?;
        Some(round * self.span + time.1)
    }

    fn split(&self, at: f64) -> (f64, f64) {
        let round = (at / self.span).floor();
        (round, at - round * self.span)
    }
}

#[test]
fn a_trace_begins_again_at_its_end() {
    let json = serde_json::json!({"seconds": 10, "first": 1, "runs": [1, 2, 3]});
    let zone = Zone::read("a".to_owned(), &json);
    assert_eq!(
        (zone.is_up(5.0), zone.is_up(15.0), zone.is_up(59.0), zone.is_up(65.0)),
        (true, false, true, true)
    );
    assert_eq!(
        (zone.down_after(5.0), zone.down_after(15.0), zone.down_after(31.0)),
        (Some(10.0), None, Some(70.0))
    );
    assert_eq!(
        (zone.up_from(5.0).round(), zone.up_from(15.0).round(), zone.up_from(75.0).round()),
        (5.0, 30.0, 90.0)
    );
}
