//! Azure Blob Storage.
//!
//! The account is that of `connection_string`, `account_name`, or of `AZURE_STORAGE_CONNECTION_STRING`,
//! `AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`. Its credential is the first of: the connection
//! string's; `tenant_id` with `client_id` and `client_secret`; `account_key`; `sas_token`;
//! `AZURE_STORAGE_KEY` or `AZURE_STORAGE_ACCOUNT_KEY`; `AZURE_STORAGE_SAS_TOKEN`; `AZURE_TENANT_ID` with
//! `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET` or `AZURE_FEDERATED_TOKEN_FILE`; the identity of the machine,
//! where it is Azure's.

use super::super::options::{KnownKeys, Options};
use super::super::{NamedBy, RemoteName, Settings};
use super::transport::{Signing, StoreTransport, context};
use super::{Opened, bucket, needs, operator};
use opendal::services::Azblob;
use reqsign_azure_storage::{
    ClientSecretCredentialProvider, Credential, DefaultCredentialProvider, RequestSigner,
    StaticCredentialProvider,
};
use reqsign_core::{Context, ProvideCredential, Signer};
use secrecy::{ExposeSecret as _, SecretString};
use trainspot_base::error::{Error, Kind, Result};

const AZURE_KEYS: KnownKeys = KnownKeys {
    honoured: &[
        "connection_string",
        "sas_token",
        "account_name",
        "account_key",
        "tenant_id",
        "client_id",
        "client_secret",
        "allow_anonymous_login",
        "exclude_environment_credential",
        "exclude_managed_identity_credential",
        "read_timeout",
        "timeout",
        "connection_timeout",
    ],
    ignored: &["exclude_visual_studio_code_credential", "exclude_shared_token_cache_credential"],
    refused: &[],
};

const CREDENTIAL_VARIABLES: [&str; 8] = [
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_AUTHORITY_HOST",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_MSI_SECRET",
    "AZURE_OBJECT_ID",
    "AZURE_IMDS_ENDPOINT",
];

/// What is known of an account.
#[derive(Default)]
struct AzureAccount {
    endpoint: Option<String>,
    name: Option<String>,
    key: Option<SecretString>,
    sas: Option<SecretString>,
}

impl AzureAccount {
    /// Where requests go.
    fn endpoint(&self) -> Option<String> {
        let usual = || Some(format!("https://{}.blob.core.windows.net", self.name.as_ref()?));
        self.endpoint.clone().or_else(usual)
    }
}

/// Who gets the credential.
pub(super) fn recipient(options: &Options<'_>) -> Result<Option<(String, NamedBy)>> {
    let account = account(options)?;
    let credential = account.key.is_some() || account.sas.is_some() || options.text("tenant_id").is_some();
    if !credential && options.flag("allow_anonymous_login", false)? {
        return Ok(None);
    }
    let configured = ["connection_string", "account_name"].iter().any(|key| options.secret(key).is_some());
    let named_by = if configured { NamedBy::Configuration } else { NamedBy::Step };
    Ok(account.endpoint().map(|url| (url, named_by)))
}

pub(super) fn open(settings: &Settings, place: &RemoteName) -> Result<Opened> {
    let options = Options::check(settings, place, &AZURE_KEYS)?;
    let (container, folder) = bucket(settings, place)?;
    let account = account(&options)?;
    let transport = StoreTransport::new(&options, signing(&options, &account)?)?;
    let endpoint = account.endpoint().ok_or_else(|| {
        let error = Error::new(format!("{place} says no account")).kind(Kind::Configuration);
        error.hint("set AZURE_STORAGE_CONNECTION_STRING, or 'account_name' of the remote")
    })?;
    let mut service =
        Azblob::default().container(container).root(folder).endpoint(&endpoint).skip_signature();
    if let Some(name) = &account.name {
        service = service.account_name(name);
    }
    Ok(Opened { operator: operator(service, place)?, transport, tagged: false })
}

