//! Drive v3: files by id in folders, with owners, Shared Drives, quotas, and what may go wrong.

use super::auth::{self, LIFE, SERVICE, Token, USER};
use super::files::{forbidden, not_found};
use super::http::{self, Answer, Fault, Request};
use super::sample::md5;
use super::upload::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub(crate) const FOLDER: &str = "application/vnd.google-apps.folder";

const TRANSIENT_FAULTS: [Fault; 9] = [
    Fault::Refused,
    Fault::CutRequest,
    Fault::LostAnswer,
    Fault::CutAnswer,
    Fault::Status(500),
    Fault::RateLimit("userRateLimitExceeded"),
    Fault::Revoked,
    Fault::Corrupt,
    Fault::LostSession,
];

/// A file or folder.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) mime: String,
    pub(crate) parents: Vec<String>,
    pub(crate) trashed: bool,
    /// The Shared Drive that it is in.
    pub(crate) drive: Option<String>,
    pub(crate) owner: String,
    /// Who may change it and all below it, beside its owner; and who may only read.
    pub(crate) editors: BTreeSet<&'static str>,
    pub(crate) readers: BTreeSet<&'static str>,
    pub(crate) content: Stored,
}

/// A content, with its MD5.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) md5: String,
}

impl From<&[u8]> for Stored {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), md5: md5(bytes) }
    }
}

/// All that the service knows.
pub(crate) struct State {
    address: String,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) sessions: BTreeMap<String, Session>,
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) granted: usize,
    pub(crate) token_life: Duration,
    pub(crate) public_key: Vec<u8>,
    pub(crate) refresh_token: String,
    /// Whether the Workspace's admin lets the service account act as its users.
    pub(crate) delegation: bool,
    /// What a user's storage has room for.
    pub(crate) room: u64,
    /// Which request a fault strikes: of those counted from 1, or all.
    pub(crate) fault: Option<(Fault, Option<usize>)>,
    /// Strikes every fourth request or so, in any way that passes.
    pub(crate) weather: Option<fastrand::Rng>,
    /// The piece of an upload that is cut, counted from 1.
    pub(crate) cut_piece: Option<usize>,
    /// Whether nobody may put anything into the trash.
    pub(crate) no_trash: bool,
    /// How many files a page has at most: fewer than asked for, as Drive may choose.
    pub(crate) page: usize,
    pub(crate) requests: Vec<Request>,
    /// What Drive might take, but no client should do.
    pub(crate) violations: Vec<String>,
    next: usize,
}

/// A running fake.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    /// Ends the server when nobody holds the fake any more.
    _serving: Arc<Serving>,
}

struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            address: format!("http://{}", listener.local_addr().unwrap()),
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            granted: 0,
            token_life: LIFE,
            public_key: auth::public(auth::key()),
            refresh_token: auth::REFRESH.to_owned(),
            delegation: false,
            room: u64::MAX,
            fault: None,
            weather: None,
            cut_piece: None,
            no_trash: false,
            page: 7,
            requests: Vec::new(),
            violations: Vec::new(),
            next: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let serving = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&serving), stream));
            }
        });
        Self { state, _serving: Arc::new(Serving(accepting.abort_handle())) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn address(&self) -> String {
        self.state().address.clone()
    }
}

/// A connection is one request.
async fn serve(state: Arc<Mutex<State>>, mut stream: TcpStream) {
    let state = || state.lock().unwrap();
    let mut fault = state().chosen();
    let Some(head) = http::head(&mut stream).await else { return };
    if head.header("content-range").contains('-') && state().piece() {
        fault = Some(Fault::CutRequest);
    }
    let Some(request) = http::body(&mut stream, head, fault == Some(Fault::CutRequest)).await else { return };
    let Some(answer) = state().strike(fault, &request) else { return };
    if fault != Some(Fault::LostAnswer) {
        http::write(&mut stream, &answer, fault == Some(Fault::CutAnswer)).await;
    }
}

impl State {
    /// What happens to the next request.
    fn chosen(&mut self) -> Option<Fault> {
        self.next += 1;
        let number = self.next;
        if let Some(weather) = &mut self.weather {
            return (weather.u8(..4) == 0).then(|| weather.choice(TRANSIENT_FAULTS)).flatten();
        }
        self.fault.filter(|(_, which)| which.is_none_or(|which| which == number)).map(|(fault, _)| fault)
    }

    /// Counts a piece of an upload, and tells whether it is to be cut.
    fn piece(&mut self) -> bool {
        self.cut_piece = self.cut_piece.map(|left| left - 1);
        self.cut_piece.take_if(|left| *left == 0).is_some()
    }

    /// Counts requests from here.
    pub(crate) fn restart(&mut self) {
        self.next = 0;
    }

    pub(crate) fn token_uri(&self) -> String {
        format!("{}/token", self.address)
    }

