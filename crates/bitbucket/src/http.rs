//! Requests: authorisation, deadlines, retries, pages, and what to advise where they are refused.

use super::failure::CallFailure;
use super::{Client, Credential, Scope};
use reqwest::{Method, Proxy, RequestBuilder};
use secrecy::ExposeSecret as _;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::progress::in_words;
use trainspot_base::retry::{Attempted, retry};
use trainspot_http::{Answer, Redirects};
use url::Url;

/// The most pages of one list. None that is read here comes near; a `next` that leads in circles must end.
const LIST_LIMIT_PAGES: usize = 100;
/// The most values of one page; Bitbucket's own pages have 100 at most.
const PAGE_LIMIT_VALUES: usize = 1000;
/// The longest answer: a page of a hundred comments of the longest kind has 7 MB.
const ANSWER_LIMIT_BYTES: usize = 8 << 20;
/// The bytes of all pages of one list together.
const LIST_LIMIT_BYTES: usize = 16 << 20;
/// The wait for the rate limit where Bitbucket does not say how long.
const RATE_LIMIT_USUAL_WAIT: Duration = Duration::from_mins(1);
/// The shortest wait for the rate limit, whatever Bitbucket says.
const RATE_LIMIT_SHORTEST_WAIT: Duration = Duration::from_secs(10);

/// The permission that a token needs for a call, by the names that Bitbucket gives it, and where it needs it.
#[derive(Clone, Copy)]
pub(super) struct Permission {
    /// As an access token's settings name it.
    pub(super) access: &'static str,
    /// As an API token's settings name it.
    pub(super) api: &'static str,
    /// On the repository, or on its whole workspace.
    pub(super) scope: Scope,
    /// Which part of a run fails with the call.
    pub(super) kind: Kind,
}

/// One page of a list.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct ListPage<T> {
    #[serde(deserialize_with = "values")]
    values: Vec<T>,
    next: Option<String>,
}

/// The values of a page, [`PAGE_LIMIT_VALUES`] at most: many small ones take far more memory than their text.
fn values<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct ListVisitor<T>(PhantomData<T>);
    impl<'de, T: DeserializeOwned> Visitor<'de> for ListVisitor<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                if values.len() == PAGE_LIMIT_VALUES {
                    return Err(A::Error::custom(format!("a page of more than {PAGE_LIMIT_VALUES} values")));
                }
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_seq(ListVisitor(PhantomData))
}

/// The HTTP client for a credential.
///
/// The client follows no redirects: none is documented for the calls made here.
pub(super) fn connector(credential: &Credential) -> reqwest::Result<reqwest::Client> {
    let builder = trainspot_http::client(Redirects::Refused);
    match credential {
        Credential::PipelinesProxy { proxy_url } => builder.no_proxy().proxy(Proxy::all(proxy_url)?).build(),
        Credential::AccessToken(_) | Credential::ApiToken { .. } => builder.build(),
    }
}

impl Client {
    /// Makes one call of one or more requests, and makes the whole of it again where a failure is transient.
    ///
    /// A failed request may have been acted upon. A call that is not idempotent therefore starts by looking
    /// for what it would create.
    pub(super) async fn call<T>(
        &self,
        what: &str,
        permission: Permission,
        mut call: impl AsyncFnMut() -> Result<T, CallFailure>,
    ) -> Result<T> {
        let mut left = self.patience.rate_limit;
        loop {
            let failure = match self.attempts(what, &mut call).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            if !failure.is_rate_limit() || left.is_zero() {
                return Err(self.explain(what, permission, failure));
            }
            // A time beyond what is left is tried at its end all the same: the limit is one of the last hour.
            let wait = failure.wait.unwrap_or(RATE_LIMIT_USUAL_WAIT).max(RATE_LIMIT_SHORTEST_WAIT).min(left);
            tracing::info!("Bitbucket's rate limit is reached; waiting for {} to {what}", in_words(wait));
            tokio::time::sleep(wait).await;
            left -= wait;
        }
    }

