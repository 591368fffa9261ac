//! Access tokens: got for a credential, kept until shortly before they expire.

use super::account::DriveAccount;
use super::exchange::exchange;
use super::failure::DriveFailure;
use crate::remote::web::client::STALL_TIMEOUT;
use reqwest::Client;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use trainspot_base::clock::stated_seconds;
use trainspot_base::log::Secret;

/// The scope of all of Drive, as DVC asks for it: a narrower one excludes folders that somebody else made.
const DRIVE_SCOPE: &str = "https://www.googleapis.com/auth/drive";
/// The scope of the folder of an OAuth client's own data.
const OWN_DATA_SCOPE: &str = "https://www.googleapis.com/auth/drive.appdata";
/// A token that expires sooner than this is not used for a new request.
const EXPIRY_MARGIN: Duration = Duration::from_mins(2);

/// A credential's tokens.
pub(super) struct TokenCache {
    pub(super) account: DriveAccount,
    scope: &'static str,
    /// Held while a new one is got, so that only one is.
    current: Mutex<Option<AccessToken>>,
}

struct AccessToken {
    text: SecretString,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenGrant {
    access_token: SecretString,
    /// Seconds.
    #[serde(default)]
    expires_in: u64,
}

impl TokenCache {
    pub(super) fn new(account: DriveAccount, own_data: bool) -> Self {
        let scope = if own_data { OWN_DATA_SCOPE } else { DRIVE_SCOPE };
        Self { account, scope, current: Mutex::default() }
    }

    /// A token that is valid for a while.
    pub(super) async fn token(&self, client: &Client) -> Result<SecretString, DriveFailure> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.text.clone());
        }
        let asked = Instant::now();
        let granted = self.ask(client).await?;
        trainspot_base::log::hide([Secret::new("ACCESS_TOKEN", granted.access_token.clone())]);
        let life = stated_seconds(granted.expires_in).saturating_sub(EXPIRY_MARGIN);
        *current = Some(AccessToken { text: granted.access_token.clone(), until: asked + life });
        Ok(granted.access_token)
    }

    /// Drops a token that was refused.
    pub(super) async fn forget(&self, refused: &SecretString) {
        let is_refused = |text: &SecretString| text.expose_secret() == refused.expose_secret();
        self.current.lock().await.take_if(|token| is_refused(&token.text));
    }

    async fn ask(&self, client: &Client) -> Result<TokenGrant, DriveFailure> {
        let form = self.account.form(self.scope).map_err(|error| DriveFailure::own(&error))?;
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = client
            .post(&self.account.token_uri)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let answer = exchange(request, STALL_TIMEOUT).await?;
        if !answer.status.is_success() {
            return Err(DriveFailure::no_token(&answer, &self.account));
        }
        serde_json::from_slice(&answer.body).map_err(|_| DriveFailure::unclear("the token endpoint"))
    }
}
