//! What the machines of a run cost, as far as that can be told while they run.

use std::time::Duration;
use tokio::time::Instant;
use trainspot_compute::{Machine, Rate};

/// A spot machine that AWS takes back within this time costs nothing.
/// (AWS, "Billing for interrupted Spot Instances"; its disk and address cost all the same.)
const FREE_WHEN_TAKEN: Duration = Duration::from_hours(1);

/// One machine's part in a run.
#[derive(Clone, Debug)]
struct Part {
    id: String,
    rate: Option<Rate>,
    since: Instant,
    until: Option<Instant>,
    taken: bool,
}

impl Part {
    fn held(&self) -> Duration {
        self.until.unwrap_or_else(Instant::now).duration_since(self.since)
    }

    fn is_free(&self) -> bool {
        self.taken && self.held() <= FREE_WHEN_TAKEN
    }
}

/// All machines of a run so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Bill {
    parts: Vec<Part>,
}

/// A run's cost in dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// Machines, as they were bought.
    pub(crate) machines: f64,
    /// Disks and public addresses.
    pub(crate) extras: f64,
    /// The same hours on demand, where every machine's price is known.
    pub(crate) on_demand: Option<f64>,
}

impl Cost {
    pub(crate) fn total(&self) -> f64 {
        self.machines + self.extras
    }

    /// The cost in one phrase, as `about $0.31 (on demand: $0.98; 68 % saved), of it $0.01 for disk and
    /// address`.
    pub(crate) fn in_words(&self) -> String {
        let mut words = vec![format!("about {}", dollars(self.total()))];
        if let Some(on_demand) = self.on_demand.map(|machines| machines + self.extras) {
            let saved = 100.0 * (1.0 - self.total() / on_demand);
            if saved >= 0.5 {
                words.push(format!(" (on demand: {}; {saved:.0} % saved)", dollars(on_demand)));
            }
        }
        if self.extras >= 0.000_05 {
            words.push(format!(", of it {} for disk and address", dollars(self.extras)));
        }
        words.concat()
    }
}

/// Dollars with as many digits as a small amount needs.
fn dollars(amount: f64) -> String {
    if amount >= 0.095 { format!("${amount:.2}") } else { format!("${amount:.4}") }
}

impl Bill {
    /// A machine's time begins.
    pub(super) fn open(&mut self, machine: &Machine, since: Instant) {
        let (id, rate) = (machine.id.clone(), machine.rate);
        self.parts.push(Part { id, rate, since, until: None, taken: false });
    }

    /// Ends a machine's time; `taken` by its provider, as the provider itself says, or ended by us. Tells
    /// whether that is news.
    pub(super) fn close(&mut self, machine: &Machine, taken: bool) -> bool {
        let open = self.parts.iter_mut().find(|part| part.id == machine.id && part.until.is_none());
        let Some(part) = open else { return false };
        (part.until, part.taken) = (Some(Instant::now()), taken);
        true
    }

    /// The machines whose time is not known to be over.
    pub(super) fn open_ids(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter(|part| part.until.is_none()).map(|part| part.id.as_str())
    }

    /// The cost until now; none where a machine's price is not known.
    pub(super) fn cost(&self) -> Option<Cost> {
        let mut cost = Cost { on_demand: Some(0.0), ..Cost::default() };
        for part in &self.parts {
            let rate = part.rate?;
            let hours = part.held().as_secs_f64() / 3600.0;
            cost.extras += rate.extras * hours;
            cost.machines += if part.is_free() { 0.0 } else { rate.machine * hours };
            cost.on_demand = cost.on_demand.zip(rate.on_demand).map(|(sum, rate)| sum + rate * hours);
        }
        (!self.parts.is_empty()).then_some(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str, machine: f64) -> Machine {
        let rate = Rate { machine, on_demand: Some(1.0), extras: 0.02 };
        Machine {
            id: id.to_owned(),
            description: String::new(),
            pool: None,
            spot: false,
            rate: Some(rate),
            age: Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_taken_within_the_hour_costs_its_disk_only() {
        let mut bill = Bill::default();
        for (id, hours, taken) in [("a", 0.5, true), ("b", 2.0, true), ("c", 1.0, false)] {
            let machine = machine(id, 0.3);
            bill.open(&machine, Instant::now());
            tokio::time::advance(Duration::try_from_secs_f64(hours * 3600.0).unwrap()).await;
            bill.close(&machine, taken);
        }
        tokio::time::advance(Duration::from_hours(5)).await;
        let cost = bill.cost().unwrap();
        assert!((cost.machines - 0.9).abs() < 1e-9 && (cost.extras - 0.07).abs() < 1e-9, "{cost:?}");
        assert_eq!(
            cost.in_words(),
            "about $0.97 (on demand: $3.57; 73 % saved), of it $0.0700 for disk and address"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_price_makes_the_whole_unknown() {
        let mut bill = Bill::default();
        assert_eq!(bill.cost(), None);
        bill.open(&machine("a", 1.0), Instant::now());
        bill.open(&Machine { rate: None, ..machine("b", 1.0) }, Instant::now());
        assert_eq!(bill.cost(), None);
    }
}
