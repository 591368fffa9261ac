//! What `.gitattributes` and git's configuration say of a file that is to be committed.
//!
//! Line ends and `ident` are done as git does them ([`super::normalize`]). A `filter` is a program of the
//! user's, which is not in our image, and `working-tree-encoding` needs an iconv that is not there either:
//! both are refused. A filter is refused although git itself would pass over one that its configuration does
//! not name: what `git-crypt` is to encrypt would be on the remote in the open.

use super::normalize::{LineEnds, Normalization};
use git2::{AttrCheckFlags, AttrValue, Repository};
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_transfer::{TEXT_LIMIT_BYTES, read_beneath};

/// The attributes that the repository gives one file.
pub(super) struct Attributes<'a> {
    repository: &'a Repository,
    path: &'a Path,
}

/// An attribute's value, as far as it makes a difference here.
#[derive(Debug, PartialEq)]
enum AttributeState {
    Unspecified,
    Set,
    Unset,
    Value(String),
}

impl<'a> Attributes<'a> {
    /// The attributes of the file at `path`, relative to the clone. The file need not exist.
    pub(super) fn new(repository: &'a Repository, path: &'a Path) -> Self {
        Self { repository, path }
    }

    fn state(&self, name: &str) -> Result<AttributeState> {
        let flags = AttrCheckFlags::FILE_THEN_INDEX;
        let value =
            self.repository.get_attr_bytes(self.path, name, flags).context("cannot read .gitattributes")?;
        Ok(match AttrValue::from_bytes(value) {
            AttrValue::Unspecified => AttributeState::Unspecified,
            AttrValue::True => AttributeState::Set,
            AttrValue::False => AttributeState::Unset,
            AttrValue::String(text) => AttributeState::Value(text.to_owned()),
            AttrValue::Bytes(bytes) => AttributeState::Value(String::from_utf8_lossy(bytes).into_owned()),
        })
    }

    /// Refuses a file whose bytes git would pass through a program or an encoder.
    pub(super) fn check(&self) -> Result<()> {
        match self.state("filter")? {
            AttributeState::Value(name) if name == "lfs" => {
                return Err(self.refused(
                    "filter",
                    &name,
                    "gives it to Git LFS, for which its content must be uploaded first",
                ));
            }
            AttributeState::Value(name) => {
                return Err(self.refused("filter", &name, &format!(
                    "has git pass it through the filter '{name}', which the pipe does not have: the bytes would be committed unfiltered"
                )));
            }
            _ => {}
        }
        let name = "working-tree-encoding";
        match self.state(name)? {
            AttributeState::Unspecified => Ok(()),
            AttributeState::Value(encoding) if encoding.is_empty() || is_utf8(&encoding) => Ok(()),
            AttributeState::Value(encoding) => Err(self.refused(
                name,
                &encoding,
                &format!("has git re-encode it from {encoding}, which the pipe cannot"),
            )),
            AttributeState::Set | AttributeState::Unset => {
                Err(self.refused(name, "", "names no encoding, and git refuses such a file"))
            }
        }
    }

    fn refused(&self, name: &str, value: &str, what: &str) -> Error {
        let token = if value.is_empty() { name.to_owned() } else { format!("{name}={value}") };
        let source = self.source(name, value);
        let out = if name == "filter" { "-filter" } else { "!working-tree-encoding" };
        Error::new(format!("{source} {what} ({token})")).hint(format!(
            "let DVC keep it (DVC_OUTPUTS), commit it in a later step with git itself (PUBLISH: none), or add a line \
             `{} {out}` below that one",
            self.path.display()
        ))
    }

    /// The file that sets the attribute: the first one in git's order with a line that names it, or a macro
    /// of that name.
    fn source(&self, name: &str, value: &str) -> String {
        let said = if value.is_empty() { name.to_owned() } else { format!("{name}={value}") };
        let root = self.repository.workdir().unwrap_or(Path::new(""));
        let names = |file: &PathBuf| {
            let text = match file.strip_prefix(root) {
                Ok(path) => read_beneath(root, path, TEXT_LIMIT_BYTES),
                // The attributes file that the user's own configuration names.
                Err(_) => std::fs::read(file),
            };
            let text = text.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().any(|line| line.split_whitespace().skip(1).any(|word| word == said))
        };
        let files = self.files(root);
        let found = files.iter().find(|file| names(file));
        let found = found.map(|file| file.strip_prefix(root).unwrap_or(file).display().to_string());
        found.unwrap_or_else(|| ".gitattributes".to_owned())
    }

    /// The files in which git looks for attributes, the strongest first.
    fn files(&self, root: &Path) -> Vec<PathBuf> {
        let mut files = vec![self.repository.commondir().join("info/attributes")];
        files.extend(self.path.ancestors().skip(1).map(|folder| root.join(folder).join(".gitattributes")));
        let config = self.repository.config().and_then(|mut config| config.snapshot());
        files.extend(config.ok().and_then(|config| config.get_path("core.attributesfile").ok()));
        files
    }

    /// What `git add` does to the file's bytes.
    pub(super) fn normalization(&self) -> Result<Normalization> {
        let ident = self.state("ident")? == AttributeState::Set;
        let mut line_ends = line_ends_of(&self.state("text")?);
        if line_ends.is_none() {
            let crlf = self.state("crlf")?;
            // libgit2's macro `binary` has a `-crlf` that git's has not.
            let of_macro = crlf == AttributeState::Unset && self.state("binary")? == AttributeState::Set;
            line_ends = line_ends_of(&crlf).filter(|_| !of_macro);
        }
        let eol = matches!(self.state("eol")?, AttributeState::Value(eol) if eol == "lf" || eol == "crlf");
        let line_ends = match line_ends {
            Some(LineEnds::Auto) => LineEnds::Auto,
            Some(LineEnds::Keep) => LineEnds::Keep,
            _ if eol => LineEnds::Text,
            Some(LineEnds::Text) => LineEnds::Text,
            None if self.converts_all()? => LineEnds::Auto,
            None => LineEnds::Keep,
        };
        Ok(Normalization { line_ends, ident })
    }

    /// Whether git's configuration has line ends converted where no attribute says anything.
    fn converts_all(&self) -> Result<bool> {
        let config = self.repository.config().context("cannot read git's configuration")?;
        Ok(match config.get_string("core.autocrlf") {
            Ok(value) if value.eq_ignore_ascii_case("input") => true,
            _ => config.get_bool("core.autocrlf").unwrap_or(false),
        })
    }
}

/// The line ends that the attribute `text`, or its old name `crlf`, asks for; none where the attribute is not
/// given, or has a value that git does not know.
fn line_ends_of(state: &AttributeState) -> Option<LineEnds> {
    match state {
        AttributeState::Set => Some(LineEnds::Text),
        AttributeState::Unset => Some(LineEnds::Keep),
        AttributeState::Value(value) if value == "auto" => Some(LineEnds::Auto),
        AttributeState::Value(value) if value == "input" => Some(LineEnds::Text),
        AttributeState::Value(_) | AttributeState::Unspecified => None,
    }
}

fn is_utf8(encoding: &str) -> bool {
    ["utf-8", "utf8"].iter().any(|name| encoding.eq_ignore_ascii_case(name))
}
