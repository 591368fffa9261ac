//! Git's smart protocol, version 0, stateless: as much of it as one commit on top of a known one needs.

use super::http::GitHttp;
use super::{Fault, FetchDepth, PushAnswer, RefUpdate, Refs, packet};
use crate::SMALL_FILE_LIMIT_BYTES;
use crate::limits::why_not_written;
use crate::pack::Pack;
use crate::scratch::Scratch;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use git2::Oid;
use reqwest::Body;
use std::io::{self, Read};
use tokio_util::io::ReaderStream;
use tracing::info;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::meter::Meter;

/// The service that answers fetches.
const UPLOAD_SERVICE: &str = "git-upload-pack";
/// The service that takes pushes.
const RECEIVE_SERVICE: &str = "git-receive-pack";

/// The bytes of a pack that are sent at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// The digits of a SHA-1 in hexadecimal.
const ID_DIGITS: usize = 40;
/// The most branches of a remote; a longer list would fill the memory.
pub(super) const BRANCHES_LIMIT: usize = 100_000;
/// The most that is kept of what a server's hooks say of a push, which the log shows.
pub(super) const MESSAGES_LIMIT_BYTES: usize = 16 << 10;

/// A remote that speaks the smart protocol.
pub(crate) struct SmartProtocol {
    http: GitHttp,
}

impl SmartProtocol {
    pub(super) fn new(http: GitHttp) -> Self {
        Self { http }
    }

    pub(super) fn refs(&self) -> Result<Refs, Fault> {
        self.advertised(UPLOAD_SERVICE)
    }

    pub(super) fn check_push(&self) -> Result<Refs, Fault> {
        self.advertised(RECEIVE_SERVICE)
    }

    fn advertised(&self, service: &str) -> Result<Refs, Fault> {
        let mut reader = self.http.advertisement(service)?;
        read_refs(&mut reader, service).map_err(|error| transient("cannot list the remote's branches", error))
    }

    /// Fetches so much of a branch and no more, as a difference from what the clone has.
    pub(super) fn fetch(
        &self,
        scratch: &Scratch,
        refs: &Refs,
        head: Oid,
        what: FetchDepth,
    ) -> Result<(), Fault> {
        let tip = what.tip;
        let request = fetch_request(refs, what, &scratch.shallow()?, &scratch.haves(head)?);
        let length = request.len() as u64;
        let mut reader = self.http.post(UPLOAD_SERVICE, request.into(), length, Meter::default())?;
        let failed = |error| transient(&format!("cannot fetch {tip}"), error);
        // The commits at which the history is cut: a section of its own, which we asked for with `deepen`.
        while packet::read(&mut reader).map_err(failed)?.is_some() {}
        let repository = scratch.repository();
        let odb = repository.odb().context("cannot open the scratch repository")?;
        let mut writer = odb.packwriter().context("cannot write to the scratch repository")?;
        let copied = io::copy(&mut packet::SideBand::new(reader, |_: &[u8]| {}), &mut writer);
        copied.map_err(|error| failed(why_not_written(error)))?;
        writer.commit().context("cannot read what the remote sent")?;
        odb.refresh().context("cannot open the scratch repository again")?;
        repository.find_commit(tip).with_context(|| format!("the remote did not send {tip}"))?;
        Ok(())
    }

    pub(super) fn push(&self, update: &RefUpdate, pack: &Pack) -> Result<PushAnswer, Fault> {
        let refs = self.advertised(RECEIVE_SERVICE)?;
        if refs.ids.get(&update.reference) != update.old.as_ref() {
            return Ok(PushAnswer::Moved);
        }
        let command = push_command(&refs, update);
        let length = command.len() as u64 + pack.len();
        let sent = Meter::default();
        let body = body(command, pack, sent.clone())?;
        let reader = self.http.post(RECEIVE_SERVICE, body, length, sent)?;
        let report = read_report(reader, refs.can("side-band-64k"), &update.reference)
            .map_err(|error| transient("the push broke off", error))?;
        let Some(why) = report else { return self.confirmed(update) };
        // Servers word it differently when somebody was faster, so look instead of reading.
        let moved = self.advertised(RECEIVE_SERVICE)?.ids.get(&update.reference) != update.old.as_ref();
        Ok(if moved { PushAnswer::Moved } else { PushAnswer::Refused(why) })
    }

    /// A push that the server says it took, if its list of branches does not say otherwise: words alone
    /// publish nothing.
    fn confirmed(&self, update: &RefUpdate) -> Result<PushAnswer, Fault> {
        match self.advertised(RECEIVE_SERVICE) {
            Ok(refs) if refs.ids.get(&update.reference) == update.old.as_ref() => {
                let what =
                    format!("the remote says that it took the push, but {} is as before", update.reference);
                Err(Fault::Transient(Error::new(what)))
            }
            // The branch has moved on, or the list cannot be had now: the server's word stands.
            Ok(_) | Err(_) => Ok(PushAnswer::Taken),
        }
    }
}

