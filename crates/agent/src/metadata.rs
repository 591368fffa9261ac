//! The machine's metadata (EC2's IMDSv2): whether the machine is about to be taken away.

use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trainspot_base::error::{Context as _, Error, Result, chain};
use trainspot_http::{Answer, Redirects};
use trainspot_protocol::Notice;

/// EC2 recommends to look every 5 s; what is wanted is a notice that is seen within these.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The service is on the machine's own host: it answers within milliseconds, or not at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// What EC2 gives between notice and end.
const USUAL_NOTICE: Duration = Duration::from_mins(2);
/// How long a token lives, in seconds: the longest there is. A new one is had when it is refused.
const TOKEN_TTL: &str = "21600";
/// The longest token or notice that is read; each is a line of text.
const ITEM_LIMIT_BYTES: usize = 16 << 10;

/// What the metadata tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MetadataEvent {
    /// The machine will be taken away.
    Notice(Notice),
    /// The machine is at elevated risk: it may be taken away soon, or never.
    Rebalance,
}

/// `spot/instance-action`.
#[derive(Debug, Deserialize)]
struct InstanceAction {
    action: String,
    time: String,
}

/// Looks at the metadata service at `url` from now on, on a thread of its own. Each piece of news comes once.
pub(super) fn watch(url: &str) -> Result<Receiver<MetadataEvent>> {
    let what = "cannot watch the machine's metadata";
    // Nothing here is TLS, and a machine without certificates is no reason to fail.
    let client = trainspot_http::client(Redirects::Refused).no_proxy().tls_certs_only([]);
    let client = client.timeout(REQUEST_TIMEOUT).build().context(what)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context(what)?;
    let (sender, news) = channel();
    let mut service = Service { client, url: url.trim_end_matches('/').to_owned(), token: None };
    thread::Builder::new().spawn(move || runtime.block_on(service.watch(&sender))).context(what)?;
    Ok(news)
}

struct Service {
    client: Client,
    url: String,
    token: Option<SecretString>,
}

impl Service {
    async fn watch(&mut self, news: &Sender<MetadataEvent>) {
        let (mut action, mut recommendation, mut failing) = (None, None, false);
        loop {
            let looked = self.look(&mut action, &mut recommendation, news).await;
            if let (Err(error), false) = (&looked, failing) {
                tracing::warn!("cannot read the machine's metadata: {}", chain(error));
            }
            failing = looked.is_err();
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Sends what is not known yet.
    async fn look(
        &mut self,
        action: &mut Option<String>,
        recommendation: &mut Option<String>,
        news: &Sender<MetadataEvent>,
    ) -> Result<()> {
        let found = self.get("spot/instance-action").await?;
        if found.is_some() && found != *action {
            let notice = notice(found.as_deref().unwrap_or_default(), SystemTime::now())?;
            *action = found;
            // Nobody listens any more at the machine's end.
            news.send(MetadataEvent::Notice(notice)).ok();
        }
        let found = self.get("events/recommendations/rebalance").await?;
        if found.is_some() && found != *recommendation {
            *recommendation = found;
            news.send(MetadataEvent::Rebalance).ok();
        }
        Ok(())
    }

    /// One item of metadata; none when there is no such item now.
    async fn get(&mut self, item: &str) -> Result<Option<String>> {
        let url = format!("{}/latest/meta-data/{item}", self.url);
        for _ in 0..2 {
            let token = self.token().await?;
            let request = self.client.get(&url).header("X-aws-ec2-metadata-token", token.expose_secret());
            match send(request).await? {
                (StatusCode::OK, body) => return Ok(Some(body)),
                (StatusCode::NOT_FOUND, _) => return Ok(None),
                // The token is too old, or the machine was moved.
                (StatusCode::UNAUTHORIZED, _) => self.token = None,
                (status, _) => return Err(Error::new(format!("{item}: HTTP {status}"))),
            }
        }
        Err(Error::new(format!("{item}: a new token was refused")))
    }

    async fn token(&mut self) -> Result<SecretString> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let request = self.client.put(format!("{}/latest/api/token", self.url));
        let request = request.header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL);
        match send(request).await? {
            (StatusCode::OK, token) => Ok(self.token.insert(token.into()).clone()),
            (status, _) => Err(Error::new(format!("no token: HTTP {status}"))),
        }
    }
}

async fn send(request: RequestBuilder) -> Result<(StatusCode, String)> {
    let answer = Answer::to(request, ITEM_LIMIT_BYTES).await.context("no answer")?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

/// The notice that this item is, at `now`. Whatever the action is called, the training's time on this machine
/// is over.
fn notice(item: &str, now: SystemTime) -> Result<Notice> {
    let InstanceAction { action, time } =
        serde_json::from_str(item).context("cannot understand spot/instance-action")?;
    let at = humantime::parse_rfc3339(&time).unwrap_or_else(|_| now + USUAL_NOTICE);
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Notice { why: format!("EC2 takes the spot machine back ({action} at {time})"), at: Some(at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_has_its_time_or_the_usual_one() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let at = |time: &str| {
            let item = format!(r#"{{"action":"terminate","time":"{time}"}}"#);
            notice(&item, now).unwrap().at.unwrap()
        };
        assert_eq!(at("2027-01-15T08:01:59Z"), 1_800_000_119);
        assert_eq!(at("2027-01-15T08:01:59.500Z"), 1_800_000_119);
        assert_eq!(at("soon"), 1120);
        let why = notice(r#"{"action":"stop","time":"2027-01-15T08:01:59Z"}"#, now).unwrap().why;
        assert_eq!(why, "EC2 takes the spot machine back (stop at 2027-01-15T08:01:59Z)");
        assert!(notice("<html>", now).is_err());
    }
}
