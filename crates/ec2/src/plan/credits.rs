//! What burstable types cost beyond their price: T3, T3a and T4g run on when their CPU credits are used up,
//! and each virtual CPU's hour above the baseline is charged then.
//!
//! Standard mode, which charges nothing, would slow the machine down to its baseline from the start: these
//! types get no credits at their launch. Source:
//! docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances.html, its pages on unlimited
//! mode and on the baseline.

/// The share of each virtual CPU that a size may use for nothing.
const CPU_BASELINES: [(&str, f64, f64); 7] = [
    // Size, virtual CPUs, baseline of each.
    ("nano", 2.0, 0.05),
    ("micro", 2.0, 0.10),
    ("small", 2.0, 0.20),
    ("medium", 2.0, 0.20),
    ("large", 2.0, 0.30),
    ("xlarge", 4.0, 0.40),
    ("2xlarge", 8.0, 0.40),
];

/// The dollars that an hour at full load costs for surplus credits, beside the machine's price; nothing for
/// types that are not charged for any.
pub(super) fn surplus(instance_type: &str) -> f64 {
    let Some((family, size)) = instance_type.split_once('.') else { return 0.0 };
    let dollars_a_cpu_hour = match family {
        "t3" | "t3a" => 0.05,
        "t4g" => 0.04,
        _ => return 0.0,
    };
    let size = CPU_BASELINES.iter().find(|(name, ..)| *name == size);
    size.map_or(0.0, |(_, cpus, baseline)| cpus * (1.0 - baseline) * dollars_a_cpu_hour)
}

#[cfg(test)]
mod tests {
    use super::surplus;

    #[test]
    fn only_types_that_go_on_without_credits_cost_more() {
        for (name, expected) in [
            ("t3.medium", 0.08),
            ("t3a.2xlarge", 0.24),
            ("t4g.large", 0.056),
            ("t2.large", 0.0),
            ("m5.large", 0.0),
        ] {
            assert!((surplus(name) - expected).abs() < 1e-9, "{name}: {}", surplus(name));
        }
    }
}
