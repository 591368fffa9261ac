//! Answers of an agent, changed: field by field where they are JSON, in their bytes, and in the way in which
//! they end.

use fastrand::Rng;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Where a field is.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// How a field is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    OtherType,
    OtherPath,
    Huge,
    Negative,
    Missing,
    Twice,
    Null,
}

const CHANGES: [Change; 7] = [
    Change::OtherType,
    Change::OtherPath,
    Change::Huge,
    Change::Negative,
    Change::Missing,
    Change::Twice,
    Change::Null,
];
/// Where a machine would like to write.
const PATHS: [&str; 13] = [
    "deploy.sh",
    "bitbucket-pipelines.yml",
    "../evil",
    "/tmp/trainspot-evil",
    ".git/hooks/pre-push",
    ".dvc/config.local",
    "model/../deploy.sh",
    "new.sh",
    "model/m.bin",
    "evil.dvc",
    "data/d.bin.dvc",
    "data/.gitignore",
    ".dvc/config",
];
/// What a machine would like to write there.
pub(crate) const EVIL: &str = "evil\n";
/// How a line would begin that a machine could put at the margin of the log.
pub(crate) const FORGED: &str = "forged";
/// The verbs that take files and answer with nothing but their end, and their last words if it is a bad one.
const SILENT: [&str; 2] = ["unpack", "commit"];
const FLOOD_BYTES: usize = 20_000_000;

/// What a verb says and how it ends, changed.
pub(crate) struct Spoken {
    /// On standard output.
    pub(crate) answer: Vec<u8>,
    /// On standard error.
    pub(crate) words: Vec<u8>,
    /// The exit code, if it is not the real one.
    pub(crate) code: Option<u8>,
    /// What was changed.
    pub(crate) what: String,
}

/// Whether a verb with this seed does nothing at all, not even read what it is sent.
pub(crate) fn is_idle(verb: &str, seed: u64) -> bool {
    seed.is_multiple_of(if SILENT.contains(&verb) { 5 } else { 25 })
}

/// The answer of a verb as this seed changes it.
pub(crate) fn mutate(verb: &str, answer: &[u8], seed: u64) -> Spoken {
    let mut random = Rng::with_seed(seed);
    if SILENT.contains(&verb) || random.u8(..) < 24 {
        return change_end(answer, &mut random);
    }
    let (answer, what) = mutate_answer(verb, answer, &mut random);
    Spoken { answer, words: Vec::new(), code: None, what }
}

/// Another exit code, other last words, or an answer where none is expected.
fn change_end(answer: &[u8], random: &mut Rng) -> Spoken {
    let forged = format!("{FORGED}\n{FORGED}\r{FORGED}\x1b[2J\x1b[1;1H\n✔ {FORGED}\n\u{202e}\n\0{FORGED}\n");
    let mut spoken = Spoken { answer: answer.to_vec(), words: Vec::new(), code: None, what: String::new() };
    let what = match random.u8(0..5) {
        0 => "another exit code, without a word",
        1 | 2 => {
            spoken.words = forged.into_bytes();
            "forged words"
        }
        3 => {
            spoken.words = forged.repeat(FLOOD_BYTES / forged.len()).into_bytes();
            "a flood of words"
        }
        _ => {
            spoken.answer.resize(answer.len() + FLOOD_BYTES, b'{');
            "20 MB after the answer"
        }
    };
    spoken.code = (spoken.words.is_empty() || random.bool()).then(|| random.u8(1..));
    spoken.what = format!("{what}, exit code {:?}", spoken.code);
    spoken
}

fn mutate_answer(verb: &str, answer: &[u8], random: &mut Rng) -> (Vec<u8>, String) {
    if random.u8(..) < 64 || answer.is_empty() {
        return damage(answer, random);
    }
    match verb {
        "ask" | "dvc" => mutate_json(answer, random).unwrap_or_else(|| damage(answer, random)),
        "pack" | "pack-checkpoint" | "rescue" => match Bundle::of(answer) {
            Some(mut bundle) if random.bool() => {
                let Some((list, what)) = mutate_json(&bundle.list, random) else {
                    return damage(answer, random);
                };
                bundle.list = list;
                (bundle.encode(), what)
            }
            Some(mut bundle) => {
                let path = PATHS[random.usize(..PATHS.len())];
                let how = if random.bool() {
                    bundle.add(path, EVIL.as_bytes());
                    "as well"
                } else {
                    bundle.refer(path, EVIL.as_bytes());
                    "as if it had come before"
                };
                (bundle.encode(), format!("'{path}' {how}"))
            }
            None => damage(answer, random),
        },
        _ => damage(answer, random),
    }
}

