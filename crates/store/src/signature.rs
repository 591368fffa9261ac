//! The signature of a request to a service of AWS, or of a server that speaks like one.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::hash::hex_sha256;
use reqsign_core::{Context as SigningContext, ErrorKind, HttpSend, Signer, StaticEnv};
use reqsign_file_read_tokio::TokioFileRead;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Result};
use trainspot_http::{Answer, NoAnswer, Redirects};

/// The timeout of a metadata service: where there is none, its address is often silent.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer of a metadata service.
const METADATA_LIMIT_BYTES: usize = 1 << 20;
/// The header that tells the body's hash, which is signed with the other headers.
const BODY_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// Who we are to a bucket.
#[derive(Clone, Debug, Default)]
pub enum BucketCredentials {
    /// What the machine's metadata service gives: the instance profile's.
    #[default]
    InstanceProfile,
    /// Keys.
    Keys {
        /// The access key's id.
        id: String,
        /// The access key.
        secret: SecretString,
        /// The session's token, for keys that expire.
        session_token: Option<SecretString>,
    },
}

/// Signs requests to one service in one region.
#[derive(Debug)]
pub struct AwsSigner(Signer<Credential>);

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NoSignature {
    why: &'static str,
}

impl AwsSigner {
    /// A signer for a service by the name that AWS gives it in signatures, such as `s3` or `events`.
    ///
    /// # Errors
    /// HTTP cannot be set up on this host.
    pub fn new(service: &str, region: &str, credentials: &BucketCredentials) -> Result<Self> {
        let http = trainspot_http::client(Redirects::Refused).no_proxy().build();
        let context = SigningContext::new()
            .with_file_read(TokioFileRead)
            .with_http_send(MetadataClient(http.context("cannot set up HTTP")?))
            .with_env(StaticEnv { home_dir: None, envs: HashMap::new() });
        let request = RequestSigner::new(service, region);
        Ok(Self(match credentials {
            BucketCredentials::InstanceProfile => {
                Signer::new(context, DefaultCredentialProvider::builder().no_env().build(), request)
            }
            BucketCredentials::Keys { id, secret, session_token } => {
                let mut keys = StaticCredentialProvider::new(id, secret.expose_secret());
                if let Some(token) = session_token {
                    keys = keys.with_session_token(token.expose_secret());
                }
                Signer::new(context, keys, request)
            }
        }))
    }

    /// Adds the signature's headers to a request. Every service but S3 wants the body signed as well.
    ///
    /// # Errors
    /// There is no credential that may be used now.
    pub async fn sign(&self, request: &mut Parts, body: Option<&[u8]>) -> Result<(), NoSignature> {
        if let Some(body) = body {
            let hash = HeaderValue::try_from(hex_sha256(body));
            request.headers.insert(BODY_HASH, hash.map_err(|_| NoSignature { why: "the body has no hash" })?);
        }
        self.0.sign(request, None).await.map_err(|error| NoSignature::of(&error))
    }
}

impl NoSignature {
    /// What the signer says may quote a file, so only its kind of failure is told.
    fn of(error: &reqsign_core::Error) -> Self {
        let why = match error.kind() {
            ErrorKind::CredentialInvalid => "no credential was found, or it has expired",
            ErrorKind::PermissionDenied => "the credential may not be used",
            _ => "the request cannot be signed with this credential",
        };
        Self { why }
    }
}

/// Asks the machine's metadata service for credentials.
#[derive(Debug)]
struct MetadataClient(reqwest::Client);

impl HttpSend for MetadataClient {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let sent = self.0.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let answer = timeout(METADATA_TIMEOUT, Answer::to(sent, METADATA_LIMIT_BYTES)).await;
        let answer = answer.unwrap_or_else(|_| Err(NoAnswer::silent(METADATA_TIMEOUT)));
        let Answer { status, headers, body } =
            answer.map_err(|error| reqsign_core::Error::unexpected(error.to_string()))?;
        let mut response = http::Response::new(Bytes::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[tokio::test]
    async fn the_body_is_signed_where_it_is_given() {
        let keys = BucketCredentials::Keys {
            id: "AKID".to_owned(),
            secret: "s3cret".into(),
            session_token: Some("t0ken".into()),
        };
        let signer = AwsSigner::new("events", "eu-west-1", &keys).unwrap();
        let headers_of = async |body: Option<&[u8]>| {
            let request = Request::post("https://events.eu-west-1.amazonaws.com/").body(()).unwrap();
            let (mut parts, ()) = request.into_parts();
            signer.sign(&mut parts, body).await.unwrap();
            parts.headers
        };
        let headers = headers_of(Some(b"{}")).await;
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{authorization}");
        let scope = "/eu-west-1/events/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, ";
        assert!(authorization.contains(scope), "{authorization}");
        assert_eq!(headers["x-amz-security-token"], "t0ken");
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(headers[BODY_HASH], hash, "sha256sum of {{}}");
        assert_eq!(headers_of(None).await[BODY_HASH], "UNSIGNED-PAYLOAD");
    }
}
