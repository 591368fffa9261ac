//! DVC without DVC, beside the real one.

mod config;
mod corpus;
mod dialect;
mod edits;
mod files;
mod flow;
mod folders;
mod formats;
mod gdrive;
mod machine;
mod monorepo;
mod oracle;
mod pipelines;
mod push;
mod refusals;
mod remotes;
mod rescues;
mod trees;
mod web;
