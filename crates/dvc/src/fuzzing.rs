//! What must hold of the files by which a repository speaks to DVC. The programs of `fuzz/` look for those of
//! which it does not.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "what does not hold is a panic")]

use super::config::CONFIG_FILES;
use super::outs::{LockFile, OutEntry, PipelineFile, PointerFile};
use super::{DvcConfig, Md5, Pointer, Remotes, Settled, StoreRequest, StoreResult, pipelines};
use std::collections::BTreeMap;
use std::path::Path;

/// A folder that is not there: of the files that a pipeline names none is read.
const NO_FOLDER: &str = "/dev/null/repository";
/// The memory that the values of a configuration may take, as a multiple of its own size, beside
/// [`SMALL_FILE_LIMIT_BYTES`].
const GROWTH_LIMIT: usize = 16;
/// The memory that the values of the shortest configuration may take.
const SMALL_FILE_LIMIT_BYTES: usize = 16 << 20;

/// Writes a `.dvc` file. `input` is a digit for its content, then the name of a new one's output, or an old
/// file.
pub fn pointer(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some((digit, text)) = text.split_at_checked(1) else { return };
    let file = Pointer { oid: Md5::of(b"x"), size: 1, files: None, executable: true };
    let folder = Pointer { oid: super::Oid::listing(&file.oid), size: 7, files: Some(2), executable: false };
    let (new, is_new) = match digit.as_bytes() {
        [b'0'] => (file, false),
        [b'1'] => (folder, false),
        [b'2'] => (file, true),
        _ => (folder, true),
    };
    let written = if is_new { Ok(new.create(text)) } else { new.update(text) };
    let Ok(written) = written else { return };
    check_pointer(&PointerFile::read(&written).unwrap(), &new, is_new.then_some(text));
    assert_eq!(new.update(&written).unwrap(), written, "of {text:?}");
    if !is_new {
        check_kept(text, &written);
    }
}

fn check_pointer(written: &PointerFile, pointer: &Pointer, name: Option<&str>) {
    let [out] = written.outs.as_slice() else { panic!("{written:?}") };
    assert_eq!(out.md5.as_deref(), Some(&*pointer.oid.to_string()));
    assert_eq!(out.size, Some(pointer.size));
    assert!(name.is_none_or(|name| out.path == name), "{:?} is not {name:?}", out.path);
}

/// An update changes what an output's content is, and nothing else of what the file says.
fn check_kept(old: &str, updated: &str) {
    let Ok(old) = PointerFile::read(old) else { return };
    let new = PointerFile::read(updated).unwrap();
    // Of no use as a path or a name to DVC, and written in lower case by ruamel.
    let is_boolean = |text: &str| ["true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let text = |text: &str| if is_boolean(text) { text.to_lowercase() } else { text.to_owned() };
    let kept = |out: &OutEntry| {
        (text(&out.path), out.cache, out.push, text(out.remote.as_deref().unwrap_or_default()))
    };
    assert_eq!(old.outs.iter().map(kept).collect::<Vec<_>>(), new.outs.iter().map(kept).collect::<Vec<_>>());
    let folder =
        |file: &PointerFile| text(file.wdir.as_deref().filter(|wdir| *wdir != ".").unwrap_or_default());
    assert_eq!((folder(&old), old.is_import_of_repository()), (folder(&new), new.is_import_of_repository()));
}

/// Reads a `dvc.yaml` and, after a byte 0, the `dvc.lock` beside it.
pub fn pipeline(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (pipeline, lock) = text.split_once('\0').unwrap_or((text, ""));
    let (pipeline, lock) = (PipelineFile::read(pipeline), LockFile::read(lock));
    let (Ok(pipeline), Ok(lock)) = (pipeline, lock) else { return };
    let of_file = pipeline.variables(Path::new(NO_FOLDER));
    for (name, stage) in &lock.stages {
        let Some((written, variables)) = pipeline.stage(name, &of_file, Path::new(NO_FOLDER)) else {
            continue;
        };
        for out in &stage.outs {
            let oid = out.oid().ok().flatten();
            assert!(oid.is_none_or(|oid| oid.md5().len() == 32));
            let flags = pipelines::flags(written, &variables, name, &out.path);
            let to_send = flags.ok().flatten();
            assert!(to_send.is_none_or(|flags| flags.may_be_sent()));
        }
    }
}

/// Reads a `.dvc/config` and, after a byte 0, the `.dvc/config.local` beside it, and looks for each remote.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let texts: Vec<_> = CONFIG_FILES.into_iter().zip(text.splitn(2, '\0').map(str::to_owned)).collect();
    let _ = DvcConfig::parse(&texts[0].1);
    let Ok(config) = DvcConfig::of_texts(&texts) else { return };
    let bytes = serde_json::to_string(&config).unwrap().len();
    assert!(bytes <= SMALL_FILE_LIMIT_BYTES + GROWTH_LIMIT * text.len(), "{bytes} bytes of {}", text.len());
    assert!(config.secrets().iter().all(|secret| !secret.name.is_empty()));
    let environment = BTreeMap::from([("AWS_SECRET_ACCESS_KEY".to_owned(), "secret".into())]);
    let remotes = Remotes::of(Path::new(NO_FOLDER), config, None, environment);
    for name in remotes.names() {
        let Ok(settings) = remotes.choose(Some(name)) else { continue };
        assert!(!settings.url.is_empty() && !settings.url.starts_with("remote://"), "{}", settings.url);
        let is_s3 = settings.url.starts_with("s3://");
        assert_eq!(settings.environment.is_empty(), !is_s3, "{} gets a credential of S3", settings.url);
    }
    let settled = remotes.settle();
    let sent = serde_json::to_vec(&settled).unwrap();
    let arrived: Settled = serde_json::from_slice(&sent).unwrap();
    assert_eq!(serde_json::to_vec(&arrived).unwrap(), sent);
}

/// Reads what a machine answers to an order to keep one output and one folder, and an order itself.
pub fn store(input: &[u8]) {
    if let Ok(order) = serde_json::from_slice::<StoreRequest>(input) {
        let sent = serde_json::to_vec(&order).unwrap();
        let arrived: StoreRequest = serde_json::from_slice(&sent).unwrap();
        assert_eq!(serde_json::to_vec(&arrived).unwrap(), sent);
    }
    let Ok(result) = StoreResult::parse(input, &StoreRequest::default()) else { return };
    assert!(result.pointers.is_empty() && result.sent.is_empty(), "nothing was ordered");
    for warning in &result.warnings {
        assert!(warning.starts_with("the machine says: ") && !warning.contains(char::is_control));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of the program `protocol` are for this crate where they begin with this digit.
    fn stored(input: &[u8]) {
        input.strip_prefix(b"4").into_iter().for_each(store);
    }

    #[test]
    fn it_holds_of_the_seeds() {
        let properties = [
            ("dvc_yaml", pointer as fn(&[u8])),
            ("dvc_pipeline", pipeline),
            ("dvc_config", config),
            ("protocol", stored),
        ];
        for (target, property) in properties {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
            for seed in std::fs::read_dir(seeds).unwrap() {
                property(&std::fs::read(seed.unwrap().path()).unwrap());
            }
        }
    }
}
