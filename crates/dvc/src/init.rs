//! What `dvc init` and `dvc remote add --default` write into a repository that has no DVC yet.

use std::path::Path;
use trainspot_base::error::{Error, Result};

/// The name that a remote gets in a new `.dvc/config`, where only its address is known.
const REMOTE_NAME: &str = "trainspot";

/// The files that a repository lacks to be one of DVC's, by path; none if it is one.
///
/// `address` becomes the default remote, so that a clone's `dvc pull` finds it.
///
/// # Errors
/// The address holds a password, which would be committed.
pub(super) fn files(root: &Path, address: Option<&str>) -> Result<Vec<(&'static str, String)>> {
    if root.join(".dvc/config").exists() {
        return Ok(Vec::new());
    }
    let config = address.map(config).transpose()?.unwrap_or_default();
    let ignored = "# Add patterns of files dvc should ignore, which could improve\n\
        # the performance. Learn more at\n\
        # https://dvc.org/doc/user-guide/dvcignore\n";
    let all = [
        (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n".to_owned()),
        (".dvc/config", config),
        (".dvcignore", ignored.to_owned()),
    ];
    Ok(all.into_iter().filter(|(path, _)| !root.join(path).exists()).collect())
}

fn config(address: &str) -> Result<String> {
    let user = address.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
    if user.is_some_and(|(user, _)| user.contains(':')) {
        return Err(Error::new("the address of the DVC remote holds a password, and would be committed")
            .hint("give the password under the name that DVC's remote takes it from"));
    }
    // What is relative starts from the file's folder there.
    let relative = !address.contains("://") && !address.starts_with(['/', '~']);
    let url = if relative { format!("../{}", address.trim_start_matches("./")) } else { address.to_owned() };
    let quote = match () {
        () if url.contains(['\'', '"', '\n']) => {
            return Err(Error::new("the address of the DVC remote holds a quote or a line break"));
        }
        () if url.contains([',', '#']) || url.starts_with(' ') || url.ends_with(' ') => "\"",
        () => "",
    };
    Ok(format!(
        "[core]\n    remote = {REMOTE_NAME}\n['remote \"{REMOTE_NAME}\"']\n    url = {quote}{url}{quote}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_without_dvc_gets_its_files_and_the_remote() {
        let root = tempfile::tempdir().unwrap();
        let files = files(root.path(), Some("gdrive://id/models")).unwrap();
        assert_eq!(
            files.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
            [".dvc/.gitignore", ".dvc/config", ".dvcignore"]
        );
        assert_eq!(
            files[1].1,
            "[core]\n    remote = trainspot\n['remote \"trainspot\"']\n    url = gdrive://id/models\n"
        );
    }

    #[test]
    fn an_address_with_a_password_is_not_committed() {
        let error = config("https://user:secret@host/path").unwrap_err().render();
        assert!(error.contains("password") && !error.contains("secret"), "{error}");
        assert!(config("ssh://user@host/a:b").is_ok());
    }
}
