//! The keys that DVC knows. An unknown one makes each of its commands fail, so a clone's `dvc pull` would,
//! too.

use super::ini::IniValue;
use super::sections::{ConfigSections, SectionValues};
use super::wrong;
use std::collections::BTreeMap;
use trainspot_base::error::Result;

/// The sections that do not decide where outputs go. Only DVC checks their keys.
const UNCHECKED_SECTIONS: [&str; 11] =
    ["state", "index", "machine", "feature", "plots", "exp", "parsing", "hydra", "studio", "db", "remote"];

const CORE_KEYS: &[&str] = &[
    "remote",
    "checksum_jobs",
    "interactive",
    "analytics",
    "hardlink_lock",
    "no_scm",
    "autostage",
    "experiments",
    "check_update",
    "site_cache_dir",
    "machine",
];
const CACHE_KEYS: &[&str] = &[
    "local",
    "s3",
    "gs",
    "hdfs",
    "webhdfs",
    "ssh",
    "azure",
    "dir",
    "type",
    "protected",
    "shared",
    "slow_link_warning",
    "verify",
];
const COMMON_KEYS: &[&str] = &["url", "checksum_jobs", "jobs", "worktree", "no_traverse", "version_aware"];
const LOCAL_KEYS: &[&str] = &["type", "protected", "shared", "slow_link_warning", "verify"];
const S3_KEYS: &[&str] = &[
    "region",
    "profile",
    "credentialpath",
    "configpath",
    "endpointurl",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "listobjects",
    "use_ssl",
    "allow_anonymous_login",
    "ssl_verify",
    "sse",
    "sse_kms_key_id",
    "sse_customer_algorithm",
    "sse_customer_key",
    "acl",
    "grant_read",
    "grant_read_acp",
    "grant_write_acp",
    "grant_full_control",
    "cache_regions",
    "read_timeout",
    "connect_timeout",
    "verify",
];
const GS_KEYS: &[&str] = &["projectname", "credentialpath", "endpointurl", "verify", "allow_anonymous_login"];
const SSH_KEYS: &[&str] = &[
    "type",
    "port",
    "user",
    "password",
    "ask_password",
    "passphrase",
    "ask_passphrase",
    "keyfile",
    "timeout",
    "gss_auth",
    "allow_agent",
    "max_sessions",
    "verify",
];
const AZURE_KEYS: &[&str] = &[
    "connection_string",
    "sas_token",
    "account_name",
    "account_key",
    "tenant_id",
    "client_id",
    "client_secret",
    "allow_anonymous_login",
    "exclude_environment_credential",
    "exclude_visual_studio_code_credential",
    "exclude_shared_token_cache_credential",
    "exclude_managed_identity_credential",
    "verify",
    "timeout",
    "read_timeout",
    "connection_timeout",
];
const OSS_KEYS: &[&str] = &["oss_key_id", "oss_key_secret", "oss_endpoint", "verify"];
const GDRIVE_KEYS: &[&str] = &[
    "profile",
    "gdrive_use_service_account",
    "gdrive_client_id",
    "gdrive_client_secret",
    "gdrive_user_credentials_file",
    "gdrive_service_account_user_email",
    "gdrive_service_account_json_file_path",
    "gdrive_trash_only",
    "gdrive_acknowledge_abuse",
    "verify",
];
const HTTP_KEYS: &[&str] = &[
    "auth",
    "custom_auth_header",
    "user",
    "password",
    "ask_password",
    "ssl_verify",
    "method",
    "connect_timeout",
    "read_timeout",
    "verify",
];
const WEBDAV_KEYS: &[&str] = &[
    "user",
    "password",
    "ask_password",
    "token",
    "bearer_token_command",
    "custom_auth_header",
    "cert_path",
    "key_path",
    "timeout",
    "ssl_verify",
    "verify",
];

