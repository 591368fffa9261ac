//! DVC without DVC, beside the real one.

mod attacks;
mod config;
mod corpus;
mod dialect;
mod edits;
mod files;
mod flow;
mod folders;
mod forged;
mod formats;
mod gdrive;
mod hostile;
mod machine;
mod monorepo;
mod oracle;
mod pipelines;
mod pull_requests;
mod push;
mod refusals;
mod remotes;
mod rescues;
mod trees;
mod web;
