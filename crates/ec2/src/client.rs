//! One client a service and region, with credentials that are looked for once.

use super::credentials::Session;
use super::failure::Failure;
use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use std::collections::BTreeMap;
use std::time::Duration;
use trainspot_base::error::Result;
use trainspot_compute::aws::AwsAccount;

/// How long one attempt of a call may take.
pub(super) const ATTEMPT_DEADLINE: Duration = Duration::from_secs(20);

/// The way to AWS. The SDK itself reads `AWS_ENDPOINT_URL`.
#[derive(Debug)]
pub struct Cloud {
    config: SdkConfig,
    /// `workspace/slug`: the repository whose things are looked for, entered and removed, and no other's.
    repository: String,
    /// The region that the user named first; the others are fallbacks.
    first: String,
    /// A client has its own connections: those of the plan's regions are kept.
    ec2: BTreeMap<String, aws_sdk_ec2::Client>,
}

impl Cloud {
    /// Finds credentials, and makes the clients. `repository` (`workspace/slug`) is the one that this pipe
    /// runs for.
    ///
    /// # Errors
    /// There are no credentials, or AWS does not give the role.
    pub async fn new(account: &AwsAccount, repository: &str) -> Result<Self> {
        let first = account.regions.first().map_or("us-east-1", String::as_str);
        let session = Session::open(account, first).await?;
        let config = settings(first)
            .credentials_provider(session)
            // The session is its own cache: it must be asked each time to be renewed in time.
            .identity_cache(IdentityCache::no_cache())
            .load()
            .await;
        let (repository, first) = (repository.to_owned(), first.to_owned());
        let cloud = Self { config, repository, first, ec2: BTreeMap::new() };
        let ec2 = account.regions.iter().map(|region| (region.clone(), cloud.ec2(region))).collect();
        Ok(Self { ec2, ..cloud })
    }

    /// The repository that this pipe runs for, as `workspace/slug`.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// The account's regions.
    pub(super) fn regions(&self) -> impl Iterator<Item = &str> {
        self.ec2.keys().map(String::as_str)
    }

    /// Whether it is the region that the user named first, and not a fallback.
    pub(super) fn is_first(&self, region: &str) -> bool {
        self.first == region
    }

    /// What was found in a region. In a fallback that the account has no way into there is nothing: it cannot
    /// have launched anything there.
    pub(super) fn found<T>(&self, region: &str, found: Result<Vec<T>, Failure>) -> Result<Vec<T>, Failure> {
        match found {
            Err(failure) if failure.is_closed() && !self.is_first(region) => {
                tracing::debug!("{region} is not looked at: {failure}");
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// EC2 of a region.
    pub(super) fn ec2(&self, region: &str) -> aws_sdk_ec2::Client {
        let made = || aws_sdk_ec2::Client::new(&self.of(region));
        self.ec2.get(region).cloned().unwrap_or_else(made)
    }

    /// Systems Manager of a region, for its public parameters.
    pub(super) fn ssm(&self, region: &str) -> aws_sdk_ssm::Client {
        aws_sdk_ssm::Client::new(&self.of(region))
    }

    /// EC2 Instance Connect of a region.
    pub(super) fn instance_connect(&self, region: &str) -> aws_sdk_ec2instanceconnect::Client {
        aws_sdk_ec2instanceconnect::Client::new(&self.of(region))
    }

    /// Service Quotas of a region.
    pub(super) fn quotas(&self, region: &str) -> aws_sdk_servicequotas::Client {
        aws_sdk_servicequotas::Client::new(&self.of(region))
    }

    /// The price list, which some regions hold for all; none for the partitions that have no list in dollars.
    pub(super) fn pricing(&self, region: &str) -> Option<aws_sdk_pricing::Client> {
        pricing_region(region).map(|region| aws_sdk_pricing::Client::new(&self.of(region)))
    }

    fn of(&self, region: &str) -> SdkConfig {
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

/// The deadlines of a call whose attempts may take so long.
pub(super) fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(attempt)
        .build()
}

/// Clients without credentials, for the call that gives some.
pub(super) async fn bare(region: &str) -> SdkConfig {
    settings(region).no_credentials().load().await
}

/// Retries are ours (see `failure`): the SDK's would multiply them, and repeat a lack of capacity.
fn settings(region: &str) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(ATTEMPT_DEADLINE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A service that answers everything with an error that passes. Its URL, and how many requests it has
    /// had.
    async fn broken_service() -> (String, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut vec![0; 1 << 16]).await;
                counted.fetch_add(1, Ordering::Relaxed);
                let answer =
                    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        (url, requests)
    }

    /// The SDK's own retries would multiply ours, and repeat a launch that has no capacity.
    #[tokio::test]
    async fn the_sdk_sends_one_request_for_one_call() {
        let (url, requests) = broken_service().await;
        let keys = Credentials::new("key", "secret", None, None, "test");
        let config = settings("eu-west-1").endpoint_url(url).credentials_provider(keys).load().await;
        let answer = aws_sdk_ec2::Client::new(&config).describe_regions().send().await;
        assert!(answer.is_err());
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }

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
