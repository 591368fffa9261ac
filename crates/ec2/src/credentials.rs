//! Credentials for AWS: a role assumed by the step's OIDC token, an access key, or the SDK's default chain.
//!
//! A session is renewed while its source lives, at the time that makes the last session end latest.

use super::failure::{AwsError, EXPIRED_HINT, call};
use super::sdk_config::config_without_credentials;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use trainspot_base::clock::stated_instant;
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::Secret;
use trainspot_compute::aws::{AccessKey, AwsAccount, OidcRole};

/// The lengths of a session to ask for, from the most that AWS gives to the least that every role allows.
const SESSION_LENGTHS: [Duration; 3] =
    [Duration::from_hours(12), Duration::from_hours(4), Duration::from_hours(1)];

/// A session is renewed this long before its end.
const RENEW_BEFORE_END: Duration = Duration::from_mins(10);

/// A session is renewed once more this long before the token's end: the last session then ends latest.
const RENEW_BEFORE_TOKEN_END: Duration = Duration::from_mins(2);

/// The wait before a failed renewal is tried again; each try may delay a call.
const RENEWAL_RETRY_WAIT: Duration = Duration::from_mins(1);

/// How long a renewal may take while the old session is valid: every call waits for it.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the SDK's chain may take: it asks files, and the metadata of containers and machines, in turn.
const CHAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Gives credentials, and renews them.
#[derive(Debug)]
pub(super) struct RenewingCredentials {
    source: CredentialsSource,
    cached: Mutex<Option<CachedCredentials>>,
}

#[derive(Debug)]
enum CredentialsSource {
    Role(Box<Role>),
    Key(Credentials),
    Chain(Box<CredentialsProviderChain>),
}

#[derive(Debug)]
struct CachedCredentials {
    credentials: Credentials,
    /// When to renew the credentials; none for keys that do not expire.
    renew_at: Option<SystemTime>,
}

/// A role to assume by token.
#[derive(Debug)]
struct Role {
    oidc: OidcRole,
    claims: Claims,
    sts: aws_sdk_sts::Client,
}

/// The claims that are read of the token, unchecked: AWS checks the token, and the pipe only learns when the
/// token ends and which step it is of.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    exp: Option<u64>,
    #[serde(rename = "stepUuid")]
    step: Option<String>,
}

impl RenewingCredentials {
    /// Takes the account's role if it names one, else its access key, else looks through the SDK's chain.
    ///
    /// # Errors
    /// There are no credentials, or AWS does not give the role.
    pub(super) async fn open(account: &AwsAccount, region: &str) -> Result<Self> {
        let source = match (&account.oidc, &account.key) {
            (Some(oidc), _) => CredentialsSource::Role(Box::new(Role::new(
                oidc.clone(),
                &config_without_credentials(region).await,
            ))),
            (None, Some(key)) => CredentialsSource::Key(from_access_key(key)),
            (None, None) => CredentialsSource::Chain(Box::new(default_chain(region))),
        };
        let cached = CachedCredentials::new(source.load().await?, source.end());
        Ok(Self { source, cached: Mutex::new(Some(cached)) })
    }

    async fn current(&self) -> Result<Credentials> {
        let mut cached = self.cached.lock().await;
        let now = SystemTime::now();
        if let Some(cached) = cached.as_ref().filter(|cached| cached.renew_at.is_none_or(|at| now < at)) {
            return Ok(cached.credentials.clone());
        }
        let valid =
            |cached: &&mut CachedCredentials| cached.credentials.expiry().is_some_and(|end| now < end);
        let Some(old) = cached.as_mut().filter(valid) else {
            let credentials = self.source.load().await.map_err(session_ended)?;
            *cached = Some(CachedCredentials::new(credentials.clone(), self.source.end()));
            return Ok(credentials);
        };
        // Written down first: the caller may be dropped before the answer.
        old.renew_at = Some(now + RENEWAL_RETRY_WAIT);
        match tokio::time::timeout(RENEWAL_TIMEOUT, self.source.load()).await {
            Ok(Ok(credentials)) => *old = CachedCredentials::new(credentials, self.source.end()),
            Ok(Err(error)) => tracing::debug!("the AWS session is not renewed yet: {}", chain(&error)),
            Err(_) => tracing::debug!("the AWS session is not renewed yet: no answer"),
        }
        Ok(old.credentials.clone())
    }
}

fn session_ended(error: Error) -> Error {
    Error::new("the AWS session has ended and cannot be renewed")
        .source(error)
        .kind(Kind::Machine)
        .hint(EXPIRED_HINT)
}

impl CachedCredentials {
    fn new(credentials: Credentials, source_ends: Option<SystemTime>) -> Self {
        let renew_at = credentials.expiry().map(|end| renewal(SystemTime::now(), end, source_ends));
        Self { credentials, renew_at }
    }
}

