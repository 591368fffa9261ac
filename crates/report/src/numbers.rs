//! Numbers, sizes and times as people read them.

use std::time::Duration;

/// The significant digits of a number: enough to tell two trainings apart; more is the noise of floating
/// point.
const SIGNIFICANT_DIGITS: i32 = 6;

/// A number with at most six significant digits; whole numbers below 10^15 with all of theirs.
pub(super) fn number(value: f64) -> String {
    significant(value, SIGNIFICANT_DIGITS)
}

/// A number as [`number`] shows it, with its sign always.
pub(super) fn signed(value: f64) -> String {
    with_sign(value, number(value))
}

/// A share in percent, with its sign and three significant digits.
pub(super) fn percent(value: f64) -> String {
    with_sign(value, significant(value, 3)) + " %"
}

/// A size as "1.5 GiB"; below a KiB the exact number of bytes.
#[must_use]
#[allow(clippy::cast_precision_loss)] // Three digits are shown.
pub fn bytes(size: u64) -> String {
    const SIZE_UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let (mut scaled, mut unit) = (size as f64 / 1024.0, 0);
    // 1023.96 would be rounded to "1024.0".
    while scaled >= 1023.95 && unit + 1 < SIZE_UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", SIZE_UNITS[unit])
}

/// A time to the second, as "1h 2m 3s".
pub(super) fn duration(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

fn with_sign(value: f64, shown: String) -> String {
    if value > 0.0 { format!("+{shown}") } else { shown }
}

#[allow(clippy::cast_possible_truncation)] // The logarithm of a finite number is below 400.
fn significant(value: f64, digits: i32) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        return value.to_string();
    }
    if value == 0.0 || (value.fract() == 0.0 && magnitude < 1e15) {
        return format!("{:.0}", value + 0.0); // Adding 0 makes -0 a plain 0.
    }
    if !(1e-4..1e15).contains(&magnitude) {
        let shown = format!("{value:.*e}", usize::try_from(digits - 1).unwrap_or(0));
        let (mantissa, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
        return format!("{}e{exponent}", without_trailing_zeros(mantissa));
    }
    let decimals = digits - 1 - magnitude.log10().floor() as i32;
    without_trailing_zeros(&format!("{value:.*}", usize::try_from(decimals).unwrap_or(0))).to_owned()
}

fn without_trailing_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_six_digits_that_mean_something() {
        let cases = [
            (0.1 + 0.2, "0.3"),
            (0.0, "0"),
            (-0.0, "0"),
            (100.0, "100"),
            (1_234_567.0, "1234567"),
            (1_234_567.891, "1234568"),
            (0.999_999_99, "1"),
            (12.345_678_9, "12.3457"),
            (-0.000_123_456_7, "-0.000123457"),
            (0.000_01, "1e-5"),
            (1.5e300, "1.5e300"),
            (1e20, "1e20"),
            (f64::MIN_POSITIVE, "2.22507e-308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
        assert_eq!([signed(0.5), signed(-0.5), signed(0.0)], ["+0.5", "-0.5", "0"]);
        assert_eq!(
            [percent(2.345), percent(-1234.5), percent(0.012_345)],
            ["+2.35 %", "-1234 %", "+0.0123 %"]
        );
    }

    #[test]
    fn sizes_and_times() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (size, expected) in cases {
            assert_eq!(bytes(size), expected);
        }
        assert_eq!(duration(Duration::from_millis(3_723_900)), "1h 2m 3s");
        assert_eq!(duration(Duration::from_millis(5)), "0s");
    }
}
