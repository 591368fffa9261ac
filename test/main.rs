//! Tests of the whole program, by feature.
#![allow(
    clippy::unwrap_used,
    clippy::unchecked_time_subtraction,
    reason = "a test that cannot go on has failed"
)]

mod agent;
mod agent_kills;
mod bitbucket;
mod config;
mod container;
mod detached;
mod docs;
mod dvc;
mod ec2;
mod forms;
mod hostile_remote;
mod hostile_servers;
mod kills;
mod link;
mod local_machine;
mod preflight;
mod publication;
mod repo;
mod runner;
mod secrets;
mod ssh_server;
mod step;
mod support;
mod train;
mod words;
