//! How the AWS SDK is set up: deadlines, and no retries of its own.

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use std::time::Duration;

/// How long one attempt of a call may take, unless the call says otherwise.
pub(super) const ATTEMPT_DEADLINE: Duration = Duration::from_secs(20);

/// The deadlines of a call of which each attempt may take `attempt`.
pub(super) fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(attempt)
        .build()
}

/// The configuration without credentials, for the call that gives some.
pub(super) async fn config_without_credentials(region: &str) -> SdkConfig {
    config_loader(region).no_credentials().load().await
}

/// The configuration of a region, still without credentials. Retries are ours (see `failure`): the SDK's
/// would multiply them, and repeat a lack of capacity.
pub(super) fn config_loader(region: &str) -> ConfigLoader {
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
        let config = config_loader("eu-west-1").endpoint_url(url).credentials_provider(keys).load().await;
        let answer = aws_sdk_ec2::Client::new(&config).describe_regions().send().await;
        assert!(answer.is_err());
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }
}