fn transient(what: &str, error: io::Error) -> Fault {
    Fault::Transient(Error::new(what).source(error))
}

pub(super) fn read_refs(from: &mut impl Read, service: &str) -> io::Result<Refs> {
    if packet::read_line(from)?.as_deref() != Some(&*format!("# service={service}")) {
        return Err(io::Error::other("the answer is not from a git server"));
    }
    packet::read(from)?;
    let mut refs = Refs::default();
    while let Some(line) = packet::read_line(from)? {
        if let Some(why) = line.strip_prefix("ERR ") {
            return Err(io::Error::other(format!("the server says: {why}")));
        }
        let (line, capabilities) = line.split_once('\0').unwrap_or((&line, ""));
        // They stand in the first line only.
        if refs.capabilities.is_empty() {
            refs.capabilities = capabilities.split_whitespace().map(str::to_owned).collect();
        }
        let Some((id, name)) = line.split_once(' ') else { continue };
        // libgit2 takes a shorter one for the beginning of one.
        if id.len() != ID_DIGITS {
            return Err(io::Error::other(format!("not git's protocol: a hash of {} digits", id.len())));
        }
        let id = Oid::from_str(id).map_err(io::Error::other)?;
        // An empty repository has a line with no commit, for the sake of its capabilities.
        if name.starts_with("refs/heads/") && !id.is_zero() {
            refs.ids.insert(name.to_owned(), id);
        }
        if refs.ids.len() > BRANCHES_LIMIT {
            return Err(io::Error::other(format!("the server lists more than {BRANCHES_LIMIT} branches")));
        }
    }
    let head = refs.capabilities.iter().find_map(|known| known.strip_prefix("symref=HEAD:refs/heads/"));
    refs.default_branch = head.map(str::to_owned);
    Ok(refs)
}

/// Bases of deltas may stay away (`thin-pack`): we have them. Large files may too: no report compares them.
fn fetch_request(refs: &Refs, what: FetchDepth, shallow: &[Oid], haves: &[Oid]) -> Vec<u8> {
    let FetchDepth { tip, commits } = what;
    let mut request = Vec::new();
    let filter = if refs.can("filter") { " filter" } else { "" };
    let wanted = format!("want {tip} side-band-64k ofs-delta thin-pack no-progress{filter}\n");
    packet::write(&mut request, &wanted);
    for cut in shallow {
        packet::write(&mut request, &format!("shallow {cut}\n"));
    }
    packet::write(&mut request, &format!("deepen {commits}\n"));
    if !filter.is_empty() {
        packet::write(&mut request, &format!("filter blob:limit={SMALL_FILE_LIMIT_BYTES}\n"));
    }
    request.extend(packet::FLUSH_PACKET);
    for commit in haves {
        packet::write(&mut request, &format!("have {commit}\n"));
    }
    packet::write(&mut request, "done\n");
    request
}

fn push_command(refs: &Refs, update: &RefUpdate) -> Vec<u8> {
    let old = update.old.unwrap_or(Oid::ZERO_SHA1);
    let wanted = ["report-status", "side-band-64k"].into_iter().filter(|wanted| refs.can(wanted));
    let wanted: Vec<_> = wanted.collect();
    let mut command = Vec::new();
    let line = format!("{old} {} {}\0 {}", update.new, update.reference, wanted.join(" "));
    packet::write(&mut command, &line);
    command.extend(packet::FLUSH_PACKET);
    command
}

/// The command, then the pack: from memory, from the file of blobs, from memory.
fn body(command: Vec<u8>, pack: &Pack, sent: Meter) -> Result<Body> {
    let (file, length) = pack.parts()?;
    let file = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), length);
    let part = |bytes: &[u8]| stream::iter([Ok(Bytes::copy_from_slice(bytes))]);
    let parts = stream::iter([Ok(Bytes::from(command))])
        .chain(part(pack.head()))
        .chain(ReaderStream::with_capacity(file, CHUNK_BYTES))
        .chain(part(pack.tail()))
        .inspect_ok(move |chunk| sent.add(chunk.len() as u64));
    Ok(Body::wrap_stream(parts))
}

/// Nothing where the reference was updated, otherwise why not, in the server's words.
///
/// A pack that could not be unpacked is an error instead: most of them arrived cut off.
pub(super) fn read_report(
    mut reader: impl Read,
    side_band: bool,
    reference: &str,
) -> io::Result<Option<String>> {
    let mut messages = Vec::new();
    let status = if side_band {
        let tell = |text: &[u8]| {
            let room = MESSAGES_LIMIT_BYTES - messages.len();
            messages.extend_from_slice(&text[..text.len().min(room)]);
        };
        read_status(&mut packet::SideBand::new(reader, tell), reference)?
    } else {
        read_status(&mut reader, reference)?
    };
    let messages = String::from_utf8_lossy(&messages).into_owned();
    let messages = messages.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let messages: Vec<_> = messages.inspect(|message| info!("remote: {message}")).collect();
    let quoted = |why: String| [messages.join(" "), why].join(": ").trim_start_matches(": ").to_owned();
    match status {
        ReportStatus::Taken => Ok(None),
        ReportStatus::Refused(why) => Ok(Some(quoted(why))),
        ReportStatus::NotUnpacked(why) => {
            Err(io::Error::other(quoted(format!("the server cannot unpack it: {why}"))))
        }
    }
}