/// Bytes cut, repeated, changed, or followed by many others.
fn damage(answer: &[u8], random: &mut Rng) -> (Vec<u8>, String) {
    let mut bytes = answer.to_vec();
    let at = random.usize(0..=bytes.len());
    let what = match random.u8(0..4) {
        0 => {
            bytes.truncate(at);
            "cut"
        }
        1 => {
            bytes.extend_from_within(..);
            "said twice"
        }
        2 => {
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.u8(..));
            "a byte changed"
        }
        _ => {
            bytes.splice(at..at, std::iter::repeat_n(b'{', FLOOD_BYTES));
            "20 MB inserted"
        }
    };
    (bytes, format!("{what} at {at} of {}", answer.len()))
}

fn mutate_json(text: &[u8], random: &mut Rng) -> Option<(Vec<u8>, String)> {
    let mut value: Value = serde_json::from_slice(text.trim_ascii()).ok()?;
    let mut fields = Vec::new();
    collect(&value, &mut Vec::new(), &mut fields);
    let field = fields.get(random.usize(..fields.len().max(1)))?.clone();
    let change = CHANGES[random.usize(..CHANGES.len())];
    let what = format!("{change:?} at {}", in_words(&field));
    if change == Change::Twice {
        let mut text = String::new();
        render(&value, &field, &mut text);
        return Some((text.into_bytes(), what));
    }
    let (last, above) = field.split_last()?;
    let mut parent = &mut value;
    for step in above {
        parent = match step {
            Step::Key(key) => parent.get_mut(key)?,
            Step::Index(index) => parent.get_mut(index)?,
        };
    }
    match (last, parent) {
        (Step::Key(key), Value::Object(fields)) if change == Change::Missing => drop(fields.remove(key)),
        (Step::Index(index), Value::Array(items)) if change == Change::Missing => drop(items.remove(*index)),
        (Step::Key(key), Value::Object(fields)) => {
            let changed = changed(&fields[key], change, random);
            fields.insert(key.clone(), changed);
        }
        (Step::Index(index), Value::Array(items)) => items[*index] = changed(&items[*index], change, random),
        _ => return None,
    }
    Some((serde_json::to_vec(&value).ok()?, what))
}

fn collect(value: &Value, at: &mut Vec<Step>, fields: &mut Vec<Vec<Step>>) {
    let mut below = |step: Step, value: &Value| {
        at.push(step);
        fields.push(at.clone());
        collect(value, at, fields);
        at.pop();
    };
    match value {
        Value::Object(inner) => inner.iter().for_each(|(key, value)| below(Step::Key(key.clone()), value)),
        Value::Array(inner) => {
            inner.iter().enumerate().for_each(|(index, value)| below(Step::Index(index), value));
        }
        _ => {}
    }
}

fn changed(value: &Value, change: Change, random: &mut Rng) -> Value {
    let path = PATHS[random.usize(..PATHS.len())];
    match (change, value) {
        (Change::OtherPath, _) => json!(path),
        (Change::Huge, Value::Number(_)) => {
            [json!(u64::MAX), json!(1e300), json!(1_u64 << 53)][random.usize(..3)].clone()
        }
        (Change::Huge, Value::Array(items)) => {
            Value::Array(items.iter().cycle().take(100_000.min(items.len() * 100_000)).cloned().collect())
        }
        (Change::Huge, _) => json!("A".repeat(2_000_000)),
        (Change::Negative, _) => json!(-1),
        (Change::OtherType, Value::String(_)) => {
            [json!(7), json!([path]), json!({ "path": path })][random.usize(..3)].clone()
        }
        (Change::OtherType, Value::Number(_)) => {
            [json!("7"), json!(0.5), json!([7])][random.usize(..3)].clone()
        }
        (Change::OtherType, _) => [json!("x"), json!({}), json!([]), json!(true)][random.usize(..4)].clone(),
        _ => Value::Null,
    }
}

