//! Google Cloud Storage.
//!
//! The credential is the first of: `credentialpath`; `GOOGLE_APPLICATION_CREDENTIALS`, the path of a key or,
//! as a pipeline's variable is a text, the key's JSON itself; `~/.config/gcloud`; that of the machine, where
//! it is Google's. `endpointurl` or `STORAGE_EMULATOR_HOST` lead elsewhere. `projectname` only matters where
//! a bucket is made.

use super::super::options::{KnownKeys, Options};
use super::super::{NamedBy, RemoteName, Settings};
use super::transport::{StoreTransport, context};
use super::{Opened, bucket, operator};
use opendal::services::Gcs;
use reqsign_core::Signer;
use reqsign_google::{
    Credential, DefaultCredentialProvider, FileCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use secrecy::{ExposeSecret as _, SecretString};
use trainspot_base::error::Result;

const GS_KEYS: KnownKeys = KnownKeys {
    honoured: &["credentialpath", "endpointurl", "allow_anonymous_login"],
    ignored: &["projectname"],
    refused: &[],
};

const STORAGE_SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

pub(super) fn open(settings: &Settings, place: &RemoteName) -> Result<Opened> {
    let options = Options::check(settings, place, &GS_KEYS)?;
    let (bucket, folder) = bucket(settings, place)?;
    let anonymous = options.flag("allow_anonymous_login", false)?;
    let signer = if anonymous { None } else { Some(signer(&options)?) };
    let transport = StoreTransport::new(&options, signer.map(|signer| Box::new(signer) as _))?;
    let mut service = Gcs::default()
        .bucket(bucket)
        .root(folder)
        .skip_signature()
        .disable_config_load()
        .disable_vm_metadata();
    let (endpoint, named_by) = goes_to(&options);
    if named_by != NamedBy::Service {
        service = service.endpoint(endpoint.trim_end_matches('/'));
    }
    Ok(Opened { operator: operator(service, place)?, transport, tagged: false })
}

/// Where requests go, and who says so.
fn goes_to(options: &Options<'_>) -> (String, NamedBy) {
    if let Some(url) = options.text("endpointurl") {
        return (url.to_owned(), NamedBy::Configuration);
    }
    match options.environment("STORAGE_EMULATOR_HOST") {
        Some(url) => (url.to_owned(), NamedBy::Step),
        None => ("https://storage.googleapis.com".to_owned(), NamedBy::Service),
    }
}

/// Who gets the credential.
pub(super) fn recipient(options: &Options<'_>) -> Result<Option<(String, NamedBy)>> {
    Ok((!options.flag("allow_anonymous_login", false)?).then(|| goes_to(options)))
}

fn signer(options: &Options<'_>) -> Result<Signer<Credential>> {
    let context =
        context(options, &[("GOOGLE_SCOPE", STORAGE_SCOPE)], &["GOOGLE_APPLICATION_CREDENTIALS", "HOME"])?;
    let request = RequestSigner::new("storage").with_scope(STORAGE_SCOPE);
    // Another machine's path, where the credential came as a variable.
    let given = options.secret_variable("GOOGLE_APPLICATION_CREDENTIALS");
    if let Some(path) = options.path("credentialpath").filter(|path| given.is_none() || path.exists()) {
        let file = FileCredentialProvider::new(path.to_string_lossy()).with_scope(STORAGE_SCOPE);
        return Ok(Signer::new(context, file, request));
    }
    let given = given.map(SecretString::expose_secret);
    if let Some(json) = given.filter(|text| text.trim_start().starts_with('{')) {
        return Ok(Signer::new(
            context,
            StaticCredentialProvider::new(json).with_scope(STORAGE_SCOPE),
            request,
        ));
    }
    Ok(Signer::new(context, DefaultCredentialProvider::new(), request))
}
