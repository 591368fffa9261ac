//! Self-hosted runners of a repository or a workspace: registered, looked at, switched off, deleted.
//!
//! The part of the API is public, but the bodies of its requests are not documented: what is sent here is
//! what programs that use it send (registration), and what its answers look like (switching off).

mod rules;

use super::failure::CallFailure;
use super::http::Permission;
use super::{Client, Scope, status_of};
use reqwest::Method;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use std::time::SystemTime;
use trainspot_base::error::{Kind, Result};

pub use rules::{NewRunner, Platform, label_fault};

/// A runner as Bitbucket knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RunnerRegistration {
    /// The runner's id, in braces.
    pub uuid: String,
    /// The runner's name. Bitbucket does not keep two from having the same.
    pub name: String,
    /// The runner's labels, Bitbucket's own included.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The runner's status.
    #[serde(default = "untold", rename = "state", deserialize_with = "status")]
    pub status: RegistrationStatus,
    /// When the runner was registered, if Bitbucket says so.
    #[serde(default, rename = "created_on", deserialize_with = "time")]
    pub since: Option<SystemTime>,
}

/// A runner's status, as Bitbucket sees it. No status tells whether it runs a step: the public API does not
/// say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationStatus {
    /// The runner is registered, and Bitbucket has never heard of it since.
    Unregistered,
    /// The runner takes steps, or runs one.
    Online,
    /// Bitbucket heard of the runner before, but not lately.
    Offline,
    /// The runner takes no steps, because somebody disabled it.
    Disabled,
    /// The runner cannot clean up after a step, and takes no others.
    Unhealthy,
    /// A status that this program does not know.
    Other(String),
}

impl RegistrationStatus {
    fn of(word: &str) -> Self {
        match word {
            "UNREGISTERED" => Self::Unregistered,
            // Nowhere described. The only answer that it may be one to is that to switching it on again.
            "ONLINE" | "ENABLED" => Self::Online,
            "OFFLINE" => Self::Offline,
            "DISABLED" => Self::Disabled,
            "UNHEALTHY" => Self::Unhealthy,
            other => Self::Other(other.to_owned()),
        }
    }
}

