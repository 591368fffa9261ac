//! The clients of AWS, one for each service and region, all with the same credentials.

use super::credentials::RenewingCredentials;
use super::failure::AwsError;
use super::sdk_config::config_loader;
use aws_config::identity::IdentityCache;
use aws_config::{Region, SdkConfig};
use std::collections::BTreeMap;
use trainspot_base::error::Result;
use trainspot_compute::aws::AwsAccount;

/// The clients of one account. The SDK itself reads `AWS_ENDPOINT_URL`.
#[derive(Debug)]
pub struct AwsClients {
    config: SdkConfig,
    /// `workspace/slug`: only this repository's machines and resources are found, entered and removed.
    repository: String,
    /// The region that the user named first; the others are fallbacks.
    first: String,
    /// EC2's clients of the account's regions, kept as each has its own connections.
    ec2: BTreeMap<String, aws_sdk_ec2::Client>,
}

impl AwsClients {
    /// Finds credentials, and makes the clients. `repository` (`workspace/slug`) is the one that this pipe
    /// runs for.
    ///
    /// # Errors
    /// There are no credentials, or AWS does not give the role.
    pub async fn new(account: &AwsAccount, repository: &str) -> Result<Self> {
        let first = account.regions.first().map_or("us-east-1", String::as_str);
        let session = RenewingCredentials::open(account, first).await?;
        let config = config_loader(first)
            .credentials_provider(session)
            // The session caches itself, and must be asked each time to be renewed in time.
            .identity_cache(IdentityCache::no_cache())
            .load()
            .await;
        let (repository, first) = (repository.to_owned(), first.to_owned());
        let clients = Self { config, repository, first, ec2: BTreeMap::new() };
        let ec2 = account.regions.iter().map(|region| (region.clone(), clients.ec2(region))).collect();
        Ok(Self { ec2, ..clients })
    }

    /// The repository that this pipe runs for, as `workspace/slug`.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// The account's regions.
    pub(super) fn regions(&self) -> impl Iterator<Item = &str> {
        self.ec2.keys().map(String::as_str)
    }

    /// Whether `region` is the one that the user named first, and not a fallback.
    pub(super) fn is_first(&self, region: &str) -> bool {
        self.first == region
    }

    /// The things found in a region; nothing for a fallback region that the account cannot access: it cannot
    /// have launched anything there.
    pub(super) fn empty_if_inaccessible<T>(
        &self,
        region: &str,
        found: Result<Vec<T>, AwsError>,
    ) -> Result<Vec<T>, AwsError> {
        match found {
            Err(failure) if failure.is_region_inaccessible() && !self.is_first(region) => {
                tracing::debug!("{region} is not looked at: {failure}");
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// EC2 of a region.
    pub(super) fn ec2(&self, region: &str) -> aws_sdk_ec2::Client {
        let made = || aws_sdk_ec2::Client::new(&self.config_for(region));
        self.ec2.get(region).cloned().unwrap_or_else(made)
    }

    /// Systems Manager of a region, for its public parameters.
    pub(super) fn ssm(&self, region: &str) -> aws_sdk_ssm::Client {
        aws_sdk_ssm::Client::new(&self.config_for(region))
    }

    /// EC2 Instance Connect of a region.
    pub(super) fn instance_connect(&self, region: &str) -> aws_sdk_ec2instanceconnect::Client {
        aws_sdk_ec2instanceconnect::Client::new(&self.config_for(region))
    }

    /// Service Quotas of a region.
    pub(super) fn quotas(&self, region: &str) -> aws_sdk_servicequotas::Client {
        aws_sdk_servicequotas::Client::new(&self.config_for(region))
    }

    /// The price list, which some regions hold for all; none for the partitions that have no list in dollars.
    pub(super) fn pricing(&self, region: &str) -> Option<aws_sdk_pricing::Client> {
        pricing_region(region).map(|region| aws_sdk_pricing::Client::new(&self.config_for(region)))
    }

    fn config_for(&self, region: &str) -> SdkConfig {
        self.config.to_builder().region(Region::new(region.to_owned())).build()
    }
}

/// The nearest region that serves the price list.
fn pricing_region(region: &str) -> Option<&'static str> {
    match region.split('-').next()? {
        "cn" => None,
        _ if region.starts_with("us-gov-") || region.starts_with("us-iso") => None,
        "eu" | "af" | "il" | "me" => Some("eu-central-1"),
        "ap" => Some("ap-south-1"),
        _ => Some("us-east-1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_list_is_asked_where_it_is() {
        let cases = [
            ("eu-west-1", Some("eu-central-1")),
            ("us-west-2", Some("us-east-1")),
            ("ap-northeast-1", Some("ap-south-1")),
            ("us-gov-west-1", None),
            ("cn-north-1", None),
        ];
        for (region, expected) in cases {
            assert_eq!(pricing_region(region), expected, "{region}");
        }
    }
}
