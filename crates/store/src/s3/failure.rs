//! Why a request to a bucket failed, in S3's own code, and what the user can do.

use super::answers::ErrorAnswer;
use serde::de::DeserializeOwned;
use std::time::Duration;
use trainspot_base::error::Error;
use trainspot_http::{Answer, NoAnswer, quote};

/// S3's codes for what passes, whatever status comes with them.
const TRANSIENT_CODES: [&str; 6] = [
    "BadDigest",
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
];

/// The code, of our own, of an answer that is longer than the reader's limit.
const TOO_LONG_CODE: &str = "trainspot.TooLong";

/// Why a request failed.
pub(super) struct BucketFailure {
    why: String,
    /// S3's own word, such as `NoSuchKey`; empty if there is none.
    code: String,
    /// None if there was no answer.
    status: Option<u16>,
    pub(super) is_transient: bool,
    /// How long the store asks to wait.
    pub(super) wait: Option<Duration>,
    /// Whether the store may have done it all the same.
    pub(super) is_uncertain: bool,
    /// Whether an earlier attempt at the same request may have succeeded.
    pub(super) follows_lost_answer: bool,
}

impl BucketFailure {
    fn new(why: String) -> Self {
        Self {
            why,
            code: String::new(),
            status: None,
            is_transient: false,
            wait: None,
            is_uncertain: false,
            follows_lost_answer: false,
        }
    }

    /// The request could not even be made.
    pub(super) fn own(why: impl Into<String>) -> Self {
        Self::new(why.into())
    }

    /// An answer of success whose body says nothing that can be used.
    pub(super) fn unclear(why: String) -> Self {
        Self { is_uncertain: true, ..Self::new(why) }
    }

    /// Credentials that are missing or expired.
    pub(super) fn no_credential(why: &str) -> Self {
        Self { code: "NoCredential".to_owned(), ..Self::new(why.to_owned()) }
    }

    /// What a refusal says. S3 may also find out that it failed after it has said 200.
    pub(super) fn refused(answer: &Answer) -> Self {
        let told: ErrorAnswer = quick_xml::de::from_reader(answer.body.as_slice()).unwrap_or_default();
        let status = answer.status.as_u16();
        let code = if told.code.is_empty() { code_of(status).to_owned() } else { told.code };
        let said = if told.message.is_empty() { answer.quote() } else { quote(told.message.as_bytes()) };
        let parts = [format!("HTTP {status}"), code.clone(), said];
        let why = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let is_transient = answer.is_transient() || TRANSIENT_CODES.contains(&code.as_str());
        let is_uncertain = is_transient && code != "SlowDown" && code != "ConditionalRequestConflict";
        Self { code, status: Some(status), is_transient, wait: answer.wait(), is_uncertain, ..Self::new(why) }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self.code.as_str(), "NoSuchKey" | "NoSuchUpload")
    }

    pub(super) fn is_condition_failed(&self) -> bool {
        self.code == "PreconditionFailed"
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.code == TOO_LONG_CODE
    }

    pub(super) fn is_beyond_end(&self) -> bool {
        self.code == "InvalidRange"
    }

    /// What failed, why, and what to do.
    pub(super) fn explain(self, what: &str) -> Error {
        let (advice, is_transient) = (self.advice().map(str::to_owned), self.is_transient);
        let error = Error::new(what).source(self.why).maybe_hint(advice);
        if is_transient { error.transient() } else { error }
    }

    fn advice(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "NoSuchBucket" => "make the bucket, or correct STORE",
            "NoCredential" => {
                "give the step a role or keys that may use the bucket, and the machine an instance profile"
            }
            "ExpiredToken" | "TokenRefreshRequired" | "RequestExpired" => {
                "get a credential that lives longer"
            }
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" => {
                "check the credential: the store does not accept it"
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                "name the bucket's own region"
            }
            "RequestTimeTooSkewed" => "set this machine's clock",
            "NotImplemented" => "use a store that knows conditional writes (If-None-Match, If-Match)",
            _ => match self.status {
                Some(401 | 403) => {
                    "let the credential list the bucket, and read, write and remove objects below the prefix, and end unfinished uploads"
                }
                None if self.is_transient => {
                    "look whether the network lets this machine reach the store, and run again"
                }
                _ => return None,
            },
        })
    }
}

impl From<NoAnswer> for BucketFailure {
    fn from(error: NoAnswer) -> Self {
        let is_transient = error.is_transient;
        let why = if is_transient { format!("no answer: {error}") } else { error.to_string() };
        let code = if error.is_too_long { TOO_LONG_CODE } else { "" }.to_owned();
        Self { code, is_transient, is_uncertain: true, ..Self::new(why) }
    }
}

/// The code of a refusal without a body, as the answer to a HEAD or some servers' 404.
fn code_of(status: u16) -> &'static str {
    match status {
        404 => "NoSuchKey",
        412 => "PreconditionFailed",
        416 => "InvalidRange",
        501 => "NotImplemented",
        _ => "",
    }
}

/// The XML of an answer.
pub(super) fn parsed<T: DeserializeOwned>(answer: &Answer) -> Result<T, BucketFailure> {
    quick_xml::de::from_reader(answer.body.as_slice())
        .map_err(|error| BucketFailure::unclear(format!("the answer cannot be understood: {error}")))
}