/// When to renew: before the session's end, or, if that is sooner and still to come, before the token's.
fn renewal(now: SystemTime, session_ends: SystemTime, token_ends: Option<SystemTime>) -> SystemTime {
    // A session so short that it is nearly over when it begins must not be renewed at each call.
    let before_end = (session_ends - RENEW_BEFORE_END).max(now + RENEW_BEFORE_END / 10);
    let last_chance = token_ends.map(|end| end - RENEW_BEFORE_TOKEN_END).filter(|at| *at > now);
    last_chance.map_or(before_end, |at| at.min(before_end))
}

impl ProvideCredentials for RenewingCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.current().await.map_err(CredentialsError::provider_error)
        })
    }
}

impl CredentialsSource {
    async fn load(&self) -> Result<Credentials> {
        let loaded = match self {
            Self::Role(role) => role.assume().await,
            Self::Key(credentials) => Ok(credentials.clone()),
            Self::Chain(chain) => load_from_chain(chain).await,
        };
        loaded.map(hide_secrets)
    }

    /// When the source stops giving sessions, if that is known.
    fn end(&self) -> Option<SystemTime> {
        match self {
            Self::Role(role) => role.claims.exp.map(stated_instant),
            Self::Key(_) | Self::Chain(_) => None,
        }
    }
}

/// The credentials, after their secrets were hidden in the log: until now nobody knew them.
fn hide_secrets(credentials: Credentials) -> Credentials {
    let key = ("AWS_SECRET_ACCESS_KEY", Some(credentials.secret_access_key()));
    let parts = [key, ("AWS_SESSION_TOKEN", credentials.session_token())];
    let given = parts.into_iter().filter_map(|(name, value)| Some((name, value?)));
    trainspot_base::log::hide(given.map(|(name, value)| Secret::new(name, value)));
    credentials
}

fn from_access_key(key: &AccessKey) -> Credentials {
    let session_token = key.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    Credentials::new(&key.id, key.secret.expose_secret(), session_token, None, "AccessKey")
}

/// The SDK's default chain without its first provider, that of the environment's access key: the
/// configuration has read that key already, and the SDK would take the text `$AWS_ACCESS_KEY_ID` for one.
fn default_chain(region: &str) -> CredentialsProviderChain {
    let config = ProviderConfig::default().with_region(Some(Region::new(region.to_owned())));
    let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
    CredentialsProviderChain::first_try(
        "Profile",
        ProfileFileCredentialsProvider::builder().configure(&config).build(),
    )
    .or_else("WebIdentityToken", web_identity)
    .or_else("EcsContainer", EcsCredentialsProvider::builder().configure(&config).build())
    .or_else("Ec2InstanceMetadata", ImdsCredentialsProvider::builder().configure(&config).build())
}

