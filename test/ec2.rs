//! Renting from AWS.

mod boot;
mod campaign;
mod credentials;
mod endings;
mod evaluator;
mod faults;
mod flow;
mod gatekeeper;
mod http;
mod interruptions;
mod lab;
pub(crate) mod moto;
mod neighbours;
mod permissions;
mod plan;
mod policy;
mod pools;
mod rehearsal;
mod rent;
mod rental;
mod runner;
mod step;
mod stopgap;
