//! What a run costs beside its machines: minutes of Pipelines while the pipe waits, and what is sent out of
//! AWS.

use crate::config::Config;
use crate::step;
use std::time::Duration;
use trainspot_base::log::count;
#[cfg(feature = "aws")]
use trainspot_ec2::plan::SideCosts;

/// What a minute costs once those of the plan are used up: $10 for 1,000, on every plan. Source:
/// bitbucket.org/product/pricing.
const DOLLARS_A_MINUTE: f64 = 0.01;
/// What a gigabyte from EC2 to the internet costs, in most regions. Source:
/// aws.amazon.com/ec2/pricing/on-demand, "Data Transfer OUT From Amazon EC2 To Internet".
const DOLLARS_A_GIGABYTE: f64 = 0.09;
const BYTES_A_GIGABYTE: f64 = 1e9;

/// What both cost, for the plan.
#[cfg(feature = "aws")]
pub(super) fn beside(config: &Config) -> SideCosts {
    SideCosts { waiting_hour: dollars_an_hour(config), gigabyte: DOLLARS_A_GIGABYTE }
}

/// What the minutes of the pipe's step cost, in dollars an hour; nothing where none are counted.
fn dollars_an_hour(config: &Config) -> f64 {
    let declared = step::declared(&config.clone_dir, &config.given, None);
    let (size, is_self_hosted) = declared.map_or((1, false), |step| (step.size, step.is_self_hosted));
    let counts = config.pipeline.step_uuid.is_some() && !is_self_hosted;
    if counts { f64::from(size) * DOLLARS_A_MINUTE * 60.0 } else { 0.0 }
}

/// What the run took of both, in a sentence; none where it took nothing that is charged.
pub(super) fn in_words(config: &Config, took: Duration, bytes_out_of_aws: u64) -> Option<String> {
    let each = dollars_an_hour(config) / 60.0;
    let (minutes, bytes) = (minutes(took, each), traffic(bytes_out_of_aws));
    let parts: Vec<String> = [minutes, bytes].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("Beside the machine: {}.", parts.join("; ")))
}

fn minutes(took: Duration, each: f64) -> Option<String> {
    let minutes = took.as_secs().div_ceil(60);
    let size = (each / DOLLARS_A_MINUTE).round();
    let dollars = Duration::from_secs(minutes * 60).as_secs_f64() / 60.0 * each;
    let times = if size > 1.0 { format!(", each counted {size} times") } else { String::new() };
    (size > 0.0).then(|| {
        let minutes = count(minutes, "build minute");
        format!("the pipe took {minutes}{times} (${dollars:.2} once the plan's own are used up)")
    })
}

fn traffic(bytes: u64) -> Option<String> {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let gigabytes = bytes as f64 / BYTES_A_GIGABYTE;
    let dollars = gigabytes * DOLLARS_A_GIGABYTE;
    (dollars >= 0.005).then(|| {
        format!(
            "{gigabytes:.1} GB of checkpoints and outputs came out of AWS (up to ${dollars:.2}; an account's first 100 GB a \
             month are free, and the pipe does not know what else it sends)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_begun_count_whole_and_by_the_size_of_the_step() {
        let took = Duration::from_secs(95 * 60 - 20);
        assert_eq!(
            minutes(took, 0.01).unwrap(),
            "the pipe took 95 build minutes ($0.95 once the plan's own are used up)"
        );
        assert_eq!(
            minutes(took, 0.04).unwrap(),
            "the pipe took 95 build minutes, each counted 4 times ($3.80 once the plan's own are used up)"
        );
        assert_eq!(minutes(took, 0.0), None);
    }

    #[test]
    fn traffic_that_costs_cents_is_told() {
        assert_eq!(traffic(40_000_000), None);
        let told = traffic(72_000_000_000).unwrap();
        assert!(
            told.starts_with("72.0 GB of checkpoints and outputs came out of AWS (up to $6.48; "),
            "{told}"
        );
    }
}
