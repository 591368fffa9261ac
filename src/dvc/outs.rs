//! What the repository's DVC files say: which paths are outputs, of what, and where their objects belong.

use super::Oid;
use crate::error::{Context as _, Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// A `.dvc` file.
#[derive(Debug, Deserialize)]
pub(super) struct PointerFile {
    #[serde(default)]
    pub(super) outs: Vec<Out>,
    #[serde(default)]
    pub(super) wdir: Option<String>,
}

/// An output with its content, of a `.dvc` file or of `dvc.lock`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Out {
    pub(super) path: String,
    #[serde(default)]
    pub(super) md5: Option<String>,
    #[serde(default)]
    pub(super) hash: Option<String>,
    #[serde(default)]
    pub(super) size: Option<u64>,
    #[serde(default = "yes")]
    pub(super) cache: bool,
    #[serde(default = "yes")]
    pub(super) push: bool,
    #[serde(default)]
    pub(super) remote: Option<String>,
    #[serde(default)]
    files: Option<IgnoredAny>,
    #[serde(default)]
    cloud: Option<IgnoredAny>,
}

fn yes() -> bool {
    true
}

impl PointerFile {
    /// Reads a `.dvc` file.
    pub(super) fn read(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self { outs: Vec::new(), wdir: None });
        }
        serde_saphyr::from_str(text).context("it is not a .dvc file")
    }
}

impl Out {
    /// The name of its object; none if it has no content yet.
    ///
    /// # Errors
    /// Its objects are laid out in a way that is not supported.
    pub(super) fn oid(&self) -> Result<Option<Oid>> {
        if self.files.is_some() || self.cloud.is_some() {
            return Err(Error::new(format!("'{}' is kept by the versions of a cloud's own", self.path))
                .hint("take `version_aware` or `worktree` off its remote, then `dvc push` it again"));
        }
        let Some(md5) = self.md5.as_deref().filter(|md5| !md5.is_empty()) else { return Ok(None) };
        if self.hash.as_deref() != Some("md5") {
            return Err(Error::new(format!(
                "'{}' was recorded by DVC 2, which lays objects out otherwise",
                self.path
            ))
            .hint("run `dvc cache migrate --dvc-files` and commit what it changes"));
        }
        let oid =
            Oid::parse(md5).ok_or_else(|| Error::new(format!("'{}' has no MD5: '{md5}'", self.path)))?;
        Ok(Some(oid))
    }
}

/// `dvc.lock`.
#[derive(Debug, Deserialize)]
pub(super) struct Lock {
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    pub(super) stages: BTreeMap<String, LockedStage>,
}

/// A stage that was run.
#[derive(Debug, Deserialize)]
pub(super) struct LockedStage {
    #[serde(default)]
    pub(super) outs: Vec<Out>,
}

/// `dvc.yaml`.
#[derive(Debug, Deserialize)]
pub(super) struct Pipeline {
    #[serde(default)]
    pub(super) stages: BTreeMap<String, Stage>,
}

/// A stage as it is written: with `foreach` or `matrix`, one for many.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Stage {
    #[serde(default)]
    foreach: Option<IgnoredAny>,
    #[serde(default)]
    matrix: Option<IgnoredAny>,
    #[serde(default, rename = "do")]
    each: Option<Box<Stage>>,
    #[serde(default)]
    pub(super) wdir: Option<String>,
    #[serde(default)]
    outs: Vec<StageOut>,
    #[serde(default)]
    metrics: Vec<StageOut>,
    #[serde(default)]
    plots: Vec<StageOut>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum StageOut {
    Path(String),
    Flagged(BTreeMap<String, Flagged>),
}

/// Plots may have several sets of flags, none of which is of interest here.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Flagged {
    Flags(Flags),
    Other(IgnoredAny),
}

/// What a stage says of an output. A flag may be a template, which is text until DVC fills it in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Flags {
    #[serde(default)]
    pub(super) cache: Option<Flag>,
    #[serde(default)]
    pub(super) push: Option<Flag>,
    #[serde(default)]
    pub(super) remote: Option<String>,
}

/// A yes or no.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Flag {
    /// As it counts.
    Known(bool),
    /// A template.
    Template(String),
}

impl Lock {
    /// Reads `dvc.lock`.
    pub(super) fn read(text: &str) -> Result<Self> {
        let lock: Self = serde_saphyr::from_str(text).context("dvc.lock cannot be read")?;
        match lock.schema.as_deref() {
            Some("2.0") => Ok(lock),
            _ => Err(Error::new("dvc.lock is not of schema 2.0")
                .hint("run `dvc repro` with DVC 3 and commit the file")),
        }
    }
}

impl Pipeline {
    /// Reads `dvc.yaml`.
    pub(super) fn read(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self { stages: BTreeMap::new() });
        }
        serde_saphyr::from_str(text).context("dvc.yaml cannot be read")
    }

    /// The stage of this name in the lock, or the one that stands for it and others as `name@item`.
    pub(super) fn stage(&self, name: &str) -> Option<&Stage> {
        let many = || {
            let (name, _) = name.split_once('@')?;
            self.stages.get(name).filter(|stage| stage.is_many())
        };
        self.stages.get(name).or_else(many).map(Stage::body)
    }
}

impl Stage {
    /// Whether it stands for several stages, `name@item` each.
    fn is_many(&self) -> bool {
        self.foreach.is_some() || self.matrix.is_some()
    }

    /// The stage, or what `foreach` does each time.
    pub(super) fn body(&self) -> &Self {
        self.each.as_deref().unwrap_or(self)
    }

    /// Its outputs as written, with their flags.
    pub(super) fn outs(&self) -> impl Iterator<Item = (&str, Flags)> {
        let lists = [&self.outs, &self.metrics, &self.plots];
        lists.into_iter().flatten().flat_map(|out| match out {
            StageOut::Path(path) => vec![(path.as_str(), Flags::default())],
            StageOut::Flagged(paths) => {
                paths.iter().map(|(path, flags)| (path.as_str(), flags.known())).collect()
            }
        })
    }
}

impl Flagged {
    fn known(&self) -> Flags {
        match self {
            Self::Flags(flags) => flags.clone(),
            Self::Other(_) => Flags::default(),
        }
    }
}
