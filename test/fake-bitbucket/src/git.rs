//! Git's smart HTTP: `git http-backend`, run as CGI and streamed both ways.

use crate::Shared;
use crate::auth;
use crate::body::{self, Body, Error, Stream};
use crate::server::Door;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::http::response::Builder;
use hyper::{HeaderMap, Response};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::io::ReaderStream;

pub(crate) async fn answer(
    shared: &Shared,
    door: Door,
    head: &Parts,
    incoming: Stream,
) -> Result<Response<Body>, Error> {
    if !auth::git(&head.headers, door) {
        let challenge = "Basic realm=\"Bitbucket.org HTTP\"";
        let response = Response::builder().status(401).header(WWW_AUTHENTICATE, challenge);
        return Ok(response.body(body::full("Invalid credentials"))?);
    }
    let Some((repository, service)) = locate(shared, head.uri.path()) else {
        return Ok(Response::builder().status(404).body(body::full("Repository not found"))?);
    };
    let mut child = backend(repository, service, head).spawn()?;
    let stdin = child.stdin.take().expect("a piped standard input");
    let stdout = child.stdout.take().expect("a piped standard output");
    tokio::spawn(feed(incoming, stdin));
    reply(child, stdout).await
}

/// `/<workspace>/<slug>[.git]/<service>` → the bare repository, and `/<service>`.
fn locate<'a>(shared: &'a Shared, path: &'a str) -> Option<(&'a Path, &'a str)> {
    let options = &shared.options;
    let rest = path.strip_prefix('/')?.strip_prefix(&*options.workspace)?.strip_prefix('/')?;
    let rest = rest.strip_prefix(&*options.slug)?;
    let service = rest.strip_prefix(".git").unwrap_or(rest);
    service.starts_with('/').then_some((options.repository.as_deref()?, service))
}

fn backend(repository: &Path, service: &str, head: &Parts) -> Command {
    let header =
        |name| head.headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let mut command = Command::new(exec_path().join("git-http-backend"));
    // No CONTENT_LENGTH: the backend then reads to the end of its input, whereas with a length it spins for
    // ever where a body was cut short of it.
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .env("GIT_PROJECT_ROOT", repository)
        .env("PATH_INFO", service)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "http.receivepack")
        .env("GIT_CONFIG_VALUE_0", "true")
        .env("GIT_CONFIG_KEY_1", "safe.directory")
        .env("GIT_CONFIG_VALUE_1", "*")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header(CONTENT_TYPE).unwrap_or_default())
        .env("REMOTE_ADDR", "127.0.0.1");
    if let Some(encoding) = header(CONTENT_ENCODING) {
        command.env("HTTP_CONTENT_ENCODING", encoding);
    }
    if let Some(protocol) = protocol(&head.headers) {
        command.env("GIT_PROTOCOL", protocol);
    }
    command
}

/// Where git keeps the backend: started through `git` itself it would outlive being killed.
fn exec_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let output =
            std::process::Command::new("git").arg("--exec-path").output().expect("git can be started");
        String::from_utf8_lossy(&output.stdout).trim().into()
    })
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get("git-protocol")?.to_str().ok()
}

/// Copies the request's body into the backend. A cut one ends early, which the backend notices by itself.
async fn feed(mut incoming: Stream, mut stdin: ChildStdin) {
    while let Some(Ok(chunk)) = incoming.next().await {
        if stdin.write_all(&chunk).await.is_err() {
            break;
        }
    }
}

/// Turns the backend's CGI header into a response, and streams the rest.
async fn reply(child: Child, stdout: ChildStdout) -> Result<Response<Body>, Error> {
    let mut output = BufReader::with_capacity(64 * 1024, stdout);
    let mut response = Response::builder();
    let mut line = String::new();
    while output.read_line(&mut line).await? > 0 && !line.trim().is_empty() {
        response = with_header(response, line.trim())?;
        line.clear();
    }
    if line.is_empty() {
        return Err("git http-backend ended without an answer".into());
    }
    let chunks = ReaderStream::with_capacity(output, 64 * 1024).map_err(Error::from);
    // The child lives as long as its output is wanted: dropping it kills the backend.
    let chunks = chunks.map(move |chunk: Result<Bytes, Error>| (&child, chunk).1);
    Ok(response.body(body::streamed(chunks.boxed()))?)
}

fn with_header(response: Builder, line: &str) -> Result<Builder, Error> {
    let (name, value) = line.split_once(": ").ok_or("git http-backend wrote no CGI header")?;
    if name.eq_ignore_ascii_case("Status") {
        let code = value.split(' ').next().unwrap_or_default();
        return Ok(response.status(code.parse::<u16>()?));
    }
    Ok(response.header(name, value))
}