async fn load_from_chain(chain: &CredentialsProviderChain) -> Result<Credentials> {
    let loaded = tokio::time::timeout(CHAIN_DEADLINE, chain.provide_credentials()).await;
    match loaded.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(CHAIN_DEADLINE))) {
        Ok(credentials) => Ok(credentials),
        Err(CredentialsError::CredentialsNotLoaded(_)) => Err(Error::new(
            "there are no credentials for AWS: AWS_OIDC_ROLE_ARN is not set, AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY are not (the text $AWS_ACCESS_KEY_ID itself is no value), and the AWS SDK finds \
             no profile, container role or machine role",
        )
        .kind(Kind::Configuration)
        .hint(
            "add `oidc: true` to the step and the role's ARN as AWS_OIDC_ROLE_ARN (docs/aws.md shows how to make the \
             role), or pass on secured variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )),
        Err(error) => Err(Error::new("cannot load the credentials for AWS").source(error).kind(Kind::Configuration)),
    }
}

impl Role {
    fn new(oidc: OidcRole, config: &SdkConfig) -> Self {
        Self { claims: claims(oidc.token.value.expose_secret()), sts: aws_sdk_sts::Client::new(config), oidc }
    }

    /// A session as long as the role allows.
    ///
    /// STS does not say how long that is, and most roles have the default of one hour: the lengths are asked
    /// for at once, as one after the other would cost a start two more round trips.
    async fn assume(&self) -> Result<Credentials> {
        let [longest, middle, shortest] = SESSION_LENGTHS.map(|length| self.session(length));
        let (longest, middle, shortest) = tokio::join!(longest, middle, shortest);
        // Where none is given, the shortest tells why: it is never refused for its length.
        longest.or(middle).or(shortest).map_err(role_refused)
    }

    async fn session(&self, length: Duration) -> Result<Credentials, AwsError> {
        let seconds = i32::try_from(length.as_secs()).unwrap_or(i32::MAX);
        let action = "sts:AssumeRoleWithWebIdentity";
        let what = format!("cannot take the role {}", self.oidc.role_arn);
        call(action, &what, || async {
            let request = self.sts.assume_role_with_web_identity().role_arn(&self.oidc.role_arn);
            let request = request
                .role_session_name(self.name())
                .web_identity_token(self.oidc.token.value.expose_secret());
            let answer = request.duration_seconds(seconds).send().await?;
            let given = answer.credentials.ok_or_else(|| AwsError::incomplete("credentials"))?;
            Ok(credentials(&given))
        })
        .await
    }

    /// The session's name, as `CloudTrail` shows it: whose step it was.
    fn name(&self) -> String {
        let step = self.claims.step.as_deref().unwrap_or("step");
        let plain: String =
            step.chars().filter(|&letter| letter.is_ascii_alphanumeric() || letter == '-').collect();
        format!("trainspot-{plain}").chars().take(64).collect()
    }
}

fn role_refused(failure: AwsError) -> Error {
    let hint = match failure.code() {
        Some("ExpiredTokenException" | "ExpiredToken") => {
            "the step's OIDC token is over: run the step again. A machine that is still there ends itself after \
             ORPHAN_GRACE without a word from the pipe"
        }
        Some("InvalidIdentityToken" | "InvalidIdentityTokenException") => {
            "make Bitbucket an identity provider of the AWS account, with its URL and audience exactly as in the \
             repository's settings under OpenID Connect (docs/aws.md)"
        }
        Some(_) if failure.is_denied() => {
            "check AWS_OIDC_ROLE_ARN, and that the role's trust policy names the provider and this repository \
             (docs/aws.md)"
        }
        Some("ValidationError") => {
            "check that AWS_OIDC_ROLE_ARN is a role's ARN: arn:aws:iam::ACCOUNT:role/NAME"
        }
        _ => return Error::from(failure),
    };
    Error::from(failure).kind(Kind::Configuration).hint(hint)
}

fn credentials(given: &aws_sdk_sts::types::Credentials) -> Credentials {
    let end = SystemTime::try_from(given.expiration).ok();
    let token = Some(given.session_token.clone());
    Credentials::new(&given.access_key_id, &given.secret_access_key, token, end, "AssumeRoleWithWebIdentity")
}

/// The claims of a JWT; none of a text that is no JWT.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn at(minutes: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_mins(minutes)
    }

    #[test]
    fn a_session_is_renewed_when_that_makes_it_last_longest() {
        let cases = [
            (0, 60, None, 50),
            (0, 60, Some(60), 50),
            (50, 110, Some(60), 58), // The last chance of the token.
            (58, 118, Some(60), 108),
            (0, 720, Some(60), 58),
            (0, 5, None, 1),
        ];
        for (now, session_ends, token_ends, expected) in cases {
            assert_eq!(renewal(at(now), at(session_ends), token_ends.map(at)), at(expected), "{now}");
        }
    }

    #[test]
    fn a_tokens_claims_are_read_if_it_has_any() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"exp":1700000000,"stepUuid":"{5b-1}","aud":["x"]}"#);
        let read = claims(&format!("e30.{payload}.c2ln"));
        assert_eq!((read.exp, read.step.as_deref()), (Some(1_700_000_000), Some("{5b-1}")));
        assert_eq!(claims("no token").exp, None);
    }

    #[test]
    fn no_source_of_credentials_shows_them() {
        let role_arn = "arn:aws:iam::123456789012:role/r".to_owned();
        let oidc = OidcRole { role_arn, token: Secret::new("OIDC", "s3cret-oidc") };
        let config = SdkConfig::builder().region(Region::new("eu-west-1")).build();
        let (secret, session_token) = ("s3cret-key".into(), Some("s3cret-session".into()));
        let key = from_access_key(&AccessKey { id: "AKIAEXAMPLE".to_owned(), secret, session_token });
        let cached = CachedCredentials::new(key.clone(), None);
        let source = CredentialsSource::Role(Box::new(Role::new(oidc, &config)));
        let role = RenewingCredentials { source, cached: Mutex::new(Some(cached)) };
        let shown = format!("{role:?} {:?}", CredentialsSource::Key(key));
        assert!(shown.contains("role/r") && shown.contains("AKIAEXAMPLE"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn the_keys_of_a_session_are_hidden_as_soon_as_it_is_given() {
        let given = aws_sdk_sts::types::Credentials::builder()
            .access_key_id("ASIAEXAMPLE")
            .secret_access_key("sess10n/Secret+Of-credentials-rs")
            .session_token("sess10n-Token-Of-credentials-rs")
            .expiration(aws_sdk_sts::primitives::DateTime::from_secs(0))
            .build()
            .unwrap();
        hide_secrets(credentials(&given));
        let shown = trainspot_base::log::redact(
            "a sess10n/Secret+Of-credentials-rs b sess10n-Token-Of-credentials-rs c",
        );
        assert_eq!(shown, "a $AWS_SECRET_ACCESS_KEY b $AWS_SESSION_TOKEN c");
    }
}
