//! EC2's metadata service (IMDSv2) as far as interruptions need it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A metadata service on a port of its own. Lives until the tests end.
pub(super) struct Imds {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    action: Option<String>,
    rebalance: Option<String>,
    /// The number of the only token that is good; the next is given out on demand.
    token: u32,
    refused: u32,
    broken: bool,
}

impl Imds {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { token: 1, ..State::default() }));
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that went away is no fault of the service's.
                serve(&stream, &served).ok();
            }
        });
        Self { url, state }
    }

    /// Gives notice: the machine is taken away at this second.
    pub(super) fn interrupt(&self, at: u64) {
        let time = humantime(at);
        self.state.lock().unwrap().action = Some(format!(r#"{{"action":"terminate","time":"{time}"}}"#));
    }

    pub(super) fn recommend_rebalance(&self) {
        self.state.lock().unwrap().rebalance = Some(r#"{"noticeTime":"2026-11-05T08:22:00Z"}"#.to_owned());
    }

    /// From now on every token given out so far is refused.
    pub(super) fn expire_tokens(&self) {
        self.state.lock().unwrap().token += 1;
    }

    /// How many requests had no good token.
    pub(super) fn refused(&self) -> u32 {
        self.state.lock().unwrap().refused
    }

    pub(super) fn set_broken(&self, broken: bool) {
        self.state.lock().unwrap().broken = broken;
    }
}

/// A second since 1970 as the service writes it.
pub(super) fn humantime(second: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second)).to_string()
}

/// The time since 1970.
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let head: Vec<String> = lines.collect();
    let has = |header: &str| head.iter().any(|line| line.eq_ignore_ascii_case(header));
    let mut state = state.lock().unwrap();
    let good = has(&format!("x-aws-ec2-metadata-token: token-{}", state.token));
    let (status, body) = match head.first().map_or("", String::as_str) {
        _ if state.broken => (500, Some("<html>".to_owned())),
        "PUT /latest/api/token HTTP/1.1" if has("x-aws-ec2-metadata-token-ttl-seconds: 21600") => {
            (200, Some(format!("token-{}", state.token)))
        }
        _ if !good => {
            state.refused += 1;
            (401, None)
        }
        "GET /latest/meta-data/spot/instance-action HTTP/1.1" => (200, state.action.clone()),
        "GET /latest/meta-data/events/recommendations/rebalance HTTP/1.1" => (200, state.rebalance.clone()),
        _ => (400, Some(String::new())),
    };
    let status = if status == 200 && body.is_none() { 404 } else { status };
    let body = body.unwrap_or_default();
    write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
