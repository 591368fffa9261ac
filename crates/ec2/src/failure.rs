//! Failed calls to AWS: classified for the caller, who may try something else, and told to the user, who must
//! act.

use super::error_class::classify;
pub(super) use super::error_class::{ErrorClass, SPOT_QUOTA};
use super::sdk_config::ATTEMPT_DEADLINE;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use reqwest::StatusCode;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;
use trainspot_base::error::{Error, Kind, chain};
use trainspot_base::retry::{RetryPolicy, Tries};
use trainspot_http::is_transient;

/// Waits of about 0.5, 1, 2 and 4 s: EC2 refills its buckets of requests within seconds.
const RETRY_POLICY: RetryPolicy = RetryPolicy {
    attempts: 5,
    first_wait: Duration::from_millis(500),
    longest_wait: Duration::from_secs(8),
    total: Duration::from_mins(1),
};

/// How much longer a call may take than the SDK's own deadline of an attempt, whose better message so wins.
const DEADLINE_SLACK: Duration = Duration::from_secs(5);

const DENIED_CODES: &[&str] =
    &["UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "UnauthorizedAccess"];
const EXPIRED_CODES: &[&str] =
    &["ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"];
const UNKNOWN_CALLER_CODES: &[&str] = &[
    "AuthFailure",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "IncompleteSignature",
    "InvalidSignatureException",
];

/// One failed call to AWS.
#[derive(Debug)]
pub(super) struct AwsError {
    /// The service's own code; none where there was no answer.
    code: Option<String>,
    message: String,
    class: ErrorClass,
    /// What could not be done, as "cannot …".
    what: String,
    /// The IAM action that was asked for.
    action: String,
    /// The SDK's error, where there was no answer.
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl AwsError {
    /// A failure that is part of a good answer, such as one of a fleet's `Errors`.
    pub(super) fn in_answer(code: &str, message: &str) -> Self {
        Self::of(Some(code), message.to_owned(), classify(code).unwrap_or(ErrorClass::Fatal))
    }

    /// The failure of an answer that lacks `what`, which it must have.
    pub(super) fn incomplete(what: &str) -> Self {
        Self::of(None, format!("AWS's answer names no {what}"), ErrorClass::Transient)
    }

    fn of(code: Option<&str>, message: String, class: ErrorClass) -> Self {
        let code = code.map(str::to_owned);
        Self { code, message, class, what: String::new(), action: String::new(), source: None }
    }

    /// What the failure means for the caller.
    pub(super) fn class(&self) -> ErrorClass {
        self.class
    }

    /// The service's own code; none where there was no answer.
    pub(super) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether the service's code is one of these.
    pub(super) fn is(&self, codes: &[&str]) -> bool {
        self.code().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the account cannot access the region: it is not enabled, or a policy shuts it.
    pub(super) fn is_region_inaccessible(&self) -> bool {
        self.is_denied() || self.is(UNKNOWN_CALLER_CODES) || self.is(&["OptInRequired"])
    }

    /// Whether the quota that is used up is 0, so that waiting is of no use.
    pub(super) fn is_zero_quota(&self) -> bool {
        self.class == ErrorClass::TryOtherFamily && self.message.contains("limit of 0 ")
    }

    /// Whether an action is missing from the caller's permissions.
    pub(super) fn is_denied(&self) -> bool {
        self.is(DENIED_CODES)
    }

    /// The failure, with what could not be done and the IAM action that it needed.
    #[must_use]
    pub(super) fn during(mut self, action: &str, what: &str) -> Self {
        action.clone_into(&mut self.action);
        what.clone_into(&mut self.what);
        self
    }

    /// The failure as by [`Self::during`], unless it says so already.
    #[must_use]
    pub(super) fn or_during(self, action: &str, what: &str) -> Self {
        if self.what.is_empty() && self.source.is_none() { self.during(action, what) } else { self }
    }

    /// The pipe's own error that this failure was made from, where no call failed; the failure itself
    /// otherwise.
    fn into_own_error(mut self) -> Result<Error, Self> {
        if !self.what.is_empty() {
            return Err(self);
        }
        match self.source.take().map(<dyn StdError + Send + Sync>::downcast) {
            Some(Ok(own_error)) => Ok(*own_error),
            Some(Err(source)) => Err(Self { source: Some(source), ..self }),
            None => Err(self),
        }
    }

    /// The missing IAM action: the one that AWS names, as a call may need several, or the call's own.
    pub(super) fn missing_action(&self) -> &str {
        named_action(&self.message).unwrap_or(&self.action)
    }

    /// What the user can do about the failure.
    pub(super) fn hint(&self) -> Option<String> {
        let code = self.code()?;
        Some(match code {
            _ if self.is_denied() => format!(
                "allow {} to the role or user whose credentials the pipe has; docs/iam-policy.json is a policy with all that it needs",
                self.missing_action()
            ),
            _ if self.is(EXPIRED_CODES) => EXPIRED_HINT.to_owned(),
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted" => "the account's first spot machine needs a role: run \
                `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com` once, as an administrator"
                .to_owned(),
            _ if self.is(UNKNOWN_CALLER_CODES) => "AWS does not know these credentials: check AWS_ACCESS_KEY_ID, \
                AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and that the account has enabled the region"
                .to_owned(),
            "OptInRequired" => "accept the image's terms in AWS Marketplace, or enable the service for the account".to_owned(),
            "PendingVerification" => "AWS is still checking the account for this region: run the step again in some hours".to_owned(),
            "InvalidParameterCombination" if self.message.contains("Free Tier") => "the account is on AWS's free plan, which \
                allows few instance types: upgrade it to the paid plan, or name types that the free plan has"
                .to_owned(),
            "MaxFleetCountExceeded" => "AWS allows this account no fleets, as it does at first for some new accounts: ask AWS \
                Support to raise the region's quota of EC2 Fleet requests"
                .to_owned(),
            "Blocked" => "AWS has blocked the account: see its e-mails, or AWS Support".to_owned(),
            _ if self.class == ErrorClass::TryOtherFamily => {
                "ask for a higher quota in Service Quotas (Amazon EC2), or name types of other families".to_owned()
            }
            _ => return None,
        })
    }
}

/// The hint for credentials that have expired.
pub(super) const EXPIRED_HINT: &str = "run the step again with fresh credentials; with AWS_OIDC_ROLE_ARN, raise the role's \
    maximum session duration above MAX_RUNTIME. A machine that is still there ends itself after ORPHAN_GRACE without a word from the pipe";

impl<E> From<SdkError<E>> for AwsError
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let status = error.raw_response().map(|response| response.status().as_u16());
        if let Some(service) = error.as_service_error() {
            return from_answer(service.code(), service.message(), status);
        }
        if let Some(own_error) = own_error(&error) {
            let message = own_error.to_string();
            return Self { source: Some(error.into()), ..Self::of(None, message, ErrorClass::Fatal) };
        }
        let class = match &error {
            SdkError::ConstructionFailure(_) => ErrorClass::Fatal,
            SdkError::DispatchFailure(failure) if failure.is_user() => ErrorClass::Fatal,
            _ => ErrorClass::Transient,
        };
        let message = match status {
            Some(status) => {
                format!("AWS answered HTTP status {status}, not in the way of its API: {}", chain(&error))
            }
            None => format!("no answer from AWS: {}", chain(&error)),
        };
        Self::of(None, message, class)
    }
}

fn from_answer(code: Option<&str>, message: Option<&str>, status: Option<u16>) -> AwsError {
    let by_status = || match status.and_then(|status| StatusCode::from_u16(status).ok()) {
        Some(status) if is_transient(status) => ErrorClass::Transient,
        _ => ErrorClass::Fatal,
    };
    let class = code.and_then(classify).unwrap_or_else(by_status);
    let message = message.map_or_else(
        || status.map_or_else(|| "no reason was given".to_owned(), |status| format!("HTTP status {status}")),
        without_encoded,
    );
    AwsError::of(code, message, class)
}

/// The pipe's own error in the chain of sources, if no request was sent for lack of credentials.
fn own_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// The message without the encoded part that only `sts:DecodeAuthorizationMessage` can read, as that part is
/// longer than a screen.
fn without_encoded(message: &str) -> String {
    let start = message.find("Encoded authorization failure message:").unwrap_or(message.len());
    message[..start].trim().to_owned()
}

/// The action that AWS names: "… is not authorized to perform: ec2:RunInstances on resource …".
fn named_action(message: &str) -> Option<&str> {
    message.split("to perform").skip(1).find_map(|after| {
        let word = after.trim_start_matches([':', ' ']).split_whitespace().next()?;
        let action = word.trim_end_matches(['.', ',', ';']);
        action.contains(':').then_some(action)
    })
}

impl fmt::Display for AwsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            Some(code) if self.is(EXPIRED_CODES) => {
                write!(formatter, "the AWS credentials have expired ({code}: {})", self.message)
            }
            Some(code) => write!(formatter, "{code}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

impl StdError for AwsError {
    /// The pipe's own error below the SDK's, so that its hint is found.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        own_error(self.source.as_deref()?).map(|own_error| own_error as &(dyn StdError + 'static))
    }
}

impl From<Error> for AwsError {
    /// The failure made of an error of the pipe's own, on the way to a call.
    fn from(error: Error) -> Self {
        Self { source: Some(error.into()), ..Self::of(None, String::new(), ErrorClass::Fatal) }
    }
}

impl From<AwsError> for Error {
    fn from(failure: AwsError) -> Self {
        let failure = match failure.into_own_error() {
            Ok(own_error) => return own_error,
            Err(failure) => failure,
        };
        let error = Self::new(failure.what.clone()).kind(Kind::Machine).maybe_hint(failure.hint());
        let error = if failure.class == ErrorClass::Transient { error.transient() } else { error };
        error.source(failure)
    }
}

/// One call with a deadline, tried again as long as its failure may pass.
///
/// `action` is the IAM action that it needs, `what` says what fails without it, as "cannot …". A call that
/// makes something must carry its client token: an answer that was lost is asked for again.
pub(super) async fn call<T, F: Future<Output = Result<T, AwsError>>>(
    action: &str,
    what: &str,
    operation: impl FnMut() -> F,
) -> Result<T, AwsError> {
    call_within(ATTEMPT_DEADLINE, action, what, operation).await
}

/// As [`call`], for a call whose answer may take `attempt_deadline`. The SDK's own deadline of the attempt
/// must be the same.
pub(super) async fn call_within<T, F: Future<Output = Result<T, AwsError>>>(
    attempt_deadline: Duration,
    action: &str,
    what: &str,
    mut operation: impl FnMut() -> F,
) -> Result<T, AwsError> {
    let mut tries = Tries::new(RETRY_POLICY);
    // The SDK's futures are large, and so deeply nested that the compiler gives up where many meet in one.
    loop {
        match within(attempt_deadline + DEADLINE_SLACK, Box::pin(operation())).await {
            Err(failure) if failure.class == ErrorClass::Transient && tries.wait_for_next(None).await => {}
            done => return done.map_err(|failure| failure.during(action, what)),
        }
    }
}

/// Whether the caller may make a call, which `operation` makes with EC2's `DryRun`: EC2 answers it with an
/// error in any case.
///
/// # Errors
/// The permission is missing, or EC2 refuses a parameter.
pub(super) async fn allowed<F: Future<Output = Result<(), AwsError>>>(
    action: &str,
    what: &str,
    operation: impl FnMut() -> F,
) -> Result<(), AwsError> {
    match call(action, what, operation).await {
        Err(failure) if failure.is(&["DryRunOperation"]) => Ok(()),
        Err(failure) => Err(failure),
        Ok(()) => {
            Err(AwsError::of(None, "EC2 did not heed DryRun".to_owned(), ErrorClass::Fatal)
                .during(action, what))
        }
    }
}

async fn within<T>(
    deadline: Duration,
    operation: impl Future<Output = Result<T, AwsError>>,
) -> Result<T, AwsError> {
    let late = |_| {
        Err(AwsError::of(
            None,
            format!("no answer from AWS within {} s", deadline.as_secs()),
            ErrorClass::Transient,
        ))
    };
    tokio::time::timeout(deadline, operation).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests;
