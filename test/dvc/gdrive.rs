//! Google Drive, against a fake of its API.
//!
//! The fake is held to what Google publishes: every request is checked against the discovery document of
//! Drive v3, and Google's own Python client drives it as it drives Drive. DVC itself pulls from it what was
//! sent, and sends what is then found. All of that needs packages of Python; where they cannot be had, those
//! tests are skipped.

mod auth;
mod contract;
mod credentials;
mod fake;
mod faults;
mod files;
mod http;
mod others;
mod query;
mod refusals;
mod sample;
mod stores;
mod upload;
mod v2;
