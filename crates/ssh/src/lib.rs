//! The one way in which trainspot talks SSH: to the machines that it rents, and to the servers that keep
//! objects for DVC.
//!
//! A connection is made only to a server that shows one of the expected host keys. Keys and passwords come
//! from the caller: neither an agent nor `~/.ssh/config` is asked.

mod config;
mod connection;
mod failure;
mod login;

pub use connection::SshConnection;
pub use failure::ConnectError;

#[cfg(test)]
mod tests;
