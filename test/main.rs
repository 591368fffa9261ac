//! Tests of the whole program, by feature.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bitbucket;
mod config;
mod container;
mod docs;
mod kills;
mod repo;
mod support;
mod train;