    /// The attempts at one call, within the time that an ordinary failure is given to pass.
    async fn attempts<T>(
        &self,
        what: &str,
        mut call: impl AsyncFnMut() -> Result<T, CallFailure>,
    ) -> Result<T, CallFailure> {
        let policy = self.patience.attempts;
        let waits_outside =
            |failure: &CallFailure| failure.is_rate_limit() && !self.patience.rate_limit.is_zero();
        let attempts = retry(policy, async |number| match call().await {
            Err(failure) if failure.is_transient && !waits_outside(&failure) => {
                tracing::info!("Attempt {number} to {what} failed: {failure}");
                let wait = failure.wait;
                Attempted::Transient(failure, wait)
            }
            ended => Attempted::Final(ended),
        });
        let late =
            || CallFailure::last(format!("Bitbucket did not do it within {} s", policy.total.as_secs_f32()));
        tokio::time::timeout(policy.total, attempts).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends one request, and returns the JSON that Bitbucket answers.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        json: Option<&Value>,
    ) -> Result<T, CallFailure> {
        understood(&self.exchange(method, url, json).await?)
    }

    /// Sends one request, and returns Bitbucket's answer, whose body may be empty.
    pub(super) async fn exchange(
        &self,
        method: Method,
        url: Url,
        json: Option<&Value>,
    ) -> Result<Answer, CallFailure> {
        let request = self.authorised(self.request(method, url));
        let request = match json {
            Some(json) => request.json(json),
            None => request,
        };
        let answer = Answer::to(request, ANSWER_LIMIT_BYTES).await?;
        if answer.is_success() { Ok(answer) } else { Err(CallFailure::of_answer(&answer)) }
    }

    /// A request to anywhere, with its deadline and without authorisation.
    pub(super) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).timeout(self.patience.request)
    }

    pub(super) fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credential {
            Credential::AccessToken(token) => request.bearer_auth(token.expose_secret()),
            Credential::ApiToken { email, token } => request.basic_auth(email, Some(token.expose_secret())),
            Credential::PipelinesProxy { .. } => request,
        }
    }

    /// Every value of a list, page by page.
    pub(super) async fn list<T: DeserializeOwned>(&self, mut url: Url) -> Result<Vec<T>, CallFailure> {
        let (mut values, mut bytes) = (Vec::new(), 0);
        for _ in 0..LIST_LIMIT_PAGES {
            let answer = self.exchange(Method::GET, url, None).await?;
            bytes += answer.body.len();
            if bytes > LIST_LIMIT_BYTES {
                return Err(CallFailure::last(format!(
                    "Bitbucket's list is longer than {LIST_LIMIT_BYTES} bytes"
                )));
            }
            let page: ListPage<T> = understood(&answer)?;
            values.extend(page.values);
            let Some(next) = page.next else { return Ok(values) };
            // The token goes wherever the request goes.
            url = Url::parse(&next).ok().filter(|next| next.origin() == self.base.origin()).ok_or_else(
                || CallFailure::last(format!("Bitbucket's next page is on another host: {next}")),
            )?;
        }
        Err(CallFailure::last(format!("Bitbucket's list has more than {LIST_LIMIT_PAGES} pages")))
    }

    /// The values of a list's first page.
    pub(super) async fn page<T: DeserializeOwned>(&self, url: Url) -> Result<Vec<T>, CallFailure> {
        self.send::<ListPage<T>>(Method::GET, url, None).await.map(|page| page.values)
    }

    fn explain(&self, what: &str, permission: Permission, failure: CallFailure) -> Error {
        let advice = self.advice(permission, &failure);
        let error =
            Error::new(format!("cannot {what} in {}", self.place(permission.scope))).kind(permission.kind);
        error.source(failure).maybe_hint(advice)
    }

    fn advice(&self, permission: Permission, failure: &CallFailure) -> Option<String> {
        let scope = permission.scope;
        let (variable, permission) = match &self.credential {
            Credential::AccessToken(_) => ("BITBUCKET_ACCESS_TOKEN", permission.access),
            Credential::ApiToken { .. } => {
                ("ATLASSIAN_ACCOUNT_EMAIL and ATLASSIAN_API_TOKEN", permission.api)
            }
            Credential::PipelinesProxy { .. } => {
                let refused = matches!(failure.status(), Some(401 | 403));
                let advice = "the step's own identity may not do this; set BITBUCKET_ACCESS_TOKEN to a repository \
                              access token";
                return refused.then(|| advice.to_owned());
            }
        };
        Some(match failure.status()? {
            401 => format!(
                "check {variable}: Bitbucket does not accept it; it may be mistyped, revoked or expired"
            ),
            403 => {
                format!("check {variable}: the token needs the scope {permission} on {}", self.place(scope))
            }
            404 => format!(
                "check that {} exists under this name, and that the token in {variable} may read it",
                self.place(scope)
            ),
            429 => "run fewer pipelines at a time, or give this one a token of its own".to_owned(),
            _ => return None,
        })
    }
}

