//! Whether an output is one that DVC would track.

use super::super::outs::OutEntry;
use super::super::rules::IgnoreRules;
use super::index::{self, Index, NamedOutput};
use super::{OutputPresence, RequestedOutput, Tracking, ignored, utf8};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Result};

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputShape {
    File,
    /// A file that anyone may execute.
    Executable,
    Directory,
    /// Not there yet.
    Missing,
}

/// An output to track.
#[derive(Debug)]
pub(super) struct TrackTarget {
    /// The output's path, relative to the root.
    pub(super) path: String,
    /// The path of the output's `.dvc` file.
    pub(super) pointer: String,
    /// The entry of that `.dvc` file; none if the file is new.
    pub(super) known: Option<OutEntry>,
}

impl TrackTarget {
    /// The last part of the output's path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The remote that the output's `.dvc` file names.
    pub(super) fn remote(&self) -> Option<&str> {
        self.known.as_ref()?.remote.as_deref().filter(|remote| !remote.is_empty())
    }

    /// The output as those who hash it need to know it.
    pub(super) fn requested(&self) -> RequestedOutput {
        let size = self.known.as_ref().and_then(|known| known.size);
        RequestedOutput { path: self.path.clone(), remote: self.remote().map(str::to_owned), size }
    }
}

/// The outputs, each once, in the order given: that of the lines in `.gitignore`. They may be missing.
pub(super) fn targets(tracking: &Tracking<'_>, data: &mut IgnoreRules) -> Result<Vec<TrackTarget>> {
    if tracking.outputs.is_empty() {
        return Ok(Vec::new());
    }
    let base = tracking.root.join(tracking.folder);
    let mut index = index::read(&base, data)?;
    let mut targets = Vec::new();
    for path in literals(tracking.outputs)? {
        check_git(tracking, &path)?;
        let shape = shape(&base, &path, OutputPresence::Later)?;
        check_name(&path)?;
        if data.take(Path::new(&path), shape == OutputShape::Directory)? {
            return Err(is_ignored(&path));
        }
        let target = target(path, &mut index, &base)?;
        ignored::check(tracking.root, &tracking.folder.join(&target.pointer))?;
        targets.push(target);
    }
    Ok(targets)
}

/// Whether git leaves the place of an output to DVC.
fn check_git(tracking: &Tracking<'_>, path: &str) -> Result<()> {
    let full = tracking.folder.join(path);
    let Some(tracked) = (tracking.in_git)(&full) else { return Ok(()) };
    if full != Path::new(&tracked) && full.starts_with(&tracked) {
        return Err(Error::new(format!("'{path}' is below '{tracked}', which git tracks as no folder: it is a file, a link or a submodule"))
            .hint("write the output to another path"));
    }
    Err(Error::new(format!("'{path}' is tracked by git, so DVC cannot track it"))
        .hint(format!("run `git rm -r --cached '{path}'` and commit that, or name it in OUTPUTS instead")))
}

/// The paths of outputs as DVC writes them, each once. A path inside another one is refused.
pub(crate) fn literals(outputs: &[String]) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for output in outputs {
        let path = literal(output)?;
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let mut sorted: Vec<&Path> = paths.iter().map(Path::new).collect();
    // By parts, so that what is in a folder comes right after it.
    sorted.sort();
    for pair in sorted.windows(2) {
        if let &[above, path] = pair
            && path.starts_with(above)
        {
            let (above, path) = (above.display(), path.display());
            return Err(Error::new(format!("'{path}' is in '{above}', and DVC is to track both"))
                .hint(format!("'{above}' is enough")));
        }
    }
    Ok(paths)
}

/// A path without `./` and a last `/`.
fn literal(output: &str) -> Result<String> {
    let parts: Vec<_> = Path::new(output).components().filter(|part| *part != Component::CurDir).collect();
    if !parts.iter().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Error::new(format!("'{output}' is outside of the repository"))
            .hint("give a path relative to the repository's folder, without '..'"));
    }
    if parts.is_empty() {
        return Err(Error::new("DVC cannot track the repository itself").hint("name files or folders in it"));
    }
    Ok(utf8(&parts.iter().collect::<PathBuf>())?.to_owned())
}

