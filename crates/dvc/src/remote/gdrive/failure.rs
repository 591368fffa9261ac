//! Why a request to Drive failed, in Drive's own code, and what the user can do.

use super::account::DriveAccount;
use reqwest::StatusCode;
use serde::Deserialize;
use std::time::Duration;
use trainspot_base::error::{Error, chain};
use trainspot_http::{Answer, NoAnswer, quote};

/// Why a request failed.
pub(super) struct DriveFailure {
    why: String,
    /// Drive's own word, such as `storageQuotaExceeded`.
    reason: String,
    hint: Option<String>,
    /// None if there was no answer.
    pub(super) status: Option<StatusCode>,
    /// Whether trying again may help.
    pub(super) is_transient: bool,
    /// Whether Drive refused the request only because requests came too fast.
    pub(super) limited: bool,
    /// Whether Drive may have carried out the request all the same.
    pub(super) uncertain: bool,
    /// How long Drive asks to wait before the next request.
    pub(super) wait: Option<Duration>,
}

/// An error as the API tells it.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    reason: String,
}

/// An error as the token endpoint tells it.
#[derive(Default, Deserialize)]
struct TokenError {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

impl From<NoAnswer> for DriveFailure {
    fn from(error: NoAnswer) -> Self {
        Self::no_answer(format!("no answer: {error}"), error.is_transient)
    }
}

impl DriveFailure {
    fn new(why: String) -> Self {
        Self {
            why,
            reason: String::new(),
            hint: None,
            status: None,
            is_transient: false,
            limited: false,
            uncertain: false,
            wait: None,
        }
    }

    fn no_answer(why: String, is_transient: bool) -> Self {
        let hint = "look whether the network lets this machine reach Google, and run again".to_owned();
        Self { hint: Some(hint), is_transient, uncertain: true, ..Self::new(why) }
    }

    /// An answer without what has to be in it: a proxy's, or one that was cut.
    pub(super) fn unclear(whose: &str) -> Self {
        Self::no_answer(format!("the answer of {whose} cannot be understood"), true)
    }

    /// We could not even ask.
    pub(super) fn own(error: &Error) -> Self {
        Self::new(chain(error))
    }

    /// Drive refused.
    pub(super) fn refused(answer: &Answer) -> Self {
        let told = serde_json::from_slice::<ErrorAnswer>(&answer.body).ok().map(|told| told.error);
        let reason = told.as_ref().and_then(|error| error.errors.first()).map(|item| item.reason.clone());
        let reason = reason.unwrap_or_default();
        let message = told.map_or_else(|| answer.quote(), |error| quote(error.message.as_bytes()));
        let limited = answer.status == StatusCode::TOO_MANY_REQUESTS
            || matches!(reason.as_str(), "rateLimitExceeded" | "userRateLimitExceeded");
        Self {
            is_transient: limited || answer.is_transient(),
            limited,
            uncertain: !limited && answer.is_transient(),
            wait: answer.wait(),
            status: Some(answer.status),
            why: sentence(answer.status, &reason, &message),
            reason,
            hint: None,
        }
    }

    /// The credential is not accepted.
    pub(super) fn no_token(answer: &Answer, account: &DriveAccount) -> Self {
        let told: TokenError = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = sentence(answer.status, &told.error, &quote(told.error_description.as_bytes()));
        let refused = Self::refused(answer);
        let limited = refused.limited || told.error == "rate_limit_exceeded";
        Self {
            why: format!(
                "Google gives no access token: {}",
                if told.error.is_empty() { refused.why } else { said }
            ),
            hint: advice_on_credential(&told, account),
            limited,
            is_transient: refused.is_transient || limited,
            ..refused
        }
    }

    /// What failed, why, and what to do.
    pub(super) fn explain(self, what: &str, account: &DriveAccount, in_shared_drive: bool) -> Error {
        let hint = self.hint.clone().or_else(|| self.advice(account, in_shared_drive));
        Error::new(what).source(self.why).maybe_hint(hint)
    }

