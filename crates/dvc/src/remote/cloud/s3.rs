//! S3, and stores that speak like it.
//!
//! | said by | honoured |
//! | --- | --- |
//! | `.dvc/config` | [`S3_KEYS`] |
//! | region | `region`, `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, the bucket's own answer; else `us-east-1` |
//! | endpoint | `endpointurl`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`; then the bucket is in the path |
//! | credential | the config's keys; `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; the profile's keys (`profile`, `AWS_PROFILE`; `credentialpath`, `AWS_SHARED_CREDENTIALS_FILE`, `configpath`, `AWS_CONFIG_FILE`, else `~/.aws`); SSO; `AWS_ROLE_ARN` with `AWS_WEB_IDENTITY_TOKEN_FILE`; the container's; the instance's, by `IMDSv2` |
//!
//! A profile that takes a role (`role_arn` with `source_profile`) is not: its keys are not found.

use super::super::options::{KnownKeys, Options};
use super::super::web::client;
use super::super::{NamedBy, RemoteName, Settings};
use super::transport::{StoreTransport, context};
use super::{Opened, bucket, needs, operator};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderName;
use opendal::services::S3;
use reqsign_aws_v4::{
    DefaultCredentialProvider, ProfileCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use reqsign_core::Signer;
use secrecy::ExposeSecret as _;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Result};

const S3_KEYS: KnownKeys = KnownKeys {
    honoured: &[
        "region",
        "profile",
        "credentialpath",
        "configpath",
        "endpointurl",
        "access_key_id",
        "secret_access_key",
        "session_token",
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
        "read_timeout",
        "connect_timeout",
    ],
    ignored: &["listobjects", "cache_regions"],
    refused: &[],
};

type Builder = <opendal::services::S3Config as opendal::Configurator>::Builder;

const CREDENTIAL_VARIABLES: [&str; 22] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_SSO_ACCOUNT_ID",
    "AWS_SSO_REGION",
    "AWS_SSO_ROLE_NAME",
    "AWS_SSO_START_URL",
];

const GRANT_HEADERS: [(&str, &str); 4] = [
    ("grant_read", "x-amz-grant-read"),
    ("grant_read_acp", "x-amz-grant-read-acp"),
    ("grant_write_acp", "x-amz-grant-write-acp"),
    ("grant_full_control", "x-amz-grant-full-control"),
];

/// The endpoint that tells the region of a bucket.
const GLOBAL_ENDPOINT: &str = "https://s3.amazonaws.com";

pub(super) async fn open(settings: &Settings, place: &RemoteName) -> Result<Opened> {
    let options = Options::check(settings, place, &S3_KEYS)?;
    let (bucket, folder) = bucket(settings, place)?;
    let endpoint = endpoint(&options)?;
    let region = region(&options, bucket, endpoint.is_some()).await?;
    let anonymous = options.flag("allow_anonymous_login", false)?;
    let signer = if anonymous { None } else { Some(signer(&options, &region)?) };
    let mut transport = StoreTransport::new(&options, signer.map(|signer| Box::new(signer) as _))?;
    for (key, header) in GRANT_HEADERS {
        let Some(grant) = options.text(key) else { continue };
        if options.text("acl").is_some() {
            return Err(options.wrong(key, "and 'acl' exclude each other"));
        }
        transport = transport.making(HeaderName::from_static(header), grant)?;
    }
    let mut service = S3::default().bucket(bucket).root(folder).region(&region).skip_signature();
    service = service.disable_config_load().endpoint(endpoint.as_deref().unwrap_or(GLOBAL_ENDPOINT));
    if let Some(acl) = options.text("acl") {
        service = service.default_acl(acl);
    }
    let (service, tagged) = encrypted(&options, service)?;
    Ok(Opened { operator: operator(service, place)?, transport, tagged })
}

/// The service with its encryption, and whether an entity tag still is the MD5.
fn encrypted(options: &Options<'_>, mut service: Builder) -> Result<(Builder, bool)> {
    let mut tagged = true;
    if let Some(kind) = options.text("sse") {
        service = service.server_side_encryption(kind);
        tagged = kind == "AES256";
    }
    if let Some(key) = options.text("sse_kms_key_id") {
        if options.secret("sse_customer_key").is_some() {
            return Err(options.wrong("sse_kms_key_id", "and 'sse_customer_key' exclude each other"));
        }
        if options.text("sse").is_none() {
            return Err(needs(options, "sse_kms_key_id", "sse"));
        }
        service = service.server_side_encryption_aws_kms_key_id(key);
    }
    if let Some(key) = options.secret("sse_customer_key") {
        let key = BASE64_STANDARD.decode(key.expose_secret()).ok().filter(|key| key.len() == 32);
        let key = key.ok_or_else(|| options.wrong("sse_customer_key", "is not 32 bytes in base 64"))?;
        let algorithm = options.text("sse_customer_algorithm").unwrap_or("AES256");
        service = service.server_side_encryption_with_customer_key(algorithm, &key);
        tagged = false;
    } else if options.text("sse_customer_algorithm").is_some() {
        return Err(needs(options, "sse_customer_algorithm", "sse_customer_key"));
    }
    Ok((service, tagged))
}

