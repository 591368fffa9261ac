//! Who asks: a service account, or a user who let an OAuth client of one's own in.
//!
//! The credential is, as for DVC, the JSON in `GDRIVE_CREDENTIALS_DATA`, else the file that
//! `gdrive_service_account_json_file_path` or `gdrive_user_credentials_file` names. What the JSON is decides,
//! whatever `gdrive_use_service_account` says of it. DVC's own OAuth client is never used, as Google blocks
//! it, and no browser is opened.

use super::super::options::Options;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trainspot_base::error::{Context as _, Error, Kind, Result};

/// The token endpoint unless the credential names another one. An assertion names this one as its audience
/// wherever it goes.
const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";
const CREDENTIAL_VARIABLE: &str = "GDRIVE_CREDENTIALS_DATA";
/// How long an assertion is valid: the most that Google allows.
const ASSERTION_LIFETIME: Duration = Duration::from_hours(1);

/// A credential.
pub(super) struct DriveAccount {
    who: Identity,
    pub(super) token_uri: String,
}

enum Identity {
    Service { email: String, key: RsaKeyPair, key_id: Option<String>, user: Option<String> },
    User { client_id: SecretString, client_secret: SecretString, refresh_token: SecretString },
}

/// All that any of the JSON formats says: a service account's key, and a user's credential as written by
/// oauth2client (which DVC 3 has), by google-auth, or by gcloud.
#[derive(Deserialize)]
struct CredentialJson {
    client_email: Option<String>,
    private_key: Option<SecretString>,
    private_key_id: Option<String>,
    client_id: Option<SecretString>,
    client_secret: Option<SecretString>,
    refresh_token: Option<SecretString>,
    token_uri: Option<String>,
}

impl DriveAccount {
    pub(super) fn read(options: &Options<'_>) -> Result<Self> {
        let (from, text) = text(options)?;
        let wrong = |why: &str| Error::new(format!("{from} {why}")).kind(Kind::Configuration);
        // The parser's own words would quote the secret.
        let json: CredentialJson = serde_json::from_str(text.expose_secret()).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            wrong(&format!("is not the JSON of a credential: {place}"))
                .hint("put the whole content of the file there")
        })?;
        let token_uri = json.token_uri.clone().unwrap_or_else(|| TOKEN_ENDPOINT.to_owned());
        let who = match (&json.private_key, &json.client_email, &json.refresh_token) {
            (Some(pem), Some(email), _) => Identity::Service {
                email: email.clone(),
                key: key(pem.expose_secret()).ok_or_else(|| {
                    wrong("holds no private key that can be read")
                        .hint("make a new JSON key of the service account")
                })?,
                key_id: json.private_key_id,
                user: options.text("gdrive_service_account_user_email").map(str::to_owned),
            },
            (_, _, Some(token)) => {
                let client = |own: Option<SecretString>, key: &str| {
                    let own = own.filter(|text| !text.expose_secret().is_empty());
                    own.or_else(|| options.secret(key).cloned()).ok_or_else(|| {
                        wrong(&format!("does not say the OAuth client that it is for, nor does '{key}'"))
                            .hint("set 'gdrive_client_id' and 'gdrive_client_secret' to those of your own OAuth client")
                    })
                };
                Identity::User {
                    refresh_token: token.clone(),
                    client_id: client(json.client_id, "gdrive_client_id")?,
                    client_secret: client(json.client_secret, "gdrive_client_secret")?,
                }
            }
            _ => {
                return Err(wrong(
                    "is neither a service account's key nor a user's credential with a refresh token",
                )
                .hint(CREDENTIAL_HINT));
            }
        };
        Ok(Self { who, token_uri })
    }

    /// The service account's address, for whom a folder has to be shared; none for a user.
    pub(super) fn service(&self) -> Option<&str> {
        match &self.who {
            Identity::Service { email, user: None, .. } => Some(email),
            _ => None,
        }
    }

    /// The user in whose name a service account acts, and its own address.
    pub(super) fn delegated(&self) -> Option<(&str, &str)> {
        match &self.who {
            Identity::Service { email, user: Some(user), .. } => Some((user, email)),
            _ => None,
        }
    }

    /// What to send for an access token of this scope.
    pub(super) fn form(&self, scope: &str) -> Result<Vec<(&'static str, String)>> {
        Ok(match &self.who {
            Identity::Service { .. } => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()),
                ("assertion", self.assertion(scope)?),
            ],
            Identity::User { client_id, client_secret, refresh_token } => vec![
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", client_id.expose_secret().to_owned()),
                ("client_secret", client_secret.expose_secret().to_owned()),
                ("refresh_token", refresh_token.expose_secret().to_owned()),
            ],
        })
    }

    /// The service account's claim to a token, signed: a JWT (RFC 7519, RFC 7523).
    fn assertion(&self, scope: &str) -> Result<String> {
        let Identity::Service { email, key, key_id, user } = &self.who else { return Ok(String::new()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = key_id {
            header["kid"] = json!(id);
        }
        let mut claims = json!({
            "iss": email, "scope": scope, "aud": TOKEN_ENDPOINT,
            "iat": now.as_secs(), "exp": (now + ASSERTION_LIFETIME).as_secs(),
        });
        if let Some(user) = user {
            claims["sub"] = json!(user);
        }
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let claim =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let mut signature = vec![0; key.public_modulus_len()];
        let signed = key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), claim.as_bytes(), &mut signature);
        signed.map_err(|_| Error::new("cannot sign with the service account's key"))?;
        Ok(format!("{claim}.{}", encode(&signature)))
    }
}

const CREDENTIAL_HINT: &str = "set GDRIVE_CREDENTIALS_DATA to the JSON key of a service account, or to the JSON that DVC or gcloud saved for a user of your own OAuth client";

/// The credential's JSON, and where it is from.
fn text(options: &Options<'_>) -> Result<(String, SecretString)> {
    if let Some(text) = options.secret_variable(CREDENTIAL_VARIABLE) {
        return Ok((CREDENTIAL_VARIABLE.to_owned(), text.clone()));
    }
    let mut keys = ["gdrive_user_credentials_file", "gdrive_service_account_json_file_path"];
    if options.flag("gdrive_use_service_account", false)? {
        keys.reverse();
    }
    let Some(path) = keys.into_iter().find_map(|key| options.path(key)) else {
        let error = Error::new(format!("there is no credential for {}", options.place()));
        return Err(error.kind(Kind::Configuration).hint(CREDENTIAL_HINT));
    };
    let read = std::fs::read_to_string(&path)
        .map(SecretString::from)
        .with_context(|| format!("cannot read the credential {}", path.display()));
    Ok((
        path.display().to_string(),
        read.map_err(|error| error.kind(Kind::Configuration).hint(CREDENTIAL_HINT))?,
    ))
}

/// The private key in a PEM. A variable that went through a shell may have lost its line ends to `\n`.
fn key(pem: &str) -> Option<RsaKeyPair> {
    let pem = pem.replace("\\n", "\n");
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()
}