    fn advice(&self, account: &DriveAccount, in_shared_drive: bool) -> Option<String> {
        let who = who(account);
        Some(match self.reason.as_str() {
            "storageQuotaExceeded" | "quotaExceeded" => no_room(account, in_shared_drive),
            "rateLimitExceeded" | "userRateLimitExceeded" | "dailyLimitExceeded" => {
                "Drive asks to go slower: run again later; an account may upload 750 GB a day".to_owned()
            }
            "accessNotConfigured" => "enable the Google Drive API in the credential's project, in the Google Cloud console".to_owned(),
            "insufficientPermissions" | "appNotAuthorizedToFile" => {
                "the credential is not for all of Drive: log in again, with the scope https://www.googleapis.com/auth/drive".to_owned()
            }
            "notFound" => format!(
                "check the folder's id in the remote's url, and share the folder with {who} as an editor (in a Shared Drive: as a content manager)"
            ),
            "teamDriveFileLimitExceeded" | "numChildrenInNonRootLimitExceeded" | "activeItemCreationLimitExceeded" => {
                "the folder or Shared Drive is full: `dvc gc --cloud` removes what no commit uses".to_owned()
            }
            _ => match self.status {
                Some(StatusCode::FORBIDDEN) => format!(
                    "let {who} change the folder: share it with an editor's rights, and in a Shared Drive with a content manager's"
                ),
                Some(StatusCode::UNAUTHORIZED) => {
                    "the credential has expired or was revoked: put a new one into GDRIVE_CREDENTIALS_DATA".to_owned()
                }
                Some(StatusCode::TOO_MANY_REQUESTS) => "Drive asks to go slower: run again later".to_owned(),
                Some(status) if status.is_server_error() => "Drive has a bad moment; run again later".to_owned(),
                _ => return None,
            },
        })
    }
}

fn sentence(status: StatusCode, reason: &str, message: &str) -> String {
    let parts = [format!("HTTP {}", status.as_u16()), reason.to_owned(), message.to_owned()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// The account, as a folder is shared with it.
fn who(account: &DriveAccount) -> &str {
    let user = account.delegated().map(|(user, _)| user);
    account.service().or(user).unwrap_or("the user who gave the credential")
}

/// The hint for an account that can own no files, or no more of them.
fn no_room(account: &DriveAccount, in_shared_drive: bool) -> String {
    match account.service() {
        Some(_) if in_shared_drive => {
            "the Shared Drive has no room: `dvc gc --cloud` removes what no commit uses, then empty its trash"
                .to_owned()
        }
        Some(email) => format!(
            "a service account has no storage of its own, and owns what it uploads; three set-ups work: \
             (1) a folder in a Shared Drive, with {email} as a content manager of it; \
             (2) domain-wide delegation: set 'gdrive_service_account_user_email' to a user of your Workspace, whose storage is used, \
             and let its admin allow the service account's client id the scope https://www.googleapis.com/auth/drive; \
             (3) a user's own credential, with a refresh token and your own OAuth client, in GDRIVE_CREDENTIALS_DATA"
        ),
        None => {
            "the user's storage is full: `dvc gc --cloud` removes what no commit uses, then empty the trash"
                .to_owned()
        }
    }
}

fn advice_on_credential(told: &TokenError, account: &DriveAccount) -> Option<String> {
    let says = |words: &str| told.error_description.to_ascii_lowercase().contains(words);
    let delegated = account.delegated();
    Some(match (told.error.as_str(), account.service(), delegated) {
        ("unauthorized_client", _, Some((user, email))) => format!(
            "{email} may not act as {user}: let the Workspace's admin allow its client id the scope https://www.googleapis.com/auth/drive (domain-wide delegation)"
        ),
        ("invalid_grant", _, Some((user, _))) if says("email") => {
            format!("check 'gdrive_service_account_user_email': {user} is no user of the Workspace")
        }
        ("invalid_grant", Some(_), _) | ("invalid_grant", _, Some(_)) if says("iat") || says("timeframe") => {
            "set this machine's clock".to_owned()
        }
        ("invalid_grant", Some(email), _) | ("invalid_grant", _, Some((_, email))) => format!(
            "the key of {email} has expired or was deleted: make a new JSON key, and put it into GDRIVE_CREDENTIALS_DATA"
        ),
        ("invalid_grant", None, None) => "the user's credential has expired or was revoked: log in again, and put the new JSON into GDRIVE_CREDENTIALS_DATA; those of an OAuth client in testing expire after 7 days: publish it".to_owned(),
        ("invalid_client" | "deleted_client" | "disabled_client" | "unauthorized_client", ..) => {
            "check 'gdrive_client_id' and 'gdrive_client_secret': they have to be of your own OAuth client, the one that the refresh token was given to".to_owned()
        }
        _ => return None,
    })
}