/// The JSON of an answer.
pub(super) fn understood<T: DeserializeOwned>(answer: &Answer) -> Result<T, CallFailure> {
    let unreadable = |error| CallFailure::last(format!("Bitbucket's answer cannot be understood: {error}"));
    answer.json().map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Patience;
    use reqwest::StatusCode;
    use tokio::time::Instant;

    const TEST_PERMISSION: Permission =
        Permission { access: "a", api: "b", scope: Scope::Repository, kind: Kind::Publication };

    fn limited(headers: &[(&'static str, &str)]) -> CallFailure {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let answer = Answer { status: StatusCode::TOO_MANY_REQUESTS, headers, body: Vec::new() };
        CallFailure::of_answer(&answer)
    }

    /// How often a call is tried that meets the rate limit for so long, how long that takes, and its end.
    async fn tried(
        patience: Patience,
        limit: Duration,
        headers: &[(&'static str, &str)],
    ) -> (u32, Duration, Result<()>) {
        let token = Credential::AccessToken("t".into());
        let client = Client::new("https://api.example.org/2.0", "a", "b", token).unwrap();
        let client = client.with_patience(patience);
        let (start, mut tries) = (Instant::now(), 0);
        let done = client
            .call("tell", TEST_PERMISSION, async || {
                tries += 1;
                if start.elapsed() < limit { Err(limited(headers)) } else { Ok(()) }
            })
            .await;
        (tries, start.elapsed(), done)
    }

    #[tokio::test(start_paused = true)]
    async fn after_hours_of_training_the_rate_limit_is_waited_for() {
        let minutes = Duration::from_mins;
        let after = Patience::after_hours(Duration::MAX);
        for name in ["x-ratelimit-reset", "retry-after"] {
            let (tries, took, done) = tried(after, minutes(55), &[(name, "3300")]).await;
            assert!(done.is_ok() && tries == 2 && took == minutes(55), "{name}: {tries} tries, {took:?}");
        }
        // A time that is none of waiting, such as one since 1970, is tried after the longest wait.
        let (tries, took, done) = tried(after, minutes(60), &[("x-ratelimit-reset", "1795000000")]).await;
        assert!(done.is_ok() && tries == 2 && took == minutes(70), "{tries} tries, {took:?}");
        // No time, and one of zero seconds, lead to few calls.
        for headers in [&[] as &[_], &[("retry-after", "0")]] {
            let (tries, took, done) = tried(after, minutes(30), headers).await;
            assert!(done.is_ok() && tries < 200 && took < minutes(33), "{tries} tries, {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_is_not_waited_for_longer_than_the_step_lives() {
        let (hour, most) = (Duration::from_hours(1), Duration::from_mins(5));
        let reset = [("x-ratelimit-reset", "3600")];
        let (tries, took, done) = tried(Patience::after_hours(most), hour, &reset).await;
        assert!(done.is_err() && tries == 2 && took == most, "{tries} tries, {took:?}");
        // Before a machine is rented nobody waits for an hour.
        let (tries, took, done) = tried(Patience::default(), hour, &reset).await;
        let told = done.unwrap_err().render();
        assert!(tries == 1 && took.is_zero() && told.contains("run fewer pipelines"), "{told}");
        let (_, took, done) = tried(Patience::after_hours(Duration::MAX), 3 * hour, &reset).await;
        assert!(done.is_err() && took == Duration::from_mins(70), "{took:?}");
    }
}
