//! The agent on a machine: the training's log and end, checkpoints, and the machine's own end.

mod checkpoints;
mod clients;
mod ending;
mod guard;
mod imds;
mod interruption;
mod layouts;
mod log;
mod runner;
