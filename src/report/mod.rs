//! The report of a run: what was measured, made and paid, as Markdown.

pub mod metrics;
