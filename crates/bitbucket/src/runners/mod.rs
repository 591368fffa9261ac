//! Self-hosted runners of a repository or a workspace: registered, looked at, switched off, deleted.
//!
//! The part of the API is public, but the bodies of its requests are not documented: what is sent here is
//! what programs that use it send (registration), and what its answers look like (switching off).

mod rules;

use super::failure::Failure;
use super::http::Scope;
use super::{Client, Level, status_of};
use reqwest::Method;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use std::fmt;
use std::time::SystemTime;
use trainspot_base::error::{Kind, Result};

pub use rules::{NewRunner, Platform, label_fault};

/// A runner as Bitbucket knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Runner {
    /// Its id, in braces.
    pub uuid: String,
    /// Its name. Bitbucket does not keep two from having the same.
    pub name: String,
    /// Its labels, Bitbucket's own included.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How it is.
    #[serde(default = "untold", rename = "state", deserialize_with = "status")]
    pub status: RunnerStatus,
    /// When it was registered, if Bitbucket says so.
    #[serde(default, rename = "created_on", deserialize_with = "time")]
    pub since: Option<SystemTime>,
}

/// How a runner is, as Bitbucket sees it. None of these tells whether it runs a step: the public API does not
/// say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerStatus {
    /// Registered, and never heard of since.
    Unregistered,
    /// It takes steps, or runs one.
    Online,
    /// It was heard of before, but not lately.
    Offline,
    /// It takes no steps, because somebody said so.
    Disabled,
    /// It cannot clean up after a step, and takes no others.
    Unhealthy,
    /// Something that this program does not know.
    Other(String),
}

impl RunnerStatus {
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

fn untold() -> RunnerStatus {
    RunnerStatus::of("")
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RunnerStatus, D::Error> {
    #[derive(Deserialize)]
    struct State {
        status: Option<String>,
    }
    let state = Option::<State>::deserialize(deserializer)?;
    Ok(RunnerStatus::of(state.and_then(|state| state.status).as_deref().unwrap_or_default()))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    Ok(humantime::parse_rfc3339(&text.replace("+00:00", "Z")).ok())
}

/// A runner that was just registered, and what its program needs to act as it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The runner.
    pub runner: Runner,
    /// Its credentials.
    pub oauth: OauthClient,
}

/// A runner's own credentials. They allow no more than to be this runner.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OauthClient {
    /// The client's id.
    pub id: String,
    /// The client's secret, which Bitbucket tells once.
    pub secret: OauthSecret,
}

/// A secret that no output shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct OauthSecret(String);

impl OauthSecret {
    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OauthSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OauthSecret(…)")
    }
}

#[derive(Deserialize)]
struct Sent {
    #[serde(flatten)]
    runner: Runner,
    oauth_client: OauthClient,
}

fn read(level: Level) -> Scope {
    Scope { access: "runner", api: "read:runner:bitbucket", level, kind: Kind::Machine }
}

fn write(level: Level) -> Scope {
    let api = "write:runner:bitbucket (with read:runner:bitbucket)";
    Scope { access: "runner:write", api, level, kind: Kind::Machine }
}