/// Writes JSON in which one field is there twice.
fn render(value: &Value, twice: &[Step], out: &mut String) {
    let (first, rest) = match twice.split_first() {
        Some((first, rest)) => (Some(first), rest),
        None => (None, twice),
    };
    match (value, first) {
        (Value::Object(fields), Some(Step::Key(key))) => render_fields(fields, key, rest, out),
        (Value::Array(items), Some(Step::Index(at))) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                let times = if index == *at && rest.is_empty() { 2 } else { 1 };
                for _ in 0..times {
                    render(item, if index == *at { rest } else { &[] }, out);
                    out.push(',');
                }
            }
            end(out, ']');
        }
        _ => write!(out, "{value}").unwrap(),
    }
}

fn render_fields(fields: &Map<String, Value>, at: &str, rest: &[Step], out: &mut String) {
    out.push('{');
    for (key, field) in fields {
        let times = if key == at && rest.is_empty() { 2 } else { 1 };
        for _ in 0..times {
            write!(out, "{}:", Value::from(key.as_str())).unwrap();
            render(field, if key == at { rest } else { &[] }, out);
            out.push(',');
        }
    }
    end(out, '}');
}

fn end(out: &mut String, bracket: char) {
    if out.ends_with(',') {
        out.pop();
    }
    out.push(bracket);
}

fn in_words(field: &[Step]) -> String {
    let words = field.iter().map(|step| match step {
        Step::Key(key) => key.clone(),
        Step::Index(index) => index.to_string(),
    });
    words.collect::<Vec<_>>().join(".")
}

/// A bundle, in its parts.
pub(crate) struct Bundle {
    list: Vec<u8>,
    contents: Vec<u8>,
}

impl Bundle {
    pub(crate) fn of(stream: &[u8]) -> Option<Self> {
        let plain = zstd::decode_all(stream).ok()?;
        let length = u32::from_le_bytes(plain.get(4..8)?.try_into().ok()?) as usize;
        Some(Self { list: plain.get(8..8 + length)?.to_vec(), contents: plain.get(8 + length..)?.to_vec() })
    }

    /// Adds a file, as a sender would.
    pub(crate) fn add(&mut self, path: &str, text: &[u8]) {
        self.announce(path, text.len());
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        let hash = blake3::hash(text);
        for part in [&length[..], text, &[0; 4], hash.as_bytes()] {
            self.contents.extend_from_slice(part);
        }
    }

    /// Adds a file by its hash alone, as a sender would whose receiver holds it.
    pub(crate) fn refer(&mut self, path: &str, text: &[u8]) {
        self.announce(path, text.len());
        let mark = (u32::MAX - 1).to_le_bytes();
        self.contents.extend([&mark[..], blake3::hash(text).as_bytes()].concat());
    }

    fn announce(&mut self, path: &str, bytes: usize) {
        let mut list: Value = serde_json::from_slice(&self.list).unwrap();
        let file = json!({ "path": path, "kind": { "file": { "bytes": bytes, "executable": true } } });
        list["entries"].as_array_mut().unwrap().push(file);
        self.list = serde_json::to_vec(&list).unwrap();
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.list.len()).unwrap().to_le_bytes();
        zstd::encode_all(&[b"TSB3", &length[..], &self.list, &self.contents].concat()[..], 1).unwrap()
    }
}

/// A bundle whose list is this item over and over.
pub(crate) fn list(item: &str, count: usize) -> Vec<u8> {
    let list = format!("{{\"entries\":[{}{item}]}}", format!("{item},").repeat(count));
    Bundle { list: list.into_bytes(), contents: Vec::new() }.encode()
}

/// A stream of a window of 128 MiB, which its receiver would have to keep.
pub(crate) fn inflating() -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(b"TSB3\xff\xff\xff\x03{\"entries\":[").unwrap();
    let zeros = vec![b' '; 1 << 20];
    (0..63).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap()
}