fn account(options: &Options<'_>) -> Result<AzureAccount> {
    let from_environment = !options.flag("exclude_environment_credential", false)?;
    let environment = |names: &[&str]| {
        let mut found =
            names.iter().filter_map(|name| options.secret_variable(name)).filter(|_| from_environment);
        found.next().cloned()
    };
    let said = |key| options.secret(key).cloned();
    let connection = said("connection_string").or_else(|| {
        said("account_name").is_none().then(|| environment(&["AZURE_STORAGE_CONNECTION_STRING"]))?
    });
    if let Some(text) = connection {
        return Ok(connected(text.expose_secret()));
    }
    let name = said("account_name")
        .or_else(|| environment(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]));
    let name = name.map(|name| name.expose_secret().to_owned());
    let key =
        said("account_key").or_else(|| environment(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"]));
    let sas = said("sas_token").or_else(|| environment(&["AZURE_STORAGE_SAS_TOKEN"]));
    Ok(AzureAccount { endpoint: None, name, key, sas })
}

/// What a connection string says. Unknown parts are about other services.
fn connected(text: &str) -> AzureAccount {
    let pairs: Vec<_> = text.split(';').filter_map(|pair| pair.trim().split_once('=')).collect();
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let secret = |name: &str| get(name).map(SecretString::from);
    let name = get("AccountName");
    let protocol = get("DefaultEndpointsProtocol").unwrap_or_else(|| "https".to_owned());
    let suffix = get("EndpointSuffix").unwrap_or_else(|| "core.windows.net".to_owned());
    let endpoint = get("BlobEndpoint").map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    let endpoint = endpoint.or_else(|| Some(format!("{protocol}://{}.blob.{suffix}", name.as_ref()?)));
    AzureAccount { endpoint, name, key: secret("AccountKey"), sas: secret("SharedAccessSignature") }
}

fn signing(options: &Options<'_>, account: &AzureAccount) -> Result<Option<Box<dyn Signing>>> {
    let context = context(options, &[], &CREDENTIAL_VARIABLES)?;
    if let Some(tenant) = options.text("tenant_id").filter(|_| options.secret("connection_string").is_none())
    {
        let need = |key| options.secret(key).ok_or_else(|| needs(options, "tenant_id", key));
        let (client, secret) = (need("client_id")?.expose_secret(), need("client_secret")?.expose_secret());
        let principal = ClientSecretCredentialProvider::new().with_tenant_id(tenant).with_client_id(client);
        return Ok(Some(signer(context, principal.with_client_secret(secret))));
    }
    if let (Some(name), Some(key)) = (&account.name, &account.key) {
        return Ok(Some(signer(
            context,
            StaticCredentialProvider::new_shared_key(name, key.expose_secret()),
        )));
    }
    if let Some(sas) = &account.sas {
        return Ok(Some(signer(
            context,
            StaticCredentialProvider::new_sas_token(sas.expose_secret().trim_start_matches('?')),
        )));
    }
    if options.flag("allow_anonymous_login", false)? {
        return Ok(None);
    }
    let mut found = DefaultCredentialProvider::builder().no_azure_cli();
    if options.flag("exclude_environment_credential", false)? {
        found = found.no_env().no_client_secret().no_client_certificate().no_workload_identity();
    }
    if options.flag("exclude_managed_identity_credential", false)? {
        found = found.no_imds();
    }
    Ok(Some(signer(context, found.build())))
}

fn signer(context: Context, credential: impl ProvideCredential<Credential = Credential>) -> Box<dyn Signing> {
    Box::new(Signer::new(context, credential, RequestSigner::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(secret: Option<&SecretString>) -> Option<&str> {
        secret.map(SecretString::expose_secret)
    }

    #[test]
    fn a_connection_string_says_where_and_who() {
        let account =
            connected("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=aw==;EndpointSuffix=x.net");
        assert_eq!(account.endpoint.as_deref(), Some("https://a.blob.x.net"));
        assert_eq!((account.name.as_deref(), shown(account.key.as_ref())), (Some("a"), Some("aw==")));
        let account = connected("BlobEndpoint=http://127.0.0.1:1/a/;SharedAccessSignature=sv=1&sig=b=");
        assert_eq!(account.endpoint.as_deref(), Some("http://127.0.0.1:1/a"));
        assert_eq!(shown(account.sas.as_ref()), Some("sv=1&sig=b="));
    }
}
