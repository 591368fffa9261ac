//! The one way in which trainspot talks HTTP, whoever the server is.
//!
//! | question | where |
//! | --- | --- |
//! | does a redirect carry the credential away? | [`client`] |
//! | how much of an answer is read? | [`Answer`], [`whole`], [`beginning`] |
//! | may the same request succeed later, and when? | [`is_transient`], [`NoAnswer`], [`retry_after`] |
//! | what does a refusal say? | [`quote`] |
//!
//! A stalled exchange is found by `trainspot_base::meter`, and tried again by `trainspot_base::retry`.
//! What a refusal means to the user is the caller's knowledge, and stays with the caller.

mod answer;
mod body;
mod client;
mod no_answer;
mod patience;
mod quote;

pub use answer::{Answer, is_transient, retry_after};
pub use body::{beginning, whole};
pub use client::{CONNECT_TIMEOUT, Redirects, USER_AGENT, client, is_loopback};
pub use no_answer::NoAnswer;
pub use patience::{REQUEST_RETRY, transfer_timeout};
pub use quote::quote;

#[cfg(test)]
mod test_server;