fn endpoint(options: &Options<'_>) -> Result<Option<String>> {
    let (url, named_by) = goes_to(options)?;
    Ok((named_by != NamedBy::Service || url != GLOBAL_ENDPOINT).then_some(url))
}

/// Where requests go, and who says so.
fn goes_to(options: &Options<'_>) -> Result<(String, NamedBy)> {
    if let Some(url) = options.text("endpointurl") {
        return Ok((url.to_owned(), NamedBy::Configuration));
    }
    let given =
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| options.environment(name));
    if let Some(url) = given {
        return Ok((url.to_owned(), NamedBy::Step));
    }
    // As in boto, an endpoint's own scheme counts for more.
    let global = if options.flag("use_ssl", true)? {
        GLOBAL_ENDPOINT.to_owned()
    } else {
        GLOBAL_ENDPOINT.replacen("https", "http", 1)
    };
    Ok((global, NamedBy::Service))
}

/// Who gets the credential.
pub(super) fn recipient(options: &Options<'_>) -> Result<Option<(String, NamedBy)>> {
    if options.flag("allow_anonymous_login", false)? { Ok(None) } else { goes_to(options).map(Some) }
}

fn signer(options: &Options<'_>, region: &str) -> Result<Signer<reqsign_aws_v4::Credential>> {
    let context = context(options, &[], &CREDENTIAL_VARIABLES)?;
    let request = RequestSigner::new("s3", region);
    if let Some(id) = options.text("access_key_id") {
        let secret = options.secret("secret_access_key");
        let secret = secret.ok_or_else(|| needs(options, "access_key_id", "secret_access_key"))?;
        let mut keys = StaticCredentialProvider::new(id, secret.expose_secret());
        if let Some(token) = options.secret("session_token") {
            keys = keys.with_session_token(token.expose_secret());
        }
        return Ok(Signer::new(context, keys, request));
    }
    let mut files = ProfileCredentialProvider::new();
    if let Some(path) = options.path("credentialpath") {
        files = files.with_credentials_file(path.to_string_lossy());
    }
    if let Some(path) = options.path("configpath") {
        files = files.with_config_file(path.to_string_lossy());
    }
    let mut found = DefaultCredentialProvider::builder();
    if let Some(profile) = options.text("profile") {
        // A profile that is asked for by name wins over the environment's keys, as in boto.
        files = files.with_profile(profile);
        found = found.with_profile(profile).no_env();
    }
    if options.environment("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
    {
        found = found.no_imds();
    }
    Ok(Signer::new(context, found.profile(files).build(), request))
}

/// The bucket's region, which becomes a part of AWS's host name.
async fn region(options: &Options<'_>, bucket: &str, elsewhere: bool) -> Result<String> {
    let region = find_region(options, bucket, elsewhere).await?;
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || b"-_".contains(&letter);
    if region.bytes().all(fits) {
        Ok(region)
    } else {
        Err(options.wrong("region", "is not the name of a region"))
    }
}

async fn find_region(options: &Options<'_>, bucket: &str, elsewhere: bool) -> Result<String> {
    let said = options.text("region").or_else(|| options.environment("AWS_REGION"));
    if let Some(region) = said.or_else(|| options.environment("AWS_DEFAULT_REGION")) {
        return Ok(region.to_owned());
    }
    if let Some(region) = profile_region(options) {
        return Ok(region);
    }
    let asked = if elsewhere { None } else { bucket_region(options, bucket).await? };
    Ok(asked.unwrap_or_else(|| "us-east-1".to_owned()))
}

/// The region of a profile in AWS's configuration file.
fn profile_region(options: &Options<'_>) -> Option<String> {
    let path = options.path("configpath");
    let path = path.or_else(|| options.environment("AWS_CONFIG_FILE").map(|path| options.resolve(path)));
    let path =
        path.or_else(|| options.environment("HOME").map(|home| Path::new(home).join(".aws/config")))?;
    let text = std::fs::read_to_string(path).ok()?;
    let profile = options.text("profile").or_else(|| options.environment("AWS_PROFILE"));
    let section = profile
        .filter(|name| *name != "default")
        .map_or("default".to_owned(), |name| format!("profile {name}"));
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != format!("[{section}]")).skip(1);
    let pairs =
        lines.by_ref().take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('='));
    let mut regions =
        pairs.filter(|(key, _)| key.trim() == "region").map(|(_, value)| value.trim().to_owned());
    regions.next()
}

/// The region that the bucket itself tells, to anybody.
async fn bucket_region(options: &Options<'_>, bucket: &str) -> Result<Option<String>> {
    let ask = client::plain(options)?.head(format!("{GLOBAL_ENDPOINT}/{bucket}")).send();
    let answer = timeout(Duration::from_secs(20), ask).await;
    let answer = answer.with_context(|| format!("no answer about the region of {}", options.place()));
    let answer = answer?.map_err(reqwest::Error::without_url);
    let answer = answer.with_context(|| format!("cannot ask for the region of {}", options.place()))?;
    let told = answer.headers().get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
    Ok(told.map(str::to_owned))
}
