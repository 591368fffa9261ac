//! A small HTTP server that remembers what it was asked, and what a remote behind HTTP does with a
//! credential.

use super::remotes::sample::{Sample, remote, settings};
use crate::support::{Access, Scene};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use trainspot_dvc::remote::{RemoteStore as _, Settings};

/// A request: its method and path, its headers in lower case, and its body.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) what: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// A status, and headers.
pub(super) type Answer = (u16, Vec<(&'static str, String)>);

/// A server; it ends with the test's process.
pub(super) struct Server {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by a status and headers.
    pub(super) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { url, requests }
    }

    /// A store that takes objects by `POST` from whoever `may`.
    pub(super) fn store(may: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        let kept = Mutex::new(BTreeMap::<String, usize>::new());
        Self::start(move |request| {
            let (method, path) = request.what.split_once(' ').unwrap();
            let mut kept = kept.lock().unwrap();
            match (may(request), method) {
                (false, _) => (401, Vec::new()),
                (_, "HEAD") => match kept.get(path) {
                    Some(length) => (200, vec![("content-length", length.to_string())]),
                    None => (404, Vec::new()),
                },
                _ => {
                    kept.insert(path.to_owned(), request.body.len());
                    (201, Vec::new())
                }
            }
        })
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut output = stream;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let what = line.trim().rsplit_once(' ').map_or("", |(what, _)| what).to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            input.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        input.read_exact(&mut body).unwrap();
        let request = Request { what, headers, body };
        let (status, headers) = answer(&request);
        seen.lock().unwrap().push(request);
        let own = headers.iter().any(|(name, _)| *name == "content-length");
        let mut text = format!("HTTP/1.1 {status} x\r\n");
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str(if own { "\r\n" } else { "content-length: 0\r\n\r\n" });
        output.write_all(text.as_bytes()).unwrap();
    }
}

/// The ways in which a remote behind HTTP names itself, each with the header that does.
fn credentials(scheme: &str, url: &str) -> Vec<(Settings, &'static str)> {
    let url = format!("{url}/store").replacen("http", scheme, 1);
    let with = |options: &[(&str, &str)]| settings(&url, options, &[]);
    if scheme == "http" {
        return vec![
            (with(&[("auth", "basic"), ("user", "me"), ("password", "hunter22")]), "authorization"),
            (with(&[("auth", "custom"), ("custom_auth_header", "X-Key"), ("password", "hunter22")]), "x-key"),
        ];
    }
    vec![
        (with(&[("user", "me"), ("password", "hunter22")]), "authorization"),
        (with(&[("token", "hunter22")]), "authorization"),
        (with(&[("custom_auth_header", "X-Key"), ("password", "hunter22")]), "x-key"),
    ]
}

/// A redirect to another host would show it the credential, whatever header that is in.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_origin_is_not_followed() {
    let mut tried = 0;
    for scheme in ["http", "webdav"] {
        for status in [301, 302, 303, 307, 308] {
            let other = Server::store(|_| true);
            let target = other.url.clone();
            let first = Server::start(move |request| {
                let path = request.what.split_once(' ').unwrap().1;
                (status, vec![("location", format!("{target}{path}"))])
            });
            for (settings, header) in credentials(scheme, &first.url) {
                let (sample, before) = (Sample::of(&[100]), first.requests().len());
                let remote = remote(&settings).await;
                let looked = remote.missing(&sample.objects[..1]).await;
                let sent = remote.put(&sample.objects[0]).await;
                assert!(looked.is_err() && sent.is_err(), "{scheme} {status}: {looked:?} {sent:?}");
                let asked = first.requests().split_off(before);
                assert!(
                    !asked.is_empty() && asked.iter().all(|request| request.headers.contains_key(header))
                );
                tried += 1;
            }
            assert_eq!(other.requests().len(), 0, "{scheme} {status}: {:?}", other.requests());
        }
    }
    assert_eq!(tried, 25);
}

/// Within the origin a redirect is the server's own business.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_within_the_origin_is_followed_with_the_credential() {
    let server = Server::start(|request| match request.what.split_once(' ').unwrap() {
        (_, path) if !path.starts_with("/moved") => (307, vec![("location", format!("/moved{path}"))]),
        _ if request.headers.get("x-key").map(String::as_str) == Some("hunter22") => {
            (200, vec![("content-length", "100".to_owned())])
        }
        _ => (401, Vec::new()),
    });
    let (settings, _) = credentials("http", &server.url).remove(1);
    let sample = Sample::of(&[100]);
    assert_eq!(remote(&settings).await.missing(&sample.objects[..1]).await.unwrap(), []);
    assert!(server.requests().iter().any(|request| request.what.contains("/moved/store/files/md5/")));
}

/// `dvc remote modify --local` keeps credentials in a file that git ignores. They reach the machine's agent,
/// in memory.
#[test]
fn credentials_of_config_local_go_along_in_memory() {
    let server = Server::store(|request| {
        // Basic authentication of me:hunter22.
        request.headers.get("authorization").map(String::as_str) == Some("Basic bWU6aHVudGVyMjI=")
    });
    let config = format!(
        "[core]\n    remote = web\n['remote \"web\"']\n    url = {}/store\n    auth = basic\n    user = me\n",
        server.url
    );
    let mut scene = Scene::new(
        Access::Token,
        &[(".dvc/config", &config), (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")],
    );
    std::fs::write(scene.clone().join(".dvc/config.local"), "['remote \"web\"']\n    password = hunter22\n")
        .unwrap();
    scene.set("TRAIN_COMMAND", "if grep -rIl 'password =' ..; then exit 9; fi; if env | grep -q hunter2''2; then exit 8; fi; echo the password is hunter2''2; printf weights > m.bin");
    scene.set("DVC_OUTPUTS", "m.bin");
    let run = scene.run().expect(0);
    assert!(run.log.contains("sent 1 object (7 B)"), "{}", run.log);
    assert!(run.out.contains("the password is $REMOTEWEB_PASSWORD"), "{}", run.out);
    assert!(!run.out.contains("hunter22") && !run.log.contains("hunter22"), "{}{}", run.out, run.log);
    let posted: Vec<_> =
        server.requests().into_iter().filter(|request| request.what.starts_with("POST")).collect();
    assert_eq!(posted.iter().map(|request| request.body.as_slice()).collect::<Vec<_>>(), [b"weights"]);
    scene.assert_nothing_left();
}
