//! Tests of the whole program, by feature.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agent;
mod agent_kills;
mod bitbucket;
mod config;
mod container;
mod docs;
mod kills;
mod link;
mod repo;
mod rig;
mod support;
mod train;
