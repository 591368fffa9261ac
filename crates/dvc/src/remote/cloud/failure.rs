//! Why a request to an object store failed, in the store's own code, and what the user can do.

use super::super::{RemoteName, StoreScheme};
use opendal::ErrorKind;
use trainspot_base::error::Error;

/// The longest part of an answer that is worth quoting, in characters.
const QUOTE_LIMIT_CHARS: usize = 300;

/// A store, for messages.
pub(super) struct StoreDescription {
    pub(super) place: RemoteName,
    pub(super) scheme: StoreScheme,
}

/// Whether the object is not there; a bucket that is not there is another matter.
pub(super) fn absent(error: &opendal::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        && !matches!(code(error).as_str(), "NoSuchBucket" | "ContainerNotFound")
}

/// Whether the store does not know the upload any more: it has ended it and the answer was lost, or has
/// cleared it away.
pub(super) fn gone(error: &opendal::Error) -> bool {
    code(error) == "NoSuchUpload"
}

/// The service's own word, or what there is of the kind.
fn code(error: &opendal::Error) -> String {
    let message = error.message();
    let word = quoted(message, "code").or_else(|| quoted(message, "reason"));
    let word =
        word.or_else(|| message.split_once(": ").map(|(word, _)| word).filter(|word| !word.contains(' ')));
    word.filter(|word| !word.is_empty()).unwrap_or_default().to_owned()
}

/// The text of a field, in the form in which the answers are shown.
fn quoted<'a>(message: &'a str, field: &str) -> Option<&'a str> {
    let start = message.find(&format!("{field}: \""))? + field.len() + 3;
    let text = &message[start..];
    text.split('"').next().filter(|text| !text.is_empty())
}

/// The status, where the answer says no more: that of a HEAD has no body.
fn status(error: &opendal::Error) -> Option<String> {
    let text = error.to_string();
    let (_, after) = text.split_once("status: ")?;
    Some(after.chars().take_while(char::is_ascii_digit).collect()).filter(|digits: &String| digits.len() == 3)
}

/// The answer in a sentence.
fn said(error: &opendal::Error) -> String {
    let message = error.message();
    let code = code(error);
    let status = status(error).map(|status| format!("HTTP {status}"));
    let words = match quoted(message, "message") {
        Some(words) => Some(words.to_owned()),
        None if message.contains('{') || message.contains('<') => None,
        None => {
            Some(message.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
        }
    };
    let code = Some(code).filter(|code| {
        !code.is_empty() && words.as_ref().is_none_or(|words| !words.starts_with(code.as_str()))
    });
    let parts = [status, code, words].into_iter().flatten();
    let parts: Vec<String> = parts.map(|part| part.chars().take(QUOTE_LIMIT_CHARS).collect()).collect();
    if parts.is_empty() { error.kind().to_string() } else { parts.join(": ") }
}

impl StoreDescription {
    /// The failure in the store's words, and what to do.
    pub(super) fn explain(&self, what: &str, error: &opendal::Error) -> Error {
        Error::new(what).source(said(error)).maybe_hint(self.advice(error))
    }

    fn advice(&self, error: &opendal::Error) -> Option<String> {
        Some(match code(error).as_str() {
            "NoSuchBucket" | "ContainerNotFound" => "make the bucket, or correct the remote's url".to_owned(),
            "ExpiredToken"
            | "ExpiredTokenException"
            | "TokenRefreshRequired"
            | "SecurityTokenExpired"
            | "RequestExpired" => {
                "the credential has expired: get a new one, valid for longer than the training".to_owned()
            }
            "NoCredential" => format!("set {}", self.credentials()),
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "AuthenticationFailed" => {
                format!("check {}: the store does not accept what is there", self.credentials())
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                "set 'region' of the remote to the bucket's".to_owned()
            }
            "RequestTimeTooSkewed" => "set this machine's clock".to_owned(),
            _ => return self.advice_by_kind(error),
        })
    }

    fn advice_by_kind(&self, error: &opendal::Error) -> Option<String> {
        match (error.kind(), status(error).as_deref()) {
            (ErrorKind::PermissionDenied, _) | (_, Some("401" | "403")) => Some(format!(
                "let the credential list the bucket, and read and write objects in it: {}",
                self.permissions()
            )),
            (ErrorKind::NotFound, _) => Some("make the bucket, or correct the remote's url".to_owned()),
            (ErrorKind::RateLimited, _) => Some("the store asks to go slower; run again later".to_owned()),
            _ if error.is_temporary() => {
                Some("look whether the network lets this machine reach the store, and run again".to_owned())
            }
            _ => None,
        }
    }

    fn credentials(&self) -> &'static str {
        match self.scheme {
            StoreScheme::S3 => {
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), a profile, or the machine's instance profile"
            }
            StoreScheme::Gs => {
                "GOOGLE_APPLICATION_CREDENTIALS to a service account's key, its JSON itself or the path of its file"
            }
            StoreScheme::Azure => {
                "AZURE_STORAGE_CONNECTION_STRING, or the account's name with its key, a SAS token or a service principal"
            }
            StoreScheme::Oss => "OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
        }
    }

    fn permissions(&self) -> &'static str {
        match self.scheme {
            StoreScheme::S3 => {
                "s3:ListBucket on it; s3:GetObject, s3:PutObject and s3:AbortMultipartUpload on what is in it"
            }
            StoreScheme::Gs => "the role Storage Object User",
            StoreScheme::Azure => "the role Storage Blob Data Contributor",
            StoreScheme::Oss => "oss:ListObjects, oss:GetObject, oss:PutObject and oss:AbortMultipartUpload",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(kind: ErrorKind, message: &str) -> String {
        let store =
            StoreDescription { place: RemoteName("the remote 'x'".to_owned()), scheme: StoreScheme::S3 };
        store.explain("cannot send a", &opendal::Error::new(kind, message)).render()
    }

    #[test]
    fn the_stores_own_code_is_told_with_what_to_do() {
        let text = explained(
            ErrorKind::NotFound,
            r#"S3Error { code: "NoSuchBucket", message: "The specified bucket does not exist", resource: "" }"#,
        );
        assert_eq!(
            text,
            "cannot send a: NoSuchBucket: The specified bucket does not exist\nNext: make the bucket, or correct the remote's url"
        );
        let text = explained(
            ErrorKind::Unexpected,
            r#"S3Error { code: "ExpiredToken", message: "It has expired." }"#,
        );
        assert!(text.contains("ExpiredToken: It has expired.\nNext: the credential has expired"), "{text}");
        let text = explained(
            ErrorKind::PermissionDenied,
            "NoCredential: no credential was found, or it has expired",
        );
        assert!(text.starts_with("cannot send a: NoCredential: no credential was found"), "{text}");
        assert!(text.contains("set AWS_ACCESS_KEY_ID"), "{text}");
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let error = |message: &str| opendal::Error::new(ErrorKind::NotFound, message);
        assert!(absent(&error("")) && absent(&error(r#"S3Error { code: "NoSuchKey", message: "" }"#)));
        assert!(!absent(&error(r#"S3Error { code: "NoSuchBucket", message: "" }"#)));
    }
}
