//! Requests to Drive: with a token, within a deadline, and again where that may help.

use super::super::REQUEST_RETRY;
use super::account::DriveAccount;
use super::exchange::{self, exchange};
use super::failure::DriveFailure;
use super::file::{DriveFile, FILE_FIELDS, FOLDER_MIME_TYPE, FilePage, RootFolder};
use super::token::TokenCache;
use crate::remote::web::client::STALL_TIMEOUT;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::time::Duration;
use tokio::sync::OnceCell;
use trainspot_base::error::{Error, Result};
use trainspot_base::retry::{RetryPolicy, Tries};
use trainspot_http::Answer;

/// How requests that came too fast are tried again, much as DVC does it: Drive counts them by the minute.
const RATE_LIMIT_RETRY: RetryPolicy = RetryPolicy {
    attempts: 16,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(20),
    total: Duration::from_mins(4),
};
/// The files in one page of a listing.
const PAGE_FILES: &str = "1000";
/// The most pages of a listing that are read: ten million files, more than Drive lets a folder hold.
const PAGE_LIMIT: usize = 10_000;
/// The id that stands for the folder of an OAuth client's own data.
const OWN_DATA_ID: &str = "appDataFolder";

/// The tries of one piece of work: those after a failure of any kind, and those after being too fast.
pub(super) struct DriveRetry {
    failed: Tries,
    limited: Tries,
}

impl DriveRetry {
    pub(super) fn new() -> Self {
        Self { failed: Tries::new(REQUEST_RETRY), limited: Tries::new(RATE_LIMIT_RETRY) }
    }

    /// Waits for the next try; false if there is none.
    pub(super) async fn wait_after(&mut self, failure: &DriveFailure) -> bool {
        let tries = if failure.limited { &mut self.limited } else { &mut self.failed };
        failure.is_transient && tries.wait_for_next(failure.wait).await
    }
}

/// Drive, as one account sees it.
pub(super) struct DriveApi {
    client: Client,
    base: String,
    tokens: TokenCache,
    id: String,
    root: OnceCell<RootFolder>,
}

impl DriveApi {
    pub(super) fn new(client: Client, base: String, account: DriveAccount, id: &str) -> Self {
        let tokens = TokenCache::new(account, id == OWN_DATA_ID);
        Self { client, base, tokens, id: id.to_owned(), root: OnceCell::new() }
    }

    /// A request about files: `/drive/v3/files` and so on. Without the flag, Drive denies that there are
    /// Shared Drives.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).query(&[("supportsAllDrives", "true")])
    }

    /// A request to the address of an upload.
    pub(super) fn put(&self, session: &str) -> RequestBuilder {
        self.client.put(session)
    }

    /// Ends an upload. What fails at it ends by itself after a week, and is visible to nobody.
    pub(super) async fn abandon(&self, session: &str) {
        self.once(STALL_TIMEOUT, &|| self.client.delete(session)).await.ok();
    }

    /// One try, whose answer is a success, or the word to go on with an upload. A token that was refused is
    /// got anew: it may have been revoked, or the machine been asleep.
    pub(super) async fn once(
        &self,
        answer_timeout: Duration,
        request: &(impl Fn() -> RequestBuilder + Sync),
    ) -> Result<Answer, DriveFailure> {
        let mut renewed = false;
        loop {
            let token = self.tokens.token(&self.client).await?;
            let answer = exchange(request().bearer_auth(token.expose_secret()), answer_timeout).await?;
            if answer.status.is_success() || answer.status == StatusCode::PERMANENT_REDIRECT {
                return Ok(answer);
            }
            if answer.status != StatusCode::UNAUTHORIZED || renewed {
                return Err(DriveFailure::refused(&answer));
            }
            self.tokens.forget(&token).await;
            renewed = true;
        }
    }

    /// Asks until there is an answer that trying again would not change.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        request: impl Fn() -> RequestBuilder + Sync,
    ) -> Result<T> {
        let mut retry = DriveRetry::new();
        loop {
            let answer = self.once(STALL_TIMEOUT, &request).await.and_then(|answer| exchange::json(&answer));
            match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) if retry.wait_after(&failure).await => {}
                Err(failure) => return Err(self.explain(what, failure)),
            }
        }
    }

    /// The failure, with what the user can do.
    pub(super) fn explain(&self, what: &str, failure: DriveFailure) -> Error {
        let shared = self.root.get().is_some_and(|root| root.drive_id.is_some());
        failure.explain(what, &self.tokens.account, shared)
    }

    /// The folder that the remote names.
    pub(super) async fn root(&self, what: &str) -> Result<&RootFolder> {
        let look = async || {
            let path = format!("/drive/v3/files/{}", self.id);
            let fields = [("fields", "id,driveId,mimeType,trashed")];
            let root: RootFolder = self.ask(what, || self.request(Method::GET, &path).query(&fields)).await?;
            if root.mime_type != FOLDER_MIME_TYPE {
                let error =
                    Error::new(what).source(format!("{} is a {}, and no folder", self.id, root.mime_type));
                return Err(error.hint("set the remote's url to the id of a folder"));
            }
            if root.trashed {
                let error = Error::new(what).source(format!("the folder {} is in the trash", self.id));
                return Err(error.hint("restore it, or set the remote's url to another one"));
            }
            Ok(root)
        };
        self.root.get_or_try_init(look).await
    }

    /// Gives each file that fits the query.
    pub(super) async fn list(&self, what: &str, query: &str, mut each: impl FnMut(DriveFile)) -> Result<()> {
        let fields = format!("nextPageToken,files({FILE_FIELDS})");
        let mut asked = vec![
            ("q", query),
            ("fields", &fields),
            ("pageSize", PAGE_FILES),
            ("includeItemsFromAllDrives", "true"),
        ];
        match &self.root(what).await?.drive_id {
            Some(id) => asked.extend([("corpora", "drive"), ("driveId", id)]),
            None if self.id == OWN_DATA_ID => asked.push(("spaces", OWN_DATA_ID)),
            None => asked.push(("corpora", "user")),
        }
        let mut next = None::<String>;
        for _ in 0..PAGE_LIMIT {
            let request = || {
                let request = self.request(Method::GET, "/drive/v3/files").query(&asked);
                next.iter().fold(request, |request, token| request.query(&[("pageToken", token)]))
            };
            let page: FilePage = self.ask(what, request).await?;
            page.files.into_iter().for_each(&mut each);
            if page.next_page_token.is_none() {
                return Ok(());
            }
            if page.next_page_token == next {
                break;
            }
            next = page.next_page_token;
        }
        Err(Error::new(what).source("its list of files does not end"))
    }

    /// Puts a file into the trash, where its owner finds it for 30 days. One that is gone already is none.
    pub(super) async fn trash(&self, what: &str, id: &str) -> Result<()> {
        let path = format!("/drive/v3/files/{id}");
        let request = || {
            // There is no trash in the folder of a client's own data.
            if self.id == OWN_DATA_ID {
                return self.request(Method::DELETE, &path);
            }
            let trashed = json!({ "trashed": true });
            self.request(Method::PATCH, &path).query(&[("fields", "id")]).json(&trashed)
        };
        let mut retry = DriveRetry::new();
        loop {
            match self.once(STALL_TIMEOUT, &request).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.status == Some(StatusCode::NOT_FOUND) => return Ok(()),
                Err(failure) if retry.wait_after(&failure).await => {}
                Err(failure) => return Err(self.explain(what, failure)),
            }
        }
    }
}
