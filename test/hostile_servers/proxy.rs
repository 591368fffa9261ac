//! A proxy in front of the fake Bitbucket that spoils some of its answers.

use super::spoil::{Answer, Spoil};
use std::io::{BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use trainspot_base::mutex::lock;

/// Which answers are spoiled in the run that comes, and what was asked so far.
#[derive(Default)]
pub(crate) struct Plan {
    /// The number of the first answer to spoil.
    pub(crate) first: usize,
    /// Whether all further answers to the same question are spoiled, too.
    pub(crate) sticks: bool,
    pub(crate) spoil: Option<Spoil>,
    /// Method, path and service of each request.
    pub(crate) asked: Vec<String>,
    /// What was done to answers, in words.
    pub(crate) done: Vec<String>,
}

impl Plan {
    fn next(&mut self, question: &str) -> Option<Spoil> {
        let number = self.asked.len();
        self.asked.push(question.to_owned());
        let again = self.sticks && self.asked.get(self.first).is_some_and(|first| first == question);
        (number == self.first || (number > self.first && again)).then(|| self.spoil.clone()).flatten()
    }
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    /// In front of `upstream`; `elsewhere` is where spoiled answers lead.
    pub(crate) fn start(upstream: String, elsewhere: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, plan) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Plan::default())));
        let shared = Arc::clone(&plan);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (plan, upstream, elsewhere) = (Arc::clone(&shared), upstream.clone(), elsewhere.clone());
                // A client that is gone, or refuses what it gets, ends its connection and no test.
                std::thread::spawn(move || {
                    serve(&client, &plan, &upstream, address, &elsewhere).ok();
                    // Another thread may still read from it, and the client would wait for the rest of what
                    // was cut.
                    client.shutdown(Shutdown::Both).ok();
                });
            }
        });
        Self { address, plan }
    }

    /// Replaces the plan, and gives the one before.
    pub(crate) fn plan(&self, plan: Plan) -> Plan {
        std::mem::replace(&mut lock(&self.plan), plan)
    }
}

fn serve(
    client: &TcpStream,
    plan: &Mutex<Plan>,
    upstream: &str,
    own: SocketAddr,
    elsewhere: &str,
) -> std::io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let head = head(&mut from)?;
    let first = head.lines().next().unwrap_or_default().to_owned();
    let question = first.trim_end_matches(" HTTP/1.1").to_owned();
    let spoil = lock(plan).next(&question);
    let is_push = question.starts_with("POST ") && question.ends_with("git-receive-pack");
    let mut to_client = client.try_clone()?;
    let note = |said: &str| {
        lock(plan).done.push(format!("{question}: {said}"));
    };
    if is_push && matches!(spoil, Some(Spoil::Forged)) {
        // The server claims to have taken what it has thrown away.
        let branch = thrown_away(&mut from, &head)?;
        note("a push that is only claimed");
        return to_client.write_all(&Answer::claims(&branch).bytes());
    }
    let mut to = TcpStream::connect(upstream)?;
    to.write_all(alone(&head).as_bytes())?;
    let mut sending = to.try_clone()?;
    std::thread::spawn(move || std::io::copy(&mut from, &mut sending));
    let answer = Answer::read(&mut to, upstream, &own.to_string())?;
    match spoil {
        None => to_client.write_all(&answer.bytes()),
        Some(spoil) => {
            note(&spoil.write(answer, elsewhere, &mut to_client));
            Ok(())
        }
    }
}

fn head(from: &mut impl std::io::BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// The same request, after whose answer the connection ends.
fn alone(head: &str) -> String {
    let kept =
        head.trim_end().split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    kept.collect::<Vec<_>>().join("\r\n") + "\r\nconnection: close\r\n\r\n"
}

/// Reads the body of a push, and gives the branch that it is for.
fn thrown_away(from: &mut impl Read, head: &str) -> std::io::Result<String> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    let mut body = Vec::new();
    from.take(length.unwrap_or(0)).read_to_end(&mut body)?;
    let text = String::from_utf8_lossy(&body[..body.len().min(1000)]).into_owned();
    let branch = text.split("refs/heads/").nth(1).and_then(|rest| rest.split('\0').next());
    Ok(branch.unwrap_or("none").to_owned())
}
