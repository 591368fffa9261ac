//! Every kind of remote against a real server, or the nearest to it that a registry has.

mod clouds;
mod faults;
mod proxy;
mod reading;
pub(super) mod sample;
mod servers;
mod settings;
mod stores;
