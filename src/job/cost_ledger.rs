//! The costs of a run's machines, as far as they are known while the machines run.

use std::time::Duration;
use tokio::time::Instant;
use trainspot_compute::{Machine, Rate};

/// The time within which a spot machine that AWS takes back costs nothing.
/// (AWS, "Billing for interrupted Spot Instances"; its disk and address cost all the same.)
const FREE_RECLAIM_LIMIT: Duration = Duration::from_hours(1);

/// The use of one machine.
#[derive(Clone, Debug)]
struct MachineUsage {
    id: String,
    rate: Option<Rate>,
    since: Instant,
    until: Option<Instant>,
    reclaimed: bool,
}

impl MachineUsage {
    fn billed_time(&self) -> Duration {
        self.until.unwrap_or_else(Instant::now).duration_since(self.since)
    }
}

/// The cost of machines, each by its rate, its time, and whether its provider took it; none where there is no
/// machine, or the price of one is not known.
pub(crate) fn cost_of(usages: impl IntoIterator<Item = (Option<Rate>, Duration, bool)>) -> Option<Cost> {
    let (mut cost, mut count) = (Cost { on_demand: Some(0.0), ..Cost::default() }, 0);
    for (rate, time, is_reclaimed) in usages {
        let (rate, hours) = (rate?, time.as_secs_f64() / 3600.0);
        let is_free = is_reclaimed && time <= FREE_RECLAIM_LIMIT;
        cost.extras += rate.extras * hours;
        cost.machines += if is_free { 0.0 } else { rate.machine * hours };
        cost.on_demand = cost.on_demand.zip(rate.on_demand).map(|(sum, rate)| sum + rate * hours);
        count += 1;
    }
    (count > 0).then_some(cost)
}

/// The uses of all machines of a run so far.
#[derive(Clone, Debug, Default)]
pub(super) struct CostLedger {
    usages: Vec<MachineUsage>,
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

impl CostLedger {
    /// Begins to count a machine's time.
    pub(super) fn open(&mut self, machine: &Machine, since: Instant) {
        let (id, rate) = (machine.id.clone(), machine.rate);
        self.usages.push(MachineUsage { id, rate, since, until: None, reclaimed: false });
    }

    /// Ends a machine's time; `reclaimed` by its provider, as the provider itself says, or ended by us.
    /// Returns whether the machine's time was still counted.
    pub(super) fn close(&mut self, machine: &Machine, reclaimed: bool) -> bool {
        let open = self.usages.iter_mut().find(|usage| usage.id == machine.id && usage.until.is_none());
        let Some(usage) = open else { return false };
        (usage.until, usage.reclaimed) = (Some(Instant::now()), reclaimed);
        true
    }

    /// The machines whose time is not known to be over.
    pub(super) fn open_ids(&self) -> impl Iterator<Item = &str> {
        self.usages.iter().filter(|usage| usage.until.is_none()).map(|usage| usage.id.as_str())
    }

    /// The cost until now; none where a machine's price is not known.
    pub(super) fn cost(&self) -> Option<Cost> {
        cost_of(self.usages.iter().map(|usage| (usage.rate, usage.billed_time(), usage.reclaimed)))
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
        let mut ledger = CostLedger::default();
        for (id, hours, reclaimed) in [("a", 0.5, true), ("b", 2.0, true), ("c", 1.0, false)] {
            let machine = machine(id, 0.3);
            ledger.open(&machine, Instant::now());
            tokio::time::advance(Duration::try_from_secs_f64(hours * 3600.0).unwrap()).await;
            ledger.close(&machine, reclaimed);
        }
        tokio::time::advance(Duration::from_hours(5)).await;
        let cost = ledger.cost().unwrap();
        assert!((cost.machines - 0.9).abs() < 1e-9 && (cost.extras - 0.07).abs() < 1e-9, "{cost:?}");
        assert_eq!(
            cost.in_words(),
            "about $0.97 (on demand: $3.57; 73 % saved), of it $0.0700 for disk and address"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_price_makes_the_whole_unknown() {
        let mut ledger = CostLedger::default();
        assert_eq!(ledger.cost(), None);
        ledger.open(&machine("a", 1.0), Instant::now());
        ledger.open(&Machine { rate: None, ..machine("b", 1.0) }, Instant::now());
        assert_eq!(ledger.cost(), None);
    }
}
