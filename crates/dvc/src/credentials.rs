//! The variables from which DVC's remotes and their SDKs take credentials and settings: one table for who
//! reads them and who gets them. A variable that is not in it reaches no remote.

use super::remote::Settings;
use secrecy::{ExposeSecret as _, SecretString};
use std::path::PathBuf;

/// Variables that are called `name`, or whose names begin with it, and the kinds of remotes that take them.
struct VariableFamily {
    name: &'static str,
    /// Whether `name` is the whole name of one variable, and not the beginning of names.
    whole: bool,
    /// The schemes of the remotes' addresses. Empty for variables that remotes of every kind take.
    kinds: &'static [&'static str],
}

const fn begins(name: &'static str, kinds: &'static [&'static str]) -> VariableFamily {
    VariableFamily { name, whole: false, kinds }
}

const fn called(name: &'static str, kinds: &'static [&'static str]) -> VariableFamily {
    VariableFamily { name, whole: true, kinds }
}

const VARIABLE_FAMILIES: [VariableFamily; 9] = [
    begins("AWS_", &["s3"]),
    begins("AZURE_", &["azure"]),
    begins("GDRIVE_", &["gdrive"]),
    begins("GOOGLE_", &["gs"]),
    called("STORAGE_EMULATOR_HOST", &["gs"]),
    begins("OSS_", &["oss"]),
    begins("SSH_", &["ssh"]),
    called("HOME", &[]),
    called("USER", &[]),
];

/// Variables that begin like those of a family, and are no settings of a remote.
const UNRELATED_VARIABLES: [&str; 3] = ["AWS_OIDC_ROLE_ARN", "SSH_CIDR", "SSH_ADDRESS"];

/// Whether a remote of any kind takes this variable.
#[must_use]
pub fn is_of_remotes(name: &str) -> bool {
    family(name).is_some()
}

/// Whether a remote of one of these kinds takes this variable.
pub(super) fn is_for<'a>(name: &str, kinds: impl IntoIterator<Item = &'a str>) -> bool {
    let takes = |family: &VariableFamily| {
        family.kinds.is_empty() || kinds.into_iter().any(|kind| family.kinds.contains(&kind))
    };
    family(name).is_some_and(takes)
}

/// The keys of `.dvc/config` that name a file with a credential, by the beginning of the addresses of their
/// remotes, and the variable that takes the file's place.
const CREDENTIAL_FILES: [(&str, &str, Option<&str>); 10] = [
    ("s3", "credentialpath", Some("AWS_ACCESS_KEY_ID")),
    ("s3", "configpath", Some("AWS_ACCESS_KEY_ID")),
    ("gs", "credentialpath", Some("GOOGLE_APPLICATION_CREDENTIALS")),
    ("ssh", "keyfile", Some("SSH_PRIVATE_KEY")),
    ("gdrive", "gdrive_user_credentials_file", Some("GDRIVE_CREDENTIALS_DATA")),
    ("gdrive", "gdrive_service_account_json_file_path", Some("GDRIVE_CREDENTIALS_DATA")),
    ("webdav", "cert_path", None),
    ("webdavs", "cert_path", None),
    ("webdav", "key_path", None),
    ("webdavs", "key_path", None),
];

/// The files of this machine that a remote takes credentials from, each with what names it and what to do
/// instead. Those in whose place there is a variable are not among them.
pub(super) fn files(settings: &Settings) -> Vec<(String, PathBuf, String)> {
    let scheme = settings.url.split_once("://").map_or("", |(scheme, _)| scheme);
    let keys = CREDENTIAL_FILES.iter().filter(|(kind, ..)| *kind == scheme);
    let keys =
        keys.filter(|(.., variable)| variable.is_none_or(|name| !settings.environment.contains_key(name)));
    let mut files: Vec<_> = keys
        .filter_map(|(_, key, variable)| {
            let path = settings.options.get(*key)?.expose_secret();
            let path = Some(path).filter(|path| !path.is_empty()).map(|path| settings.path(path))?;
            let instead = variable.map_or_else(
                || {
                    "let git track the file or INCLUDE name it, or choose another remote by DVC_REMOTE"
                        .to_owned()
                },
                |variable| format!("give what is in it as {variable}, a secured variable of the pipe"),
            );
            Some((format!("'{key}'"), path, instead))
        })
        .collect();
    let google = settings.environment.get("GOOGLE_APPLICATION_CREDENTIALS").filter(|_| scheme == "gs");
    let google = google.map(SecretString::expose_secret);
    if let Some(path) = google.filter(|value| !value.trim_start().starts_with('{')) {
        let instead = "give the file's JSON itself as GOOGLE_APPLICATION_CREDENTIALS".to_owned();
        files.push(("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), settings.path(path), instead));
    }
    files
}

fn family(name: &str) -> Option<&'static VariableFamily> {
    let is = |family: &&VariableFamily| {
        if family.whole { name == family.name } else { name.starts_with(family.name) }
    };
    VARIABLE_FAMILIES.iter().find(is).filter(|_| !UNRELATED_VARIABLES.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each family, with the name of one of its variables.
    fn samples() -> impl Iterator<Item = (&'static VariableFamily, String)> {
        VARIABLE_FAMILIES.iter().map(|family| {
            let name =
                if family.whole { family.name.to_owned() } else { format!("{}SOMETHING", family.name) };
            (family, name)
        })
    }

    #[test]
    fn who_reads_a_variable_and_who_gets_it_is_the_same_table() {
        let kinds = ["s3", "gs", "azure", "oss", "ssh", "gdrive", "http", "https", "webdav", "webdavs"];
        for (family, name) in samples() {
            assert!(is_of_remotes(&name), "{name}");
            for kind in kinds {
                let wanted = family.kinds.is_empty() || family.kinds.contains(&kind);
                assert_eq!(is_for(&name, [kind]), wanted, "{name} and {kind}");
            }
            assert!(family.kinds.is_empty() || !is_for(&name, []), "{name}");
        }
    }

    #[test]
    fn what_is_in_no_row_is_for_nobody() {
        for name in [
            "BITBUCKET_TOKEN",
            "HF_TOKEN",
            "MY_AWS_KEY",
            "HOMEPAGE",
            "STORAGE_EMULATOR_HOST_2",
            "SSH_CIDR",
            "",
        ] {
            assert!(!is_of_remotes(name) && !is_for(name, ["s3", "gs", "ssh"]), "{name}");
        }
    }
}
