//! Errors, the log and its secrets, retries, clocks, locks: what every crate of trainspot stands on.

pub mod clock;
pub mod error;
pub mod log;
pub mod mutex;
pub mod retry;
