//! What the repository's DVC files say: which paths are outputs, of what, and where their objects belong.

use super::Oid;
use super::template::Variables;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use trainspot_base::error::{Context as _, Error, Result};

/// A `.dvc` file.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PointerFile {
    #[serde(default, deserialize_with = "or_nothing")]
    pub(super) outs: Vec<OutEntry>,
    #[serde(default)]
    pub(super) wdir: Option<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    deps: Vec<Dependency>,
}

/// What a `.dvc` file of an import names.
#[derive(Debug, Deserialize)]
struct Dependency {
    #[serde(default)]
    repo: Option<IgnoredAny>,
}

/// Reads a list; a key without a value is an empty one.
fn or_nothing<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An output with its content, of a `.dvc` file or of `dvc.lock`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct OutEntry {
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
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).context("it is not a .dvc file")
    }

    /// Whether the outputs are another repository's, which has them in its own remote.
    pub(super) fn is_import_of_repository(&self) -> bool {
        self.deps.iter().any(|dependency| dependency.repo.is_some())
    }
}

impl OutEntry {
    /// The name of the output's object; none if the output has no content yet.
    ///
    /// # Errors
    /// The text is no name of an object.
    pub(super) fn oid(&self) -> Result<Option<Oid>> {
        let Some(md5) = self.md5.as_deref().filter(|md5| !md5.is_empty()) else { return Ok(None) };
        let oid =
            Oid::parse(md5).ok_or_else(|| Error::new(format!("'{}' has no MD5: '{md5}'", self.path)))?;
        Ok(Some(if self.hash.as_deref() == Some("md5") { oid } else { oid.of_dvc_2() }))
    }

    /// Whether the output's content is kept as a version of a cloud's own, where it is already.
    pub(super) fn is_versioned(&self) -> bool {
        self.files.is_some() || self.cloud.is_some()
    }

    /// Whether the output lies outside of the repository: DVC keeps such an output in no remote.
    pub(super) fn is_external(&self) -> bool {
        self.path.starts_with('/') || self.path.contains("://")
    }
}

/// `dvc.lock`.
#[derive(Debug, Deserialize)]
pub(super) struct LockFile {
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    pub(super) stages: BTreeMap<String, LockedStage>,
}

/// A stage that was run.
#[derive(Debug, Deserialize)]
pub(super) struct LockedStage {
    #[serde(default, deserialize_with = "or_nothing")]
    pub(super) outs: Vec<OutEntry>,
}

/// `dvc.yaml`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PipelineFile {
    #[serde(default)]
    pub(super) stages: BTreeMap<String, StageEntry>,
    #[serde(default)]
    pub(super) vars: Vec<Value>,
}

/// A stage as it is written. With `foreach` or `matrix`, one entry stands for several stages.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StageEntry {
    #[serde(default)]
    foreach: Option<Value>,
    #[serde(default)]
    matrix: Option<Map<String, Value>>,
    #[serde(default)]
    cmd: Option<IgnoredAny>,
    #[serde(default)]
    vars: Vec<Value>,
    #[serde(default, rename = "do")]
    each: Option<Box<StageEntry>>,
    #[serde(default)]
    pub(super) wdir: Option<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    outs: Vec<StageOut>,
    #[serde(default, deserialize_with = "or_nothing")]
    metrics: Vec<StageOut>,
    #[serde(default, deserialize_with = "or_nothing")]
    plots: Vec<StageOut>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum StageOut {
    Path(String),
    OutFlagSet(BTreeMap<String, OutFlagSet>),
}

/// Plots may have several sets of flags, none of which is of interest here.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OutFlagSet {
    OutFlags(OutFlags),
    Other(IgnoredAny),
}

/// What a stage says of an output. A flag may be a template, which is text until DVC fills it in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct OutFlags {
    #[serde(default)]
    pub(super) cache: Option<OutFlag>,
    #[serde(default)]
    pub(super) push: Option<OutFlag>,
    #[serde(default)]
    pub(super) remote: Option<String>,
}

/// A switch of an output, such as `cache: false`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum OutFlag {
    /// The value, which is final.
    Known(bool),
    /// A template, whose value is not known before DVC fills it in.
    Template(String),
}

impl LockFile {
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

impl PipelineFile {
    /// Reads `dvc.yaml`.
    pub(super) fn read(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let pipeline: Self = serde_saphyr::from_str(text).context("dvc.yaml cannot be read")?;
        match pipeline.stages.iter().find(|(_, stage)| stage.body().cmd.is_none()) {
            None => Ok(pipeline),
            Some((name, _)) => Err(Error::new(format!("the stage '{name}' of dvc.yaml has no cmd"))
                .hint("each command of DVC fails there, too: give the stage a command, or remove it")),
        }
    }

    /// The values that templates of all stages may name. `folder` is where the `dvc.yaml` is.
    pub(super) fn variables(&self, folder: &Path) -> Variables {
        Variables::read(folder, &self.vars)
    }

    /// The stage of this name in the lock, or the one that stands for it and others as `name@member`; and the
    /// values that its templates name, which are `variables` of the same `folder` and its own.
    pub(super) fn stage(
        &self,
        name: &str,
        variables: &Variables,
        folder: &Path,
    ) -> Option<(&StageEntry, Variables)> {
        if let Some(stage) = self.stages.get(name).filter(|stage| !stage.is_many()) {
            return Some((stage, stage.variables(variables.clone(), folder)));
        }
        // As DVC does it: a member may have no `@`, a stage may.
        let (group, member) = name.rsplit_once('@')?;
        let stage = self.stages.get(group).filter(|stage| stage.is_many())?;
        let own = match (&stage.foreach, &stage.matrix) {
            (Some(over), _) => variables.of_foreach(over, member),
            (None, Some(over)) => variables.of_matrix(over, member),
            (None, None) => None,
        };
        Some((stage.body(), stage.body().variables(own.unwrap_or_else(|| variables.clone()), folder)))
    }
}

impl StageEntry {
    /// Whether the entry stands for several stages, each called `name@item`.
    fn is_many(&self) -> bool {
        self.foreach.is_some() || self.matrix.is_some()
    }

    fn variables(&self, of_file: Variables, folder: &Path) -> Variables {
        let wdir = self.wdir.as_deref().and_then(|wdir| of_file.fill(wdir)).unwrap_or_default();
        of_file.with(&folder.join(wdir), &self.vars)
    }

    /// The stage itself, or the one that `foreach` repeats.
    pub(super) fn body(&self) -> &Self {
        self.each.as_deref().unwrap_or(self)
    }

    /// The stage's outputs as they are written, with their flags.
    pub(super) fn outs(&self) -> impl Iterator<Item = (&str, OutFlags)> {
        let lists = [&self.outs, &self.metrics, &self.plots];
        lists.into_iter().flatten().flat_map(|out| match out {
            StageOut::Path(path) => vec![(path.as_str(), OutFlags::default())],
            StageOut::OutFlagSet(paths) => {
                paths.iter().map(|(path, flags)| (path.as_str(), flags.known())).collect()
            }
        })
    }
}

impl OutFlags {
    /// Whether `dvc push` may send the output.
    pub(super) fn may_be_sent(&self) -> bool {
        let off = |flag: &Option<OutFlag>| *flag == Some(OutFlag::Known(false));
        !off(&self.cache) && !off(&self.push)
    }
}

impl OutFlagSet {
    fn known(&self) -> OutFlags {
        match self {
            Self::OutFlags(flags) => flags.clone(),
            Self::Other(_) => OutFlags::default(),
        }
    }
}