fn untold() -> RegistrationStatus {
    RegistrationStatus::of("")
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RegistrationStatus, D::Error> {
    #[derive(Deserialize)]
    struct SentStatus {
        status: Option<String>,
    }
    let state = Option::<SentStatus>::deserialize(deserializer)?;
    Ok(RegistrationStatus::of(state.and_then(|state| state.status).as_deref().unwrap_or_default()))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    Ok(humantime::parse_rfc3339(&text.replace("+00:00", "Z")).ok())
}

/// A runner that was just registered, and what its program needs to act as it.
#[derive(Clone, Debug)]
pub struct NewRegistration {
    /// The runner.
    pub runner: RunnerRegistration,
    /// The runner's credentials.
    pub oauth: OauthClient,
}

/// A runner's own credentials. They allow no more than to be this runner.
#[derive(Clone, Debug, Deserialize)]
pub struct OauthClient {
    /// The client's id.
    pub id: String,
    /// The client's secret, which Bitbucket tells once.
    pub secret: SecretString,
}

#[derive(Deserialize)]
struct SentRunner {
    #[serde(flatten)]
    runner: RunnerRegistration,
    oauth_client: OauthClient,
}

fn read_permission(scope: Scope) -> Permission {
    Permission { access: "runner", api: "read:runner:bitbucket", scope, kind: Kind::Machine }
}

fn write_permission(scope: Scope) -> Permission {
    let api = "write:runner:bitbucket (with read:runner:bitbucket)";
    Permission { access: "runner:write", api, scope, kind: Kind::Machine }
}

impl Client {
    /// Registers a runner, and leaves exactly one of its name.
    ///
    /// A runner of that name that exists already stems from an answer that was lost, or from a pipe that
    /// died: its secret, told once, is lost. So that runner is deleted first, unless it is in use.
    ///
    /// # Errors
    /// A runner of that name is or was online: a caller that may use it looks for it first. The labels are
    /// refused, or there are too many runners (Bitbucket allows 100 a repository and 100 a workspace).
    pub async fn register_runner(&self, scope: Scope, new: &NewRunner) -> Result<NewRegistration> {
        let what = format!("register the runner {}", new.name());
        let body = json!({ "name": new.name(), "labels": new.labels() });
        // Whether there may be one whose secret nobody heard.
        let mut lost = false;
        let registered = self.call(&what, write_permission(scope), async || {
            self.forget_unused(scope, new.name(), None).await?;
            let earlier = std::mem::replace(&mut lost, true);
            match self.send::<SentRunner>(Method::POST, self.runners(scope), Some(&body)).await {
                Ok(sent) => {
                    // An earlier attempt may have been acted upon after this one looked for what it made.
                    if earlier {
                        self.forget_unused(scope, new.name(), Some(&sent.runner.uuid)).await?;
                    }
                    Ok(sent)
                }
                Err(failure) => {
                    lost = earlier || failure.status().is_none_or(|status| status >= 500);
                    Err(failure)
                }
            }
        });
        match registered.await {
            Ok(sent) => Ok(NewRegistration { runner: sent.runner, oauth: sent.oauth_client }),
            Err(error) if lost && self.forget_unused(scope, new.name(), None).await.is_err() => {
                let place = self.place(scope);
                Err(error.leaves(format!("perhaps a runner {} of {place}, never used", new.name())))
            }
            Err(error) if status_of(&error) == Some(400) => Err(error.hint(
                "see which rule Bitbucket names; a repository and a workspace may have 100 runners each",
            )),
            Err(error) => Err(error),
        }
    }

    /// Every runner of the repository (not of its workspace), or of the workspace.
    pub async fn runners_of(&self, scope: Scope) -> Result<Vec<RunnerRegistration>> {
        self.call("list the runners", read_permission(scope), async || self.list_runners(scope).await).await
    }

    /// The runner with the id `uuid`; none if Bitbucket has no such runner.
    pub async fn runner(&self, scope: Scope, uuid: &str) -> Result<Option<RunnerRegistration>> {
        let what = format!("look up the runner {uuid}");
        let url = self.runner_url(scope, uuid);
        let found = self
            .call(&what, read_permission(scope), async || self.send(Method::GET, url.clone(), None).await);
        or_none(found.await)
    }

    /// Tells Bitbucket to give the runner no more steps; a step that it runs goes on. Returns whether
    /// Bitbucket answers that the runner is disabled, which its documentation does not promise; false if
    /// there is no such runner.
    pub async fn disable_runner(&self, scope: Scope, runner: &RunnerRegistration) -> Result<bool> {
        let what = format!("disable the runner {}", runner.name);
        let body = json!({ "name": runner.name, "labels": runner.labels, "state": { "status": "DISABLED" } });
        let url = self.runner_url(scope, &runner.uuid);
        let changed = self.call(&what, write_permission(scope), async || {
            self.send::<RunnerRegistration>(Method::PUT, url.clone(), Some(&body)).await
        });
        Ok(or_none(changed.await)?.is_some_and(|runner| runner.status == RegistrationStatus::Disabled))
    }

    /// Deletes a runner. A runner that Bitbucket does not have counts as deleted.
    pub async fn delete_runner(&self, scope: Scope, uuid: &str) -> Result<()> {
        let what = format!("delete the runner {uuid}");
        self.call(&what, write_permission(scope), async || self.delete(scope, uuid).await).await
    }

    fn runners(&self, scope: Scope) -> url::Url {
        self.url_of(scope, &["pipelines-config", "runners"])
    }

    fn runner_url(&self, scope: Scope, uuid: &str) -> url::Url {
        self.url_of(scope, &["pipelines-config", "runners", uuid])
    }

    async fn list_runners(&self, scope: Scope) -> Result<Vec<RunnerRegistration>, CallFailure> {
        let mut url = self.runners(scope);
        url.query_pairs_mut().append_pair("pagelen", "100");
        self.list(url).await
    }

    async fn delete(&self, scope: Scope, uuid: &str) -> Result<(), CallFailure> {
        match self.exchange(Method::DELETE, self.runner_url(scope, uuid), None).await {
            Err(failure) if failure.status() == Some(404) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Deletes the runners of that name that nobody ever used, but not `ours`.
    async fn forget_unused(&self, scope: Scope, name: &str, ours: Option<&str>) -> Result<(), CallFailure> {
        let named = self.list_runners(scope).await?.into_iter().filter(|runner| runner.name == name);
        for runner in named.filter(|runner| Some(&*runner.uuid) != ours) {
            if runner.status != RegistrationStatus::Unregistered {
                let RunnerRegistration { uuid, status, .. } = runner;
                return Err(CallFailure::last(format!("there is one already: {uuid}, {status:?}")));
            }
            self.delete(scope, &runner.uuid).await?;
        }
        Ok(())
    }
}

/// Turns a refusal with status 404 into none.
fn or_none<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if status_of(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn states_that_are_not_known_do_no_harm() {
        let parse = |state: &str| {
            let text = format!(r#"{{"uuid":"{{a}}","name":"n"{state}}}"#);
            serde_json::from_str::<RunnerRegistration>(&text).unwrap().status
        };
        assert_eq!(parse(r#","state":{"status":"ONLINE","cordoned":false}"#), RegistrationStatus::Online);
        assert_eq!(parse(r#","state":{"status":"NAPPING"}"#), RegistrationStatus::Other("NAPPING".into()));
        assert_eq!(parse(r#","state":{}"#), RegistrationStatus::Other(String::new()));
        assert_eq!(parse(""), RegistrationStatus::Other(String::new()));
    }

    #[test]
    fn no_debug_output_shows_the_secret() {
        let sent = r#"{"uuid":"{a}","name":"n","oauth_client":{"id":"i","secret":"s3cret","audience":"a"}}"#;
        let SentRunner { runner, oauth_client } = serde_json::from_str(sent).unwrap();
        let registered = NewRegistration { runner, oauth: oauth_client };
        assert_eq!(registered.oauth.secret.expose_secret(), "s3cret");
        assert!(!format!("{registered:?} {registered:#?}").contains("s3cret"));
    }
}
