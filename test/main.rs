//! The integration tests, by feature.

mod bitbucket;
