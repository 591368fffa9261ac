//! The keys that DVC knows. An unknown one makes each of its commands fail, so a clone's `dvc pull` would, too.

use super::ini::Sections;
use super::wrong;
use crate::error::Result;
use std::collections::BTreeMap;

const CORE: &[&str] = &[
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
const CACHE: &[&str] = &[
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
const COMMON: &[&str] = &["url", "checksum_jobs", "jobs", "worktree", "no_traverse", "version_aware"];
const LOCAL: &[&str] = &["type", "protected", "shared", "slow_link_warning", "verify"];
const S3: &[&str] = &[
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
const GS: &[&str] = &["projectname", "credentialpath", "endpointurl", "verify", "allow_anonymous_login"];
const SSH: &[&str] = &[
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
const AZURE: &[&str] = &[
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
const OSS: &[&str] = &["oss_key_id", "oss_key_secret", "oss_endpoint", "verify"];
const GDRIVE: &[&str] = &[
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
const HTTP: &[&str] = &[
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
const WEBDAV: &[&str] = &[
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

/// Checks the keys of `core` or `cache`.
pub(super) fn check_section(sections: &Sections, name: &str) -> Result<()> {
    let known = if name == "core" { CORE } else { CACHE };
    let values = sections.get(&(name.to_owned(), String::new()));
    check(&format!("[{name}]"), values.into_iter().flatten(), &[known])
}

/// Checks the keys of a remote, and that it keeps objects under their names.
pub(super) fn check_remote(name: &str, values: &BTreeMap<String, String>) -> Result<()> {
    let what = if name.is_empty() { "the DVC remote".to_owned() } else { format!("the DVC remote '{name}'") };
    let url = values.get("url").filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| wrong(format!("{what} has no url in .dvc/config")))?;
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let own = match scheme {
        "" => LOCAL,
        "s3" => S3,
        "gs" => GS,
        "ssh" => SSH,
        "azure" => AZURE,
        "oss" => OSS,
        "gdrive" => GDRIVE,
        "http" | "https" => HTTP,
        "webdav" | "webdavs" => WEBDAV,
        other => {
            return Err(wrong(format!("{what} is of a kind that is not supported: '{other}://'"))
                .hint("s3, gs, azure, oss, ssh, http(s), webdav(s), gdrive and local paths are"));
        }
    };
    check(&what, values, &[own, COMMON])?;
    for key in ["version_aware", "worktree"] {
        if values.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(wrong(format!("{what} has `{key} = true`, which is not supported"))
                .hint(format!("take `{key}` off it, or choose another remote by DVC_REMOTE")));
        }
    }
    Ok(())
}

fn check<'a>(
    what: &str,
    values: impl IntoIterator<Item = (&'a String, &'a String)>,
    known: &[&[&str]],
) -> Result<()> {
    let unknown = values
        .into_iter()
        .map(|(key, _)| key.as_str())
        .find(|key| !known.iter().any(|list| list.contains(key)));
    match unknown {
        None => Ok(()),
        Some(key) => Err(wrong(format!("{what} has a key in .dvc/config that DVC does not know: '{key}'"))
            .hint("DVC itself would fail, too; correct the key's name or remove it")),
    }
}