/// The kinds of remotes, by the schemes of their addresses, with the keys of each kind beside
/// [`COMMON_KEYS`].
const REMOTE_KINDS: [(&[&str], &[&str]); 9] = [
    (&[""], LOCAL_KEYS),
    (&["s3"], S3_KEYS),
    (&["gs"], GS_KEYS),
    (&["ssh"], SSH_KEYS),
    (&["azure"], AZURE_KEYS),
    (&["oss"], OSS_KEYS),
    (&["gdrive"], GDRIVE_KEYS),
    (&["http", "https"], HTTP_KEYS),
    (&["webdav", "webdavs"], WEBDAV_KEYS),
];

/// Checks the names of all sections, and the keys of `core` and `cache`.
pub(super) fn check_sections(sections: &ConfigSections) -> Result<()> {
    for ((name, _), values) in sections {
        match name.as_str() {
            "core" => drop(check("[core]", values, &[CORE_KEYS])?),
            "cache" => drop(check("[cache]", values, &[CACHE_KEYS])?),
            other if UNCHECKED_SECTIONS.contains(&other) => {}
            other => {
                return Err(wrong(format!(
                    "there is a section in .dvc/config that DVC does not know: [{other}]"
                ))
                .hint("DVC itself would fail, too; correct the section's name or remove it"));
            }
        }
    }
    Ok(())
}

/// Whether a key's value is a credential: it is shown to nobody.
pub(super) fn is_secret(key: &str) -> bool {
    let names_a_file = ["file", "path"].iter().any(|end| key.ends_with(end));
    !names_a_file && (trainspot_base::log::is_secret_name(key) || key == "sas_token")
}

/// The text of a value; none for a list.
pub(super) fn text(value: &IniValue) -> Option<&str> {
    match value {
        IniValue::Text(text) => Some(text),
        IniValue::List(_) => None,
    }
}

/// Checks the keys of a remote, and that it keeps objects under their names. The values come back as text.
pub(super) fn check_remote(name: &str, values: &SectionValues) -> Result<BTreeMap<String, String>> {
    let what = if name.is_empty() { "the DVC remote".to_owned() } else { format!("the DVC remote '{name}'") };
    let url = values.get("url").and_then(text).filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| wrong(format!("{what} has no url in .dvc/config")))?;
    let url = super::path(url);
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if let Some((why, hint)) = unsupported(values) {
        return Err(wrong(format!("{what} {why}")).hint(hint));
    }
    let own =
        REMOTE_KINDS.iter().find(|(kinds, _)| kinds.contains(&scheme)).map_or(LOCAL_KEYS, |(_, own)| own);
    check(&what, values, &[own, COMMON_KEYS])
}

/// Why a remote is one that is not supported, and what to do instead.
pub(super) fn unsupported(values: &SectionValues) -> Option<(String, String)> {
    let url = super::path(values.get("url").and_then(text)?);
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if !REMOTE_KINDS.iter().any(|(kinds, _)| kinds.contains(&scheme)) {
        return Some((
            format!("is of a kind that is not supported: '{scheme}://'"),
            "s3, gs, azure, oss, ssh, http(s), webdav(s), gdrive and local paths are".to_owned(),
        ));
    }
    let on =
        |key: &&str| values.get(*key).and_then(text).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let key = ["version_aware", "worktree"].into_iter().find(on)?;
    Some((
        format!("has `{key} = true`, which is not supported"),
        format!("take `{key}` off it, or choose another remote by DVC_REMOTE"),
    ))
}

/// The values as text, if all of their keys are known. `type` is the only one that may be a list.
fn check(what: &str, values: &SectionValues, known: &[&[&str]]) -> Result<BTreeMap<String, String>> {
    let texts = values.iter().map(|(key, value)| {
        if !known.iter().any(|list| list.contains(&key.as_str())) {
            return Err(wrong(format!("{what} has a key in .dvc/config that DVC does not know: '{key}'"))
                .hint("DVC itself would fail, too; correct the key's name or remove it"));
        }
        match value {
            IniValue::Text(text) => Ok((key.clone(), text.clone())),
            IniValue::List(list) if key == "type" => Ok((key.clone(), list.join(","))),
            IniValue::List(_) => {
                Err(wrong(format!("'{key}' of {what} in .dvc/config is a list, and DVC takes one value"))
                    .hint("put quotes around a value that has a comma"))
            }
        }
    });
    texts.collect()
}
