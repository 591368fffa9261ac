//! What a training that used DVC itself leaves to be sent: the cached outputs of `dvc.lock` and of `.dvc` files.

use super::outs::{Flag, Flags, Lock, Out, Pipeline, PointerFile, Stage};
use super::rules::{Kind, Rules};
use super::track::{Shipments, index};
use super::{Content, Object, Oid, Remotes, Shipment, dir};
use crate::error::{Context as _, Error, Result};
use std::path::{Path, PathBuf};

/// What there is to send.
#[derive(Debug, Default)]
pub struct Cached {
    /// The objects, by remote.
    pub shipments: Vec<Shipment>,
    /// The outputs of `.dvc` files that are not on this machine, so they were not made here.
    pub elsewhere: Vec<String>,
}

/// The objects of all outputs that the repository's files of DVC's name, from the cache of this machine.
///
/// Outputs with `cache: false` are git's and those with `push: false` are nobody's, as in `dvc push`. A stage that was
/// never run has none. What `dvc.lock` names must be in the cache: `dvc push` would pass over it with a warning.
///
/// # Errors
/// An object is missing or damaged; a file of DVC's cannot be read, or a template in it cannot be matched.
pub fn cached(root: &Path, remotes: &Remotes) -> Result<Cached> {
    let cache = Cache { folder: remotes.cache() };
    let mut rules = Rules::new(root, Kind::Dvc);
    let mut shipments = Shipments::default();
    let mut elsewhere = Vec::new();
    for file in index::read(root, &mut rules)?.files {
        let cannot = || format!("cannot push the outputs of '{}'", file.display());
        let locked = file.file_name().is_some_and(|name| name == "dvc.yaml");
        let outs = if locked { of_pipeline(root, &file) } else { of_pointer(root, &file) };
        for (oid, out) in outs.with_context(cannot)? {
            if !locked && !cache.has(&oid) {
                elsewhere.push(file.with_file_name(&out.path).to_string_lossy().into_owned());
                continue;
            }
            let objects = cache.objects(&oid, &out.path).with_context(cannot)?;
            let loads = shipments.of(remotes.choose(out.remote.as_deref()).with_context(cannot)?);
            for object in objects {
                loads.add(object);
            }
        }
    }
    Ok(Cached { shipments: shipments.finish(), elsewhere })
}

fn read(root: &Path, file: &Path) -> Result<String> {
    std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read '{}'", file.display()))
}

fn of_pointer(root: &Path, file: &Path) -> Result<Vec<(Oid, Out)>> {
    let outs = PointerFile::read(&read(root, file)?)?.outs;
    with_oids(outs.into_iter().filter(|out| out.cache && out.push))
}

fn of_pipeline(root: &Path, file: &Path) -> Result<Vec<(Oid, Out)>> {
    let lock = file.with_file_name("dvc.lock");
    if !root.join(&lock).exists() {
        return Ok(Vec::new());
    }
    let pipeline = Pipeline::read(&read(root, file)?)?;
    let lock = Lock::read(&read(root, &lock)?)?;
    let mut outs = Vec::new();
    for (name, stage) in lock.stages {
        // Stages that are only in the lock are gone.
        let Some(written) = pipeline.stage(&name) else { continue };
        for mut out in stage.outs {
            if let Some(flags) = flags(written, &name, &out.path)? {
                out.remote = flags.remote;
                outs.push(out);
            }
        }
    }
    with_oids(outs.into_iter())
}

fn with_oids(outs: impl Iterator<Item = Out>) -> Result<Vec<(Oid, Out)>> {
    let with = outs.map(|out| Ok(out.oid()?.map(|oid| (oid, out))));
    with.filter_map(Result::transpose).collect()
}

/// What a stage says of an output of its; none if it is not one to send, or the stage has it no more.
fn flags(stage: &Stage, name: &str, path: &str) -> Result<Option<Flags>> {
    let mut found: Vec<Flags> =
        stage.outs().filter(|(written, _)| *written == path).map(|(_, flags)| flags).collect();
    if found.is_empty() {
        let like = stage.outs().filter(|(written, _)| written.contains("${") && is_filled_in(written, path));
        found = like.map(|(_, flags)| flags).collect();
    }
    found.dedup();
    let unclear = |why: &str| {
        Err(Error::new(format!("'{path}' of the stage '{name}' {why} in dvc.yaml")).hint(
            "write the output or its flags without a template, or push it by `dvc push` in the command",
        ))
    };
    let [flags] = found.as_slice() else {
        return if found.is_empty() {
            Ok(None)
        } else {
            unclear("matches several templates with different flags")
        };
    };
    let remote = flags.remote.as_deref().unwrap_or_default();
    match (&flags.cache, &flags.push) {
        (Some(Flag::Template(_)), _) | (_, Some(Flag::Template(_))) => {
            unclear("has a flag that is a template")
        }
        (Some(Flag::Known(false)), _) | (_, Some(Flag::Known(false))) => Ok(None),
        _ if remote.contains("${") => unclear("has a remote that is a template"),
        _ => Ok(Some(flags.clone())),
    }
}

/// Whether `path` is `template` with something for each `${…}`.
fn is_filled_in(template: &str, path: &str) -> bool {
    let Some((start, rest)) = template.split_once("${") else { return template == path };
    let Some(path) = path.strip_prefix(start) else { return false };
    let rest = rest.split_once('}').map_or("", |(_, rest)| rest);
    (0..=path.len()).filter(|at| path.is_char_boundary(*at)).any(|at| is_filled_in(rest, &path[at..]))
}

/// The objects that DVC keeps on this machine.
struct Cache {
    folder: PathBuf,
}

impl Cache {
    fn path(&self, oid: &Oid) -> PathBuf {
        self.folder.join(oid.key())
    }

    fn has(&self, oid: &Oid) -> bool {
        self.path(oid).exists()
    }

    /// The object of an output, and those of the files that it lists.
    fn objects(&self, oid: &Oid, out: &str) -> Result<Vec<Object>> {
        let own = self.object(oid, out)?;
        if !oid.is_dir() {
            return Ok(vec![own]);
        }
        let cannot = || format!("the list of '{out}' in DVC's cache is damaged");
        let list = std::fs::read(self.path(oid)).with_context(cannot)?;
        let mut objects = Vec::new();
        for file in dir::read(&list).with_context(cannot)? {
            let oid = Oid::parse(&file.md5).ok_or_else(|| Error::new(cannot()))?;
            objects.push(self.object(&oid, &format!("{out}/{}", file.relpath))?);
        }
        objects.push(own);
        Ok(objects)
    }

    fn object(&self, oid: &Oid, out: &str) -> Result<Object> {
        let path = self.path(oid);
        match path.metadata() {
            Ok(metadata) => Ok(Object { oid: oid.clone(), size: metadata.len(), content: Content::File(path) }),
            Err(error) => Err(Error::new(format!("'{out}' is not in DVC's cache: {} is missing", oid.key()))
                .source(error)
                .hint("let the command end with `dvc repro`, or with `dvc commit -f` if it ran the training otherwise")),
        }
    }
}