impl Client {
    /// Registers a runner. There is then one of its name.
    ///
    /// One that is there already is of an answer that was lost, or of a pipe that died: its secret, told
    /// once, is lost with it. So it is deleted first, unless it is in use.
    ///
    /// # Errors
    /// There is one of that name that is or was online: a caller that may use it looks for it first. The
    /// labels are refused, or there are too many runners (Bitbucket allows 100 a repository and 100 a
    /// workspace).
    pub async fn register_runner(&self, level: Level, new: &NewRunner) -> Result<Registered> {
        let what = format!("register the runner {}", new.name());
        let body = json!({ "name": new.name(), "labels": new.labels() });
        // Whether there may be one whose secret nobody heard.
        let mut lost = false;
        let registered = self.call(&what, write(level), async || {
            self.forget_unused(level, new.name(), None).await?;
            let earlier = std::mem::replace(&mut lost, true);
            match self.send::<Sent>(Method::POST, self.runners(level), Some(&body)).await {
                Ok(sent) => {
                    // An earlier attempt may have been acted upon after this one looked for what it made.
                    if earlier {
                        self.forget_unused(level, new.name(), Some(&sent.runner.uuid)).await?;
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
            Ok(sent) => Ok(Registered { runner: sent.runner, oauth: sent.oauth_client }),
            Err(error) if lost && self.forget_unused(level, new.name(), None).await.is_err() => {
                let place = self.place(level);
                Err(error.leaves(format!("perhaps a runner {} of {place}, never used", new.name())))
            }
            Err(error) if status_of(&error) == Some(400) => Err(error.hint(
                "see which rule Bitbucket names; a repository and a workspace may have 100 runners each",
            )),
            Err(error) => Err(error),
        }
    }

    /// Every runner of the repository (not of its workspace), or of the workspace.
    pub async fn runners_of(&self, level: Level) -> Result<Vec<Runner>> {
        self.call("list the runners", read(level), async || self.list_runners(level).await).await
    }

    /// The runner of that id; none if there is none.
    pub async fn runner(&self, level: Level, uuid: &str) -> Result<Option<Runner>> {
        let what = format!("look up the runner {uuid}");
        let url = self.runner_url(level, uuid);
        let found = self.call(&what, read(level), async || self.send(Method::GET, url.clone(), None).await);
        or_none(found.await)
    }

    /// Tells Bitbucket to give the runner no more steps; one that it runs goes on. Tells whether Bitbucket
    /// then says so of it, which the documentation does not promise; false too if there is none such.
    pub async fn disable_runner(&self, level: Level, runner: &Runner) -> Result<bool> {
        let what = format!("disable the runner {}", runner.name);
        let body = json!({ "name": runner.name, "labels": runner.labels, "state": { "status": "DISABLED" } });
        let url = self.runner_url(level, &runner.uuid);
        let changed = self.call(&what, write(level), async || {
            self.send::<Runner>(Method::PUT, url.clone(), Some(&body)).await
        });
        Ok(or_none(changed.await)?.is_some_and(|runner| runner.status == RunnerStatus::Disabled))
    }

    /// Deletes a runner. That there is none such is as good.
    pub async fn delete_runner(&self, level: Level, uuid: &str) -> Result<()> {
        let what = format!("delete the runner {uuid}");
        self.call(&what, write(level), async || self.delete(level, uuid).await).await
    }

    fn runners(&self, level: Level) -> url::Url {
        self.url_of(level, &["pipelines-config", "runners"])
    }

    fn runner_url(&self, level: Level, uuid: &str) -> url::Url {
        self.url_of(level, &["pipelines-config", "runners", uuid])
    }

    async fn list_runners(&self, level: Level) -> Result<Vec<Runner>, Failure> {
        let mut url = self.runners(level);
        url.query_pairs_mut().append_pair("pagelen", "100");
        self.list(url).await
    }

    async fn delete(&self, level: Level, uuid: &str) -> Result<(), Failure> {
        match self.exchange(Method::DELETE, self.runner_url(level, uuid), None).await {
            Err(failure) if failure.status() == Some(404) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Deletes the runners of that name that nobody ever used, but not `ours`.
    async fn forget_unused(&self, level: Level, name: &str, ours: Option<&str>) -> Result<(), Failure> {
        let named = self.list_runners(level).await?.into_iter().filter(|runner| runner.name == name);
        for runner in named.filter(|runner| Some(&*runner.uuid) != ours) {
            if runner.status != RunnerStatus::Unregistered {
                let Runner { uuid, status, .. } = runner;
                return Err(Failure::last(format!("there is one already: {uuid}, {status:?}")));
            }
            self.delete(level, &runner.uuid).await?;
        }
        Ok(())
    }
}

/// A 404 as nothing.
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

    #[test]
    fn states_that_are_not_known_do_no_harm() {
        let parse = |state: &str| {
            let text = format!(r#"{{"uuid":"{{a}}","name":"n"{state}}}"#);
            serde_json::from_str::<Runner>(&text).unwrap().status
        };
        assert_eq!(parse(r#","state":{"status":"ONLINE","cordoned":false}"#), RunnerStatus::Online);
        assert_eq!(parse(r#","state":{"status":"NAPPING"}"#), RunnerStatus::Other("NAPPING".into()));
        assert_eq!(parse(r#","state":{}"#), RunnerStatus::Other(String::new()));
        assert_eq!(parse(""), RunnerStatus::Other(String::new()));
    }

    #[test]
    fn no_debug_output_shows_the_secret() {
        let sent = r#"{"uuid":"{a}","name":"n","oauth_client":{"id":"i","secret":"s3cret","audience":"a"}}"#;
        let Sent { runner, oauth_client } = serde_json::from_str(sent).unwrap();
        let registered = Registered { runner, oauth: oauth_client };
        assert_eq!(registered.oauth.secret.reveal(), "s3cret");
        assert!(!format!("{registered:?} {registered:#?}").contains("s3cret"));
    }
}
