//! Which keys of `.dvc/config` each kind of remote takes.

use super::sample::settings;
use trainspot_dvc::remote::open;

type Pairs<'a> = &'a [(&'a str, &'a str)];

async fn refusal(url: &str, options: &[(&str, &str)], environment: &[(&str, &str)]) -> Option<String> {
    open(&settings(url, options, environment)).await.err().map(|error| error.render())
}

/// The keys of every kind of remote in DVC 3.67.1.
const COMMON: &str = "url checksum_jobs jobs worktree no_traverse version_aware verify";

/// Those of each kind.
const KEYS: [(&str, &str); 8] = [
    (
        "s3://b/x",
        "region profile credentialpath configpath endpointurl access_key_id secret_access_key \
        session_token listobjects use_ssl allow_anonymous_login ssl_verify sse sse_kms_key_id \
        sse_customer_algorithm sse_customer_key acl grant_read grant_read_acp grant_write_acp \
        grant_full_control cache_regions read_timeout connect_timeout",
    ),
    ("gs://b/x", "projectname credentialpath endpointurl allow_anonymous_login"),
    (
        "ssh://u@h/x",
        "type port user password ask_password passphrase ask_passphrase keyfile timeout gss_auth \
        allow_agent max_sessions",
    ),
    (
        "azure://c/x",
        "connection_string sas_token account_name account_key tenant_id client_id client_secret \
        allow_anonymous_login exclude_environment_credential exclude_visual_studio_code_credential \
        exclude_shared_token_cache_credential exclude_managed_identity_credential timeout read_timeout \
        connection_timeout",
    ),
    ("oss://b/x", "oss_key_id oss_key_secret oss_endpoint"),
    (
        "https://h/x",
        "auth custom_auth_header user password ask_password ssl_verify method connect_timeout \
        read_timeout",
    ),
    (
        "webdavs://h/x",
        "user password ask_password token bearer_token_command custom_auth_header cert_path key_path \
        timeout ssl_verify",
    ),
    ("/x", "type protected shared slow_link_warning"),
];

const NUMBERS: &str =
    "timeout read_timeout connect_timeout connection_timeout port jobs checksum_jobs max_sessions";

const FLAGS: &str = "use_ssl allow_anonymous_login ssl_verify verify worktree version_aware ask_password ask_passphrase \
    gss_auth allow_agent listobjects cache_regions no_traverse protected slow_link_warning \
    exclude_environment_credential exclude_visual_studio_code_credential \
    exclude_shared_token_cache_credential exclude_managed_identity_credential";

#[tokio::test]
async fn every_key_of_dvc_is_known() {
    let has = |list: &str, key: &str| list.split_whitespace().any(|known| known == key);
    for (url, keys) in KEYS {
        // With a region, or the bucket would be asked for it.
        let region: &[(&str, &str)] = if url.starts_with("s3") { &[("region", "x")] } else { &[] };
        for key in keys.split_whitespace().chain(COMMON.split_whitespace()) {
            let value = match key {
                key if has(NUMBERS, key) => "1",
                key if has(FLAGS, key) => "false",
                _ => "text",
            };
            if let Some(why) = refusal(url, &[region, &[(key, value)]].concat(), &[]).await {
                assert!(!why.contains("is not a key that DVC knows"), "{url} {key}: {why}");
            }
        }
        let why = refusal(url, &[("regoin", "x")], &[]).await.unwrap();
        assert!(
            why.contains("'regoin' of the remote 'store'") && why.contains("is not a key that DVC knows"),
            "{why}"
        );
        for layout in ["version_aware", "worktree"] {
            let why = refusal(url, &[(layout, "true")], &[]).await.unwrap();
            assert!(
                why.contains(layout) && why.contains("is not yet supported") && why.contains("DVC_REMOTE"),
                "{why}"
            );
        }
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_what_to_do() {
    let region = ("region", "eu-west-1");
    let cases: [(&str, Pairs, &str); 17] = [
        ("hdfs://h/x", &[], "is of a kind that is not supported: hdfs://"),
        ("s3://", &[], "names no bucket"),
        (
            "s3://b",
            &[region, ("acl", "private"), ("grant_read", "id=1")],
            "'grant_read' of the remote 'store' (s3://b) and 'acl' exclude each other",
        ),
        ("s3://b", &[region, ("sse_kms_key_id", "k")], "needs 'sse' beside it"),
        ("s3://b", &[region, ("sse_customer_key", "c2hvcnQ=")], "is not 32 bytes in base 64"),
        ("s3://b", &[region, ("access_key_id", "k")], "needs 'secret_access_key' beside it"),
        ("s3://b", &[region, ("use_ssl", "perhaps")], "is neither true nor false"),
        ("s3://b", &[region, ("ssl_verify", "/no/such.pem")], "cannot read /no/such.pem"),
        ("azure://c", &[], "says no account"),
        ("azure://c", &[("account_name", "a"), ("tenant_id", "t")], "needs 'client_id' beside it"),
        ("oss://b", &[], "says no endpoint"),
        ("http://h", &[("auth", "digest")], "which DVC itself no longer supports"),
        ("http://h", &[("auth", "basic"), ("user", "u")], "needs 'user' and 'password' beside it"),
        ("http://h", &[("method", "PATCH")], "is neither POST nor PUT"),
        ("http://h", &[("ask_password", "true")], "nobody is there to be asked"),
        ("webdav://h", &[("bearer_token_command", "get-token")], "commands of a configuration are not run"),
        ("ssh://h/x", &[("gss_auth", "true")], "use a key: 'keyfile'"),
    ];
    for (url, options, expected) in cases {
        let why = refusal(url, options, &[]).await.unwrap_or_else(|| panic!("{url} {options:?} is taken"));
        assert!(why.contains(expected), "{url} {options:?}: {why}");
    }
}

#[tokio::test]
async fn a_password_in_an_address_is_never_shown() {
    let why = refusal("https://ann:hunter2@h/x", &[("odd", "1")], &[]).await.unwrap();
    assert!(why.contains("(https://h/x)") && !why.contains("hunter2"), "{why}");
}