fn shape(root: &Path, path: &str, presence: OutputPresence) -> Result<OutputShape> {
    let parts: Vec<&Path> = Path::new(path).ancestors().filter(|part| *part != Path::new("")).collect();
    for folder in parts.iter().skip(1) {
        if root.join(folder).is_symlink() {
            return Err(Error::new(format!(
                "'{path}' is behind the link '{}', where DVC tracks nothing",
                folder.display()
            ))
            .hint("name the path that it leads to"));
        }
    }
    let full = root.join(path);
    let link = full.is_symlink();
    let metadata = match full.metadata() {
        // What a link does not lead to yet may be made, too: one into DVC's cache, for one.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && presence == OutputPresence::Later => {
            return Ok(OutputShape::Missing);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && link => {
            return Err(Error::new(format!("the link '{path}' leads nowhere")).hint("make what it points to"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(format!("'{path}' is not there, but DVC is to track it"))
                .hint("let the command write it, or take it out of DVC_OUTPUTS"));
        }
        metadata => metadata.with_context(|| format!("cannot look at '{path}'"))?,
    };
    match () {
        () if metadata.is_dir() && link => {
            Err(Error::new(format!("'{path}' is a link to a folder, which DVC does not track"))
                .hint("name the folder itself"))
        }
        () if metadata.is_dir() => Ok(OutputShape::Directory),
        () if !metadata.is_file() => Err(Error::new(format!("'{path}' is neither a file nor a folder"))),
        () if metadata.permissions().mode() & 0o111 != 0 => Ok(OutputShape::Executable),
        () => Ok(OutputShape::File),
    }
}

fn check_name(path: &str) -> Result<()> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if Path::new(name).extension().is_some_and(|end| end == "dvc") || name == ".dvc" || name == "dvc.yaml" {
        return Err(Error::new(format!("'{path}' is a file of DVC's own")).hint("name it in OUTPUTS instead"));
    }
    // DVC writes a rule for them that git understands otherwise: the data itself could then be committed.
    if name.ends_with(' ') || path.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        return Err(Error::new(format!(
            "git cannot be told to ignore {path:?}: it ends in a space or has a line break"
        ))
        .hint("give it another name"));
    }
    Ok(())
}

/// Looks at what an output is, where it was made. Whether rules take a folder above the output is not looked
/// at: the pipe has settled that from the clone.
pub(super) fn look(base: &Path, path: &str, rules: &mut IgnoreRules) -> Result<OutputShape> {
    let shape = shape(base, path, OutputPresence::Now)?;
    if rules.take_one(Path::new(path), shape == OutputShape::Directory)? {
        Err(is_ignored(path))
    } else {
        Ok(shape)
    }
}

fn is_ignored(path: &str) -> Error {
    Error::new(format!("'{path}' is ignored by DVC: by .dvcignore, or as part of git's or DVC's folders"))
        .hint("change the .dvcignore, or take it out of DVC_OUTPUTS")
}

fn target(path: String, index: &mut Index, root: &Path) -> Result<TrackTarget> {
    if let Some(known) = index.outs.remove(Path::new(&path)) {
        return old_target(path, known);
    }
    let full = Path::new(&path);
    if let Some((above, known)) = full.ancestors().skip(1).find_map(|above| index.outs.get_key_value(above)) {
        return Err(Error::new(format!(
            "'{path}' is in '{}', which '{}' tracks",
            above.display(),
            known.file.display()
        ))
        .hint(format!("name '{}' in DVC_OUTPUTS instead", above.display())));
    }
    if let Some((below, known)) = index.outs.iter().find(|(below, _)| below.starts_with(full)) {
        return Err(Error::new(format!(
            "'{path}' holds '{}', which '{}' tracks",
            below.display(),
            known.file.display()
        ))
        .hint(format!("run `dvc remove {}` and commit that", known.file.display())));
    }
    let pointer = format!("{path}.dvc");
    if root.join(&pointer).exists() {
        return Err(Error::new(format!("'{pointer}' is there, but does not track '{path}'"))
            .hint(format!("rename or remove '{pointer}'")));
    }
    Ok(TrackTarget { path, pointer, known: None })
}

fn old_target(path: String, known: NamedOutput) -> Result<TrackTarget> {
    let file = utf8(&known.file)?.to_owned();
    let Some(out) = known.out else {
        return Err(Error::new(format!("'{path}' is an output of a stage in '{file}'"))
            .hint("let `dvc repro` make it, and set DVC_PUSH: 'true' instead of naming it in DVC_OUTPUTS"));
    };
    if known.several {
        return Err(Error::new(format!("'{file}' has other outputs beside '{path}'"))
            .hint("give each output a .dvc file of its own: `dvc remove`, then `dvc add`"));
    }
    let flag = if out.cache { (!out.push).then_some("push") } else { Some("cache") };
    if let Some(flag) = flag {
        return Err(Error::new(format!(
            "'{file}' has `{flag}: false`, so '{path}' is not kept in a DVC remote"
        ))
        .hint(format!("take `{flag}: false` out of '{file}', or '{path}' out of DVC_OUTPUTS")));
    }
    Ok(TrackTarget { path, pointer: file, known: Some(out) })
}
