//! Alibaba Cloud's Object Storage Service.
//!
//! The credential is `oss_key_id` with `oss_key_secret`, or `OSS_ACCESS_KEY_ID`, `OSS_ACCESS_KEY_SECRET` and,
//! for a temporary one, `OSS_SESSION_TOKEN`. The endpoint is `oss_endpoint` or `OSS_ENDPOINT`.

use super::super::options::{KnownKeys, Options};
use super::super::{NamedBy, RemoteName, Settings};
use super::transport::{StoreTransport, context};
use super::{Opened, bucket, needs, operator};
use opendal::services::Oss;
use reqsign_aliyun_oss::{EnvCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::Signer;
use secrecy::ExposeSecret as _;
use trainspot_base::error::{Error, Kind, Result};

const OSS_KEYS: KnownKeys =
    KnownKeys { honoured: &["oss_key_id", "oss_key_secret", "oss_endpoint"], ignored: &[], refused: &[] };

const CREDENTIAL_VARIABLES: [&str; 3] = ["OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN"];

pub(super) fn open(settings: &Settings, place: &RemoteName) -> Result<Opened> {
    let options = Options::check(settings, place, &OSS_KEYS)?;
    let (bucket, folder) = bucket(settings, place)?;
    let (endpoint, _) = endpoint(&options).ok_or_else(|| {
        let error = Error::new(format!("{place} says no endpoint")).kind(Kind::Configuration);
        error.hint("set 'oss_endpoint' of the remote, such as https://oss-eu-central-1.aliyuncs.com")
    })?;
    let context = context(&options, &[], &CREDENTIAL_VARIABLES)?;
    let request = RequestSigner::new(bucket);
    let signer = match options.text("oss_key_id") {
        Some(id) => {
            let secret = options.secret("oss_key_secret");
            let secret = secret.ok_or_else(|| needs(&options, "oss_key_id", "oss_key_secret"))?;
            Signer::new(context, StaticCredentialProvider::new(id, secret.expose_secret()), request)
        }
        None => Signer::new(context, EnvCredentialProvider::new(), request),
    };
    let transport = StoreTransport::new(&options, Some(Box::new(signer)))?;
    let service = Oss::default().bucket(bucket).root(folder).endpoint(&endpoint).skip_signature();
    // An emulator that knows its buckets by path is addressed by that; the service itself by name only.
    let service = if endpoint.contains("://127.") || endpoint.contains("://localhost") {
        service.addressing_style("path")
    } else {
        service
    };
    Ok(Opened { operator: operator(service, place)?, transport, tagged: true })
}

/// Where requests go, and who says so.
pub(super) fn endpoint(options: &Options<'_>) -> Option<(String, NamedBy)> {
    let said = options.text("oss_endpoint").map(|url| (url.to_owned(), NamedBy::Configuration));
    said.or_else(|| Some((options.environment("OSS_ENDPOINT")?.to_owned(), NamedBy::Step)))
}
