//! YAML as ruamel's round trip writes it, which is what DVC updates its files with.
//!
//! No crate does that: those that keep comments leave quotes, indentation and line ends as they find them,
//! where ruamel writes them anew. What is here is as much of it as `.dvc` files use.

mod document;
mod line;
mod parse;
mod resolve;
mod scalar;

pub(super) use document::{Document, YamlValue};
pub(super) use parse::parse_document;
pub(super) use scalar::{ScalarPosition, scalar};
