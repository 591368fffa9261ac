//! Tests that cannot run on a host: each says why, is counted, and fails where nothing may be skipped.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Set where a skip is a failure, as in CI.
const FORBIDDEN: &str = "TRAINSPOT_NO_SKIPS";
/// The file to which each skip adds a line, for `scripts/test.sh` to count.
const LEDGER: &str = "TRAINSPOT_SKIPS";

/// Says why a test, or a part of it, is skipped. The caller returns.
///
/// # Panics
/// `TRAINSPOT_NO_SKIPS` is set: the test fails.
pub fn skip(reason: &str) {
    let line = format!("skipped: {}\n", reason.trim_end());
    // Straight to the descriptor: the test harness hides what a test that passes prints by its macros.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(ledger) = std::env::var_os(LEDGER) {
        let file = OpenOptions::new().create(true).append(true).open(ledger);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
    assert!(std::env::var_os(FORBIDDEN).is_none(), "{FORBIDDEN} is set, and this test was skipped: {reason}");
}
