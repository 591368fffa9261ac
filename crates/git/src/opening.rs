//! Opening repositories: what libgit2 can read of those that git makes, and what to do about the others.

use super::limits;
use git2::{Config, ErrorCode, Index, Repository};
use std::path::{Path, PathBuf};
use std::sync::Once;
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Kind, Result};

/// Extensions of git's repository format that change nothing of what is read here, or that are dealt with.
///
/// What a partial clone leaves out is not needed: the checked-out commit is there, and the rest is fetched.
const HARMLESS_EXTENSIONS: [&str; 1] = ["partialclone"];

/// Opens a repository.
pub(super) fn open(folder: &Path) -> Result<Repository> {
    static LIBGIT2_SETTINGS: Once = Once::new();
    LIBGIT2_SETTINGS.call_once(|| {
        // The clone belongs to the step's user, who need not be ours; the container is the border that
        // counts. SAFETY: both write settings that libgit2 reads when it opens a repository, and every one is
        // opened below.
        #[allow(unsafe_code)]
        let set = unsafe {
            git2::opts::set_verify_owner_validation(false)
                .and_then(|()| git2::opts::set_extensions(&HARMLESS_EXTENSIONS))
        };
        set.and_then(|()| limits::set()).expect("libgit2 knows these options");
        // Trees name blobs that are in the pack for the remote only, not in any repository on this disk.
        git2::opts::strict_object_creation(false);
    });
    Repository::open(folder).map_err(|error| cannot_open(folder, error))
}

/// Opens the step's clone. An index that libgit2 cannot read is replaced, in memory, by one of the
/// checked-out commit.
///
/// A split index and a sparse one are of that kind. They differ from the replacement in what was added and
/// not committed, and in nothing that a publication reads.
pub(super) fn open_clone(folder: &Path) -> Result<Repository> {
    let repository = open(folder)?;
    if let Err(error) = repository.index() {
        static WARNED_ONCE: Once = Once::new();
        WARNED_ONCE.call_once(|| {
            warn!(
                "git's index cannot be read ({}), so files that were added but not committed may be missed; \
                 `git update-index --no-split-index` and `git sparse-checkout reapply --no-sparse-index` write it plainly",
                error.message()
            );
        });
        let replaced = index_of_head(&repository).and_then(|mut index| repository.set_index(&mut index));
        replaced.with_context(|| format!("cannot read the checked-out commit of {}", folder.display()))?;
    }
    Ok(repository)
}

fn index_of_head(repository: &Repository) -> Result<Index, git2::Error> {
    let mut index = Index::new()?;
    // A repository without a commit is refused later, in its own words.
    if let Ok(tree) = repository.head().and_then(|head| head.peel_to_tree()) {
        index.read_tree(&tree)?;
    }
    Ok(index)
}

pub(super) fn unusable(folder: &Path, why: &str) -> Error {
    Error::new(format!("{} {why}", folder.display()))
        .kind(Kind::Configuration)
        .hint("run in a step that clones the repository (clone: enabled: true), in BITBUCKET_CLONE_DIR")
}

fn cannot_open(folder: &Path, error: git2::Error) -> Error {
    if let Some(missing) = missing_git_folder(folder) {
        let why = format!("names {} as its git directory, which is not there", missing.display());
        return unusable(folder, &why).hint(
            "make that folder visible to the pipe, too, or use a clone that has its git directory inside",
        );
    }
    if error.code() == ErrorCode::NotFound {
        return unusable(folder, "is not a git repository");
    }
    let hint = extensions(folder).iter().find_map(|(name, value)| extension_hint(name, value));
    unusable(folder, "cannot be opened as a git repository").source(error).maybe_hint(hint)
}

/// Where a work tree's `.git` file leads, if that does not exist.
fn missing_git_folder(folder: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(folder.join(".git")).ok()?;
    let place = folder.join(text.strip_prefix("gitdir:")?.trim());
    (!place.exists()).then_some(place)
}

/// The extensions of git's format that a repository's configuration names, with their values.
fn extensions(folder: &Path) -> Vec<(String, String)> {
    let config = Config::open(&folder.join(".git/config"));
    let mut found = Vec::new();
    let listed = config.and_then(|config| {
        let entries = config.entries(Some(r"^(extensions\..*|core\.repositoryformatversion)$"))?;
        entries.for_each(|entry| {
            if let (Ok(name), Ok(value)) = (entry.name(), entry.value()) {
                found.push((name.to_owned(), value.to_owned()));
            }
        })
    });
    // What cannot be read gives no hint, nothing more.
    if listed.is_err() { Vec::new() } else { found }
}

/// What undoes an extension that libgit2 cannot read, by git's own commands.
fn extension_hint(name: &str, value: &str) -> Option<String> {
    const READABLE_EXTENSIONS: [&str; 5] =
        ["noop", "worktreeconfig", "preciousobjects", "relativeworktrees", "partialclone"];
    let then = "before this pipe";
    match name.strip_prefix("extensions.") {
        Some("refstorage") if value != "files" => Some(format!(
            "its branches are stored as '{value}' (extensions.refStorage): run `git refs migrate --ref-format=files` {then}"
        )),
        Some("objectformat") if value != "sha1" => Some(format!(
            "its hashes are {value} (extensions.objectFormat), which Bitbucket does not have: clone it with SHA-1"
        )),
        Some("refstorage" | "objectformat") => None,
        Some(other) if !READABLE_EXTENSIONS.contains(&other) => Some(format!(
            "it uses git's extension extensions.{other}, which the pipe does not know: clone it without, or undo it {then}"
        )),
        None if value != "0" && value != "1" => Some(format!(
            "its format is version {value} (core.repositoryFormatVersion), newer than the pipe: clone it with an older git"
        )),
        _ => None,
    }
}
