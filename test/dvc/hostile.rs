//! Servers of DVC's remotes that answer as no honest server does.

use super::attacks::Trap;
use super::forged::{length, seed, store_plan};
use crate::support::{memory_kib, say};
use serde_json::json;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use trainspot_dvc::{DvcSettings, StoreResult};

/// The longest that an agent may take beside a hostile server. Requests are tried again for two minutes each.
const HANGS_AFTER: Duration = Duration::from_mins(20);
/// What an agent may take of memory beside its program's own pages, of which a build for debugging has 40 MiB
/// and a release 14: what parts on their way hold, and one long answer. Many long answers that were read at
/// once took 24 MiB.
const MEMORY_LIMIT_KIB: u64 = 20 << 10;

/// A hostile server: what it answers is drawn anew each time.
fn hostile(seed: u64, trap: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let (trap, random) = (trap.clone(), fastrand::Rng::with_seed(seed.wrapping_add(number as u64)));
            thread::spawn(move || serve(stream, random, &trap));
        }
    });
    address
}

fn serve(stream: TcpStream, mut random: fastrand::Rng, trap: &str) -> Option<()> {
    let mut input = BufReader::new(stream.try_clone().ok()?);
    let mut output = stream;
    loop {
        let (mut length, mut head) = (0, String::new());
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        std::io::copy(&mut input.by_ref().take(length), &mut std::io::sink()).ok()?;
        answer(&mut output, &head, &mut random, trap)?;
    }
}

/// Sends an answer; none if the connection ends with it.
fn answer(output: &mut TcpStream, head: &str, random: &mut fastrand::Rng, trap: &str) -> Option<()> {
    const STATUSES: [u16; 18] =
        [200, 200, 200, 200, 201, 204, 206, 207, 301, 307, 308, 400, 403, 404, 404, 409, 416, 412];
    // Few, as each is tried again after a while.
    let status = if random.u8(..20) == 0 { 503 } else { STATUSES[random.usize(..STATUSES.len())] };
    let mut text = format!("HTTP/1.1 {status} x\r\n");
    let headers = [
        format!("location: http://{trap}/elsewhere\r\n"),
        "retry-after: -1\r\n".to_owned(),
        "etag: \"00000000000000000000000000000000\"\r\n".to_owned(),
        "content-md5: AAAA\r\n".to_owned(),
        "content-range: bytes 0-99999999999999999999/*\r\n".to_owned(),
        "range: bytes=0-18446744073709551615\r\n".to_owned(),
        format!("x-amz-bucket-region: x@{trap}/\r\n"),
        "last-modified: never\r\n".to_owned(),
    ];
    headers.iter().filter(|_| random.bool()).for_each(|header| text.push_str(header));
    let body = body(random, trap);
    if head.starts_with("HEAD") || status == 204 {
        let lengths = ["0", "7", "-1", "99999999999999999999", "18446744073709551615", "x"];
        let length = lengths[random.usize(..lengths.len())];
        return output.write_all(format!("{text}content-length: {length}\r\n\r\n").as_bytes()).ok();
    }
    // Sometimes more is promised than comes.
    let cut = random.u8(..10) == 0;
    let length = body.len() + usize::from(cut);
    output.write_all(format!("{text}content-length: {length}\r\n\r\n").as_bytes()).ok()?;
    output.write_all(&body).ok()?;
    (!cut).then_some(())
}

