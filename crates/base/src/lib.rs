//! Errors, the log and its secrets, retries, clocks, meters, locks, the process's memory: what every crate of
//! trainspot stands on.

pub mod clock;
pub mod error;
pub mod exposed;
pub mod log;
pub mod memory;
pub mod meter;
pub mod mutex;
pub mod retry;
