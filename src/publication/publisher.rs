//! The clone and the settings of a run, for whatever is published of it.

use crate::config::Config;
use trainspot_base::error::Result;
use trainspot_git::Checkout;

/// Turns the outputs of a run into a commit, a pull request and a report.
pub(crate) struct Publisher<'a> {
    pub(crate) config: &'a Config,
    /// The clone, at the commit that this pipeline runs for.
    pub(crate) checkout: Checkout,
}

impl<'a> Publisher<'a> {
    /// Opens the clone.
    ///
    /// # Errors
    /// There is no clone, or it has no commit.
    pub(crate) fn open(config: &'a Config) -> Result<Self> {
        let checkout = Checkout::open(&config.clone_dir)?;
        let checkout = match (&config.pipeline.pr_id, &config.pipeline.commit) {
            (Some(_), Some(source)) => checkout.of_pull_request(source),
            _ => checkout,
        };
        Ok(Self { config, checkout })
    }
}