fn body(random: &mut fastrand::Rng, trap: &str) -> Vec<u8> {
    let name = format!("{:032x}", random.u128(..));
    let key = format!("files/md5/{}/{}", &name[..2], &name[2..]);
    let file = |id: &str, size: &str| {
        format!(
            r#"{{"id": {id}, "name": "{}", "size": {size}, "md5Checksum": "x", "parents": ["a"], "mimeType": "application/vnd.google-apps.folder", "trashed": 0}}"#,
            &name[2..]
        )
    };
    match random.u8(..14) {
        0 => Vec::new(),
        1 => b"{}".to_vec(),
        2 => b"[1, null, {}]".to_vec(),
        // A list that goes on for ever.
        3 | 4 => format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{name}</NextContinuationToken><NextMarker>{name}</NextMarker><Contents><Key>x/{key}</Key><Size>-5</Size><ETag>x</ETag></Contents><Contents><Key>x/{key}</Key><LastModified>2020-01-01T00:00:00Z</LastModified><Size>7</Size></Contents></ListBucketResult>"
        )
        .into_bytes(),
        5 => format!(r#"{{"nextPageToken": "{name}", "files": [{}], "items": [{{"name": "x/{key}", "size": "7"}}]}}"#, file("\"a\"", "\"7\"")).into_bytes(),
        6 => format!(r#"{{"files": [{}], "nextPageToken": -1}}"#, file("7", "-1")).into_bytes(),
        7 => format!(r#"{{"access_token": "t", "expires_in": 18446744073709551615, "id": "a", "driveId": "d", "mimeType": "application/vnd.google-apps.folder", "trashed": false, "next": "http://{trap}/"}}"#).into_bytes(),
        8 => format!("<multistatus><response><href>/x/{key}</href><getcontentlength>-7</getcontentlength></response><response><href>http://{trap}/</href><getcontentlength>99999999999999999999</getcontentlength></response>").into_bytes(),
        9 => b"<Error><Code>NoSuchUpload</Code><Message>".repeat(100),
        10 => "[".repeat(1 << 20).into_bytes(),
        11 => vec![b'x'; 20 << 20],
        12 => format!("<InitiateMultipartUploadResult><UploadId>../{name}</UploadId></InitiateMultipartUploadResult>").into_bytes(),
        _ => (0..random.usize(1..500)).map(|_| random.u8(..)).collect(),
    }
}

/// A kind of remote: its name, its configuration, and the variables of the step.
type RemoteOfKind = (&'static str, String, Vec<(&'static str, String)>);

/// The remotes of each kind that speaks HTTP, by their configuration at a server.
fn kinds(at: &str) -> Vec<RemoteOfKind> {
    let drive = format!(
        r#"{{"client_id": "i", "client_secret": "s", "refresh_token": "r", "token_uri": "http://{at}/token"}}"#
    );
    vec![
        (
            "s3",
            format!("url = s3://bucket/x\n    endpointurl = http://{at}\n    region = us-east-1"),
            vec![("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()), ("AWS_SECRET_ACCESS_KEY", "s".to_owned())],
        ),
        (
            "gs",
            format!("url = gs://bucket/x\n    endpointurl = http://{at}\n    allow_anonymous_login = true"),
            vec![],
        ),
        (
            "azure",
            format!(
                "url = azure://c/x\n    connection_string = \"BlobEndpoint=http://{at}/a;AccountName=a;AccountKey=aw==\""
            ),
            vec![],
        ),
        ("http", format!("url = http://{at}/x\n    auth = basic\n    user = u\n    password = p"), vec![]),
        ("webdav", format!("url = webdav://{at}/x\n    user = u\n    password = p"), vec![]),
        ("gdrive", "url = gdrive://folder/x".to_owned(), vec![("GDRIVE_CREDENTIALS_DATA", drive)]),
    ]
}

/// Every answer of a server is drawn by lot: the agent ends with words of its own, in little memory, and asks
/// nobody else.
#[test]
fn no_answer_of_a_server_hangs_an_agent_or_fills_its_memory() {
    let seed = seed();
    let trap = Trap::set();
    let cases: Vec<_> =
        (0..6).flat_map(|kind| (0..2 * length() as u64).map(move |round| (kind, round))).collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0, 0, 0));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((kind, round)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let seed = seed.wrapping_add(1000 * round + kind);
                    let (peak, done) = one(usize::try_from(*kind).unwrap(), seed, &trap.address);
                    let mut results = results.lock().unwrap();
                    *results = (results.0.max(peak), results.1 + usize::from(done), results.2 + 1);
                }
            });
        }
    });
    let (peak, done, count) = *results.lock().unwrap();
    assert_eq!((count, trap.visits()), (cases.len(), 0), "seed {seed}");
    say(&format!(
        "{count} agents at hostile servers: {done} sent all the same, at most {peak} KiB; seed {seed}"
    ));
}

/// Reads a stream to its end meanwhile: who says very much must not wait for a reader.
fn all_of(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    })
}

/// Runs the agent at a hostile server of this kind. Returns its memory, and whether it sent all.
fn one(kind: usize, seed: u64, trap: &str) -> (u64, bool) {
    let folder = tempfile::tempdir().unwrap();
    let (clone, home) = (folder.path().join("clone"), folder.path().join("home"));
    let address = hostile(seed, trap.to_owned());
    let (name, remote, variables) = kinds(&address).remove(kind);
    std::fs::create_dir_all(clone.join(".dvc")).unwrap();
    let config = format!("[core]\n    remote = st\n['remote \"st\"']\n    {remote}\n");
    std::fs::write(clone.join(".dvc/config"), config).unwrap();
    let environment = variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let outputs = vec!["m.bin".to_owned(), "data".to_owned()];
    let plan = store_plan(&clone, &DvcSettings { outputs, environment, ..DvcSettings::default() });
    let mut request = serde_json::to_value(plan.request()).unwrap();
    if name == "gdrive" {
        // Only programs can say where an emulator of Drive is.
        let settings = request.pointer_mut("/shares/0/remotes/default/Ok/options").unwrap();
        settings["endpointurl"] = json!(format!("http://{address}"));
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join("work/data")).unwrap();
    std::fs::write(home.join("work/m.bin"), vec![7; 9 << 20]).unwrap();
    for number in 0..40 {
        std::fs::write(home.join(format!("work/data/{number}")), format!("{number} {seed}")).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainspot"));
    command.args(["agent", "dvc", "--home", home.to_str().unwrap()]).env_clear();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let (out, err) = (all_of(child.stdout.take().unwrap()), all_of(child.stderr.take().unwrap()));
    let (start, mut peak) = (Instant::now(), 0);
    let status = loop {
        peak = peak.max(memory_kib(child.id(), "RssAnon").unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > HANGS_AFTER {
            child.kill().unwrap();
            panic!("{name}, seed {seed}: the agent hangs");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let (out, err) = (out.join().unwrap(), String::from_utf8_lossy(&err.join().unwrap()).into_owned());
    assert!(!err.contains("panicked") && status.code().is_some(), "{name}, seed {seed}: {status} {err}");
    assert!(peak < MEMORY_LIMIT_KIB, "{name}, seed {seed}: {peak} KiB");
    if status.success() {
        StoreResult::parse(&out, plan.request()).unwrap();
    } else {
        assert!(err.contains("remote") && err.len() < 10_000, "{name}, seed {seed}: {err}");
    }
    (peak, status.success())
}
