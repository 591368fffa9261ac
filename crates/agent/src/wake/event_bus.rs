//! The event that wakes a run, on a bus of `EventBridge`. `docs/wake.yaml` has the rule that waits for it.

use super::{REQUEST_TIMEOUT, WakeCall};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::retry::{Attempted, RetryPolicy, retry};
use trainspot_http::{Answer, NoAnswer, Redirects, quote};
use trainspot_protocol::WakeBus;
use trainspot_store::{AwsSigner, NoSignature};

/// The event's source, for which the rule waits.
const SOURCE: &str = "trainspot";
/// The event's type, for which the rule waits.
const DETAIL_TYPE: &str = "Trainspot run is due";
/// What the request asks AWS for.
const OPERATION: &str = "AWSEvents.PutEvents";
/// The longest answer: one entry of an id, or of a code with a message.
const ANSWER_LIMIT_BYTES: usize = 64 << 10;
/// AWS's codes for what passes, whatever status comes with them; more than these begin with `Throttl`.
const TRANSIENT_CODES: [&str; 3] = ["InternalException", "InternalFailure", "ServiceUnavailable"];

/// The answer of `PutEvents`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutAnswer {
    failed_entry_count: u64,
    #[serde(default)]
    entries: Vec<PutEntry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEntry {
    #[serde(default)]
    error_code: String,
    #[serde(default)]
    error_message: String,
}

/// A refusal: its code stands behind the name of a namespace, or alone.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default, rename = "__type")]
    code: String,
    #[serde(default, alias = "Message")]
    message: String,
}

/// Why the bus did not take the event.
#[derive(Debug)]
struct PutFailure {
    why: String,
    is_transient: bool,
    /// How long the bus asks to wait.
    wait: Option<Duration>,
}

/// Puts the event on the bus that a run of this spec is due.
pub(super) async fn put(bus: &WakeBus, call: &WakeCall<'_>, attempts: RetryPolicy) -> Result<()> {
    let what = || format!("cannot put an event on the bus {}", bus.bus);
    let client = BusClient::new(bus, call).with_context(what)?;
    let body = entry(bus, call).to_string();
    let put = retry(attempts, async |_| match client.attempt(&body).await {
        Err(failure) if failure.is_transient => {
            tracing::info!("an attempt to put an event on the bus {} failed: {failure}", bus.bus);
            let wait = failure.wait;
            Attempted::Transient(failure, wait)
        }
        ended => Attempted::Final(ended),
    });
    put.await.map_err(|failure| Error::new(what()).source(failure.to_string()))
}

/// The event. A run without a branch has no `branch`, by which the rule of such runs knows it.
fn entry(bus: &WakeBus, call: &WakeCall<'_>) -> Value {
    let spec = call.spec;
    let mut detail = json!({
        "workspace": spec.workspace,
        "repo": spec.repo_slug,
        "run": call.run,
        "commit": spec.commit,
        "pipeline": spec.pipeline,
        "reason": call.reason.as_str(),
    });
    if let Some(branch) = &spec.branch {
        detail["branch"] = json!(branch);
    }
    json!({ "Entries": [{
        "Source": SOURCE,
        "DetailType": DETAIL_TYPE,
        "Detail": detail.to_string(),
        "EventBusName": bus.bus,
    }] })
}

struct BusClient {
    http: reqwest::Client,
    url: String,
    signer: AwsSigner,
}

impl BusClient {
    fn new(bus: &WakeBus, call: &WakeCall<'_>) -> Result<Self> {
        let http = trainspot_http::client(Redirects::Refused).build();
        let url = match &bus.endpoint {
            Some(endpoint) => format!("{}/", endpoint.trim_end_matches('/')),
            None => format!("https://events.{}.amazonaws.com/", bus.region),
        };
        let signer = AwsSigner::new("events", &bus.region, call.credentials)?;
        Ok(Self { http: http.context("cannot set up HTTP")?, url, signer })
    }

    /// One attempt, for which the metadata service may have to be asked first.
    async fn attempt(&self, body: &str) -> Result<(), PutFailure> {
        let put = timeout(REQUEST_TIMEOUT, self.put(body)).await;
        put.unwrap_or_else(|_| Err(NoAnswer::silent(REQUEST_TIMEOUT).into()))
    }

    async fn put(&self, body: &str) -> Result<(), PutFailure> {
        let request = http::Request::post(&self.url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"))
            .header(HeaderName::from_static("x-amz-target"), HeaderValue::from_static(OPERATION))
            .body(())
            .map_err(|error| PutFailure::last(format!("its address is none: {error}")))?;
        let (mut parts, ()) = request.into_parts();
        self.signer.sign(&mut parts, Some(body.as_bytes())).await?;
        let request = self.http.post(&self.url).headers(parts.headers).body(body.to_owned());
        let answer = Answer::to(request, ANSWER_LIMIT_BYTES).await?;
        if !answer.is_success() {
            return Err(PutFailure::refused(&answer));
        }
        let told: PutAnswer = answer
            .json()
            .map_err(|error| PutFailure::last(format!("the answer cannot be understood: {error}")))?;
        if told.failed_entry_count == 0 { Ok(()) } else { Err(PutFailure::of_entry(&told)) }
    }
}

impl PutFailure {
    fn last(why: String) -> Self {
        Self { why, is_transient: false, wait: None }
    }

    fn refused(answer: &Answer) -> Self {
        let Refusal { code, message } = answer.json().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default();
        let said = if message.is_empty() { answer.quote() } else { quote(message.as_bytes()) };
        let why = sentence([&format!("HTTP {}", answer.status.as_u16()), code, &said]);
        let is_transient = answer.is_transient() || is_transient(code);
        Self { why, is_transient, wait: answer.wait() }
    }

    /// The bus answers 200 and refuses the event all the same.
    fn of_entry(answer: &PutAnswer) -> Self {
        let unknown = PutEntry::default();
        let entry = answer.entries.first().unwrap_or(&unknown);
        let (code, message) = (quote(entry.error_code.as_bytes()), quote(entry.error_message.as_bytes()));
        let why = sentence(["the event was not taken", &code, &message]);
        Self { why, is_transient: is_transient(&entry.error_code), wait: None }
    }
}

impl From<NoAnswer> for PutFailure {
    fn from(error: NoAnswer) -> Self {
        Self { why: format!("no answer: {error}"), is_transient: error.is_transient, wait: None }
    }
}

impl From<NoSignature> for PutFailure {
    /// The metadata service may have a credential a moment later.
    fn from(error: NoSignature) -> Self {
        Self { why: error.to_string(), is_transient: true, wait: None }
    }
}

impl fmt::Display for PutFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

fn is_transient(code: &str) -> bool {
    code.starts_with("Throttl") || TRANSIENT_CODES.contains(&code)
}

fn sentence(parts: [&str; 3]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}
