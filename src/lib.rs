//! `trainspot` trains a repository's model on a machine that it rents, and commits the result back.
//!
//! The rooms, and which may call which, are drawn in `ARCHITECTURE.md`.

pub mod bitbucket;
pub mod error;
pub mod retry;
