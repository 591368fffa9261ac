//! The integration tests, by feature, against the parts that a user has: git itself, over HTTP.

mod repo;
