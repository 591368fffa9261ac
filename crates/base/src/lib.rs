//! Errors, the log and its secrets, retries, clocks, meters, locks: what every crate of trainspot stands on.

pub mod clock;
pub mod error;
pub mod log;
pub mod meter;
pub mod mutex;
pub mod retry;