    pub(crate) fn base(&self) -> &str {
        &self.address
    }

    /// A new id. Their order says nothing about their age.
    fn id(&mut self) -> String {
        format!("{:016x}-{}_x", fastrand::u64(..), self.nodes.len())
    }

    pub(crate) fn add(
        &mut self,
        name: &str,
        parent: Option<&str>,
        owner: &str,
        content: Option<&[u8]>,
    ) -> String {
        let id = self.id();
        let drive = parent.and_then(|parent| self.nodes.get(parent)).and_then(|node| node.drive.clone());
        let node = Node {
            name: name.to_owned(),
            mime: if content.is_some() { "application/octet-stream" } else { FOLDER }.to_owned(),
            parents: parent.map(str::to_owned).into_iter().collect(),
            trashed: false,
            drive,
            owner: owner.to_owned(),
            editors: BTreeSet::new(),
            readers: BTreeSet::new(),
            content: Stored::from(content.unwrap_or_default()),
        };
        self.nodes.insert(id.clone(), node);
        id
    }

    /// The root of a new Shared Drive, with the service account as a content manager.
    pub(crate) fn shared_drive(&mut self) -> String {
        let id = self.add("Drive", None, "nobody", None);
        let node = self.nodes.get_mut(&id).unwrap();
        node.drive = Some(id.clone());
        node.editors = BTreeSet::from([SERVICE, USER]);
        id
    }

    /// Acts, as far as the fault lets it; none closes the connection.
    fn strike(&mut self, fault: Option<Fault>, request: &Request) -> Option<Answer> {
        self.requests.push(request.noted());
        match fault {
            Some(Fault::Refused) => return None,
            Some(Fault::CutRequest) => {
                self.partly(request);
                return None;
            }
            Some(Fault::Status(status)) => {
                return Some(Answer::error(status, "backendError", "Backend Error"));
            }
            Some(Fault::RateLimit(reason)) => return Some(Answer::error(403, reason, "Rate Limit Exceeded")),
            Some(Fault::Revoked) => self.tokens.clear(),
            Some(Fault::LostSession) => self.sessions.clear(),
            _ => {}
        }
        let before: BTreeSet<String> = self.nodes.keys().cloned().collect();
        let answer = self.answer(request, fault == Some(Fault::EmptyListing));
        if fault == Some(Fault::Corrupt) {
            return Some(self.corrupt(&before, request, answer));
        }
        Some(answer)
    }

    /// What was stored by the request has a wrong bit, and the answer tells so.
    fn corrupt(&mut self, before: &BTreeSet<String>, request: &Request, answer: Answer) -> Answer {
        let new = self.nodes.iter_mut().find(|(id, node)| !before.contains(*id) && node.mime != FOLDER);
        let Some((id, node)) = new else { return answer };
        let mut bytes = node.content.bytes.clone();
        match bytes.first_mut() {
            Some(byte) => *byte ^= 1,
            None => bytes.push(1),
        }
        node.content = Stored::from(&bytes[..]);
        let id = id.clone();
        Answer::json(200, &self.told(&id, request.asked("fields")))
    }

    fn answer(&mut self, request: &Request, empty: bool) -> Answer {
        if request.path == "/token" {
            return self.token(request);
        }
        let caller = match self.caller(request) {
            Ok(caller) => caller,
            Err(answer) => return answer,
        };
        if let Some(session) = request.path.strip_prefix("/session/") {
            return self.continue_upload(session, request, &caller);
        }
        let method = request.method.as_str();
        if request.path.contains("/drive/v2/") {
            return self.answer_v2(request, &caller);
        }
        if let Some(rest) = request.path.strip_prefix("/upload/drive/v3/files") {
            return if (method, rest) == ("POST", "") {
                self.upload(request, &caller)
            } else {
                Answer::empty(404)
            };
        }
        match (method, request.path.strip_prefix("/drive/v3/files")) {
            ("GET", Some("")) => self.list(request, &caller, empty),
            ("POST", Some("")) => self.create(&request.json(), request, &caller, None),
            (_, Some(rest)) => match (method, self.seen(rest.trim_start_matches('/'), request, &caller)) {
                (_, None) => not_found(rest),
                ("GET", Some(id)) if request.asked("alt") == "media" => {
                    Answer { body: self.nodes[&id].content.bytes.clone(), ..Answer::empty(200) }
                }
                ("GET", Some(id)) => Answer::json(200, &self.told(&id, request.asked("fields"))),
                ("PATCH", Some(id)) => self.update(&id, request, &caller),
                ("DELETE", Some(id)) if self.may_write(&id, &caller) => {
                    self.nodes.remove(&id);
                    Answer::empty(204)
                }
                _ => forbidden(),
            },
            _ => Answer::empty(404),
        }
    }
}