/// What a server reports of a pushed reference.
enum ReportStatus {
    Taken,
    Refused(String),
    NotUnpacked(String),
}

fn read_status(from: &mut impl Read, reference: &str) -> io::Result<ReportStatus> {
    let mut status = None;
    while let Some(line) = packet::read_line(from)? {
        let said = match line.split_once(' ') {
            Some(("unpack", why)) if why != "ok" => ReportStatus::NotUnpacked(why.to_owned()),
            Some(("ok", name)) if name == reference => ReportStatus::Taken,
            Some(("ng", why)) => {
                ReportStatus::Refused(why.strip_prefix(reference).unwrap_or(why).trim().to_owned())
            }
            _ => continue,
        };
        // The first word counts: what follows a failed unpacking is its consequence.
        status.get_or_insert(said);
    }
    status.ok_or_else(|| io::Error::other("the server did not say what became of the branch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1111111111111111111111111111111111111111";

    fn advertisement(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet::write(&mut bytes, "# service=git-upload-pack\n");
        bytes.extend(packet::FLUSH_PACKET);
        for line in lines {
            packet::write(&mut bytes, line);
        }
        bytes.extend(packet::FLUSH_PACKET);
        bytes
    }

    #[test]
    fn refs_capabilities_and_the_default_branch_are_read() {
        let head = format!("{ID} HEAD\0side-band-64k symref=HEAD:refs/heads/trunk filter\n");
        let branch = format!("{ID} refs/heads/a/b\n");
        let bytes = advertisement(&[&head, &branch]);
        let refs = read_refs(&mut bytes.as_slice(), "git-upload-pack").unwrap();
        assert_eq!(refs.branch("a/b").unwrap().to_string(), ID);
        assert_eq!(refs.default_branch.as_deref(), Some("trunk"));
        assert!(refs.can("filter") && !refs.can("filte"));
    }

    #[test]
    fn a_list_of_branches_without_an_end_is_refused() {
        let lines: Vec<_> = (0..=BRANCHES_LIMIT).map(|n| format!("{ID} refs/heads/{n}\n")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let error = read_refs(&mut advertisement(&lines).as_slice(), "git-upload-pack").unwrap_err();
        assert_eq!(error.to_string(), "the server lists more than 100000 branches");
    }

    #[test]
    fn of_a_flood_of_messages_only_the_beginning_is_kept() {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            packet::write(&mut bytes, &format!("\u{2}{}\n", "x".repeat(1000)));
        }
        let mut status = vec![1];
        packet::write(&mut status, "unpack ok\n");
        packet::write(&mut status, "ng refs/heads/a no\n");
        status.extend(packet::FLUSH_PACKET);
        let status = String::from_utf8(status).unwrap();
        packet::write(&mut bytes, &status);
        bytes.extend(packet::FLUSH_PACKET);
        let why = read_report(bytes.as_slice(), true, "refs/heads/a").unwrap().unwrap();
        assert!(why.len() < MESSAGES_LIMIT_BYTES + 10 && why.ends_with(": no"), "{}", why.len());
    }

    #[test]
    fn an_empty_repository_has_capabilities_only() {
        let line = format!("{} capabilities^{{}}\0report-status\n", Oid::ZERO_SHA1);
        let refs = read_refs(&mut advertisement(&[&line]).as_slice(), "git-upload-pack").unwrap();
        assert!(refs.ids.is_empty() && refs.can("report-status"));
    }

    #[test]
    fn an_error_in_place_of_refs_is_quoted() {
        let bytes = advertisement(&["ERR access denied\n"]);
        let error = read_refs(&mut bytes.as_slice(), "git-upload-pack").unwrap_err();
        assert_eq!(error.to_string(), "the server says: access denied");
    }

    fn report(lines: &[&str]) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        for line in lines {
            packet::write(&mut bytes, line);
        }
        bytes.extend(packet::FLUSH_PACKET);
        read_report(bytes.as_slice(), false, "refs/heads/a")
    }

    #[test]
    fn the_report_says_taken_refused_or_nothing() {
        assert_eq!(report(&["unpack ok\n", "ok refs/heads/a\n"]).unwrap(), None);
        let refused = report(&["unpack ok\n", "ng refs/heads/a pre-receive hook declined\n"]).unwrap();
        assert_eq!(refused.as_deref(), Some("pre-receive hook declined"));
        let transient = report(&["unpack index-pack abnormal exit\n", "ng refs/heads/a unpacker error\n"]);
        assert_eq!(
            transient.unwrap_err().to_string(),
            "the server cannot unpack it: index-pack abnormal exit"
        );
        assert!(report(&["unpack ok\n"]).is_err());
        assert!(report(&[]).is_err());
    }
}
