//! Bitbucket as the tests need it.
