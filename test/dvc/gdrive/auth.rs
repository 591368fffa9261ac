//! Keys, and the endpoint that gives tokens for them.

use super::fake::State;
use super::http::{Answer, Request};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const SERVICE: &str = "trainer@project.iam.gserviceaccount.com";
pub(crate) const USER: &str = "ann@example.com";
pub(crate) const CLIENT: (&str, &str) = ("1234.apps.googleusercontent.com", "the-clients-secret");
pub(crate) const REFRESH: &str = "1//the-refresh-token";
/// What Google's guide says that an assertion is for; older clients say the address that their key names.
const GOOGLE: &str = "https://oauth2.googleapis.com/token";
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/drive", "https://www.googleapis.com/auth/drive.appdata"];

/// A key pair; making one takes a while.
pub(crate) fn key() -> &'static RsaKeyPair {
    static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

/// The same as a PEM.
pub(crate) fn pem(key: &RsaKeyPair) -> String {
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let text = BASE64_STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

/// What a token lets in.
#[derive(Clone)]
pub(crate) struct Token {
    /// An address.
    pub(crate) who: String,
    pub(crate) until: Instant,
    pub(crate) own_data: bool,
}

impl State {
    /// Gives a token for an assertion of a service account, or for a refresh token.
    pub(super) fn token(&mut self, request: &Request) -> Answer {
        let form: BTreeMap<String, String> =
            url::form_urlencoded::parse(&request.body).into_owned().collect();
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let who = match field("grant_type") {
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => self.assertion(field("assertion")),
            "refresh_token" if (field("client_id"), field("client_secret")) != CLIENT => {
                Err((401, "invalid_client", "The OAuth client was not found."))
            }
            "refresh_token" if field("refresh_token") != self.refresh_token => {
                Err((400, "invalid_grant", "Token has been expired or revoked."))
            }
            "refresh_token" => Ok((USER.to_owned(), true)),
            _ => Err((400, "unsupported_grant_type", "Invalid grant_type")),
        };
        match who {
            Ok((who, own_data)) => {
                self.granted += 1;
                let text = format!("ya29.token-{}-{:x}", self.granted, fastrand::u64(..));
                let until = Instant::now() + self.token_life;
                self.tokens.insert(text.clone(), Token { who, until, own_data });
                let life = self.token_life.as_secs();
                Answer::json(
                    200,
                    &json!({ "access_token": text, "expires_in": life, "token_type": "Bearer" }),
                )
            }
            Err((status, error, why)) => {
                Answer::json(status, &json!({ "error": error, "error_description": why }))
            }
        }
    }

    /// Whose assertion it is, and whether it is for the data of a client.
    fn assertion(&self, text: &str) -> Result<(String, bool), (u16, &'static str, &'static str)> {
        let refused = |why| (400, "invalid_grant", why);
        let parts: Vec<_> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else { return Err(refused("Bad assertion")) };
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let json = |text: &str| serde_json::from_slice::<Value>(&decode(text)).unwrap_or_default();
        let (head, claim) = (json(header), json(claims));
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.public_key.as_slice());
        let signed = format!("{header}.{claims}");
        if head["alg"] != "RS256"
            || head["kid"] != "the-key"
            || public.verify(signed.as_bytes(), &decode(signature)).is_err()
        {
            return Err(refused("Invalid JWT Signature."));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (from, until) = (claim["iat"].as_u64().unwrap_or(0), claim["exp"].as_u64().unwrap_or(0));
        if from > now + 300 || until < now || until > from + 3600 {
            return Err(refused(
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.",
            ));
        }
        if claim["iss"] != SERVICE
            || ![self.token_uri().as_str(), GOOGLE].iter().any(|aud| claim["aud"] == *aud)
        {
            return Err(refused("Invalid grant: account not found"));
        }
        let scopes: Vec<_> = claim["scope"].as_str().unwrap_or_default().split(' ').collect();
        if scopes.iter().any(|scope| !SCOPES.contains(scope)) {
            return Err((400, "invalid_scope", "Some requested scopes were invalid."));
        }
        let own_data = scopes.contains(&SCOPES[1]);
        match claim["sub"].as_str() {
            None => Ok((SERVICE.to_owned(), own_data)),
            Some(_) if !self.delegation => Err((
                401,
                "unauthorized_client",
                "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.",
            )),
            Some(USER) => Ok((USER.to_owned(), own_data)),
            Some(_) => Err(refused("Invalid email or User ID")),
        }
    }

    /// Who sent the request; the answer if nobody did that may.
    pub(super) fn caller(&self, request: &Request) -> Result<Token, Answer> {
        let token =
            request.header("authorization").strip_prefix("Bearer ").and_then(|text| self.tokens.get(text));
        token.filter(|token| token.until > Instant::now()).cloned().ok_or_else(|| {
            Answer::error(401, "authError", "Invalid Credentials")
                .with("www-authenticate", "Bearer".to_owned())
        })
    }
}

/// A service account's key file.
pub(crate) fn service_json(token_uri: &str, key: &RsaKeyPair) -> Value {
    json!({
        "type": "service_account", "project_id": "project", "private_key_id": "the-key", "private_key": pem(key),
        "client_email": SERVICE, "client_id": "117", "token_uri": token_uri,
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
    })
}

/// The part of a key that the service knows.
pub(super) fn public(key: &RsaKeyPair) -> Vec<u8> {
    key.public_key().as_ref().to_vec()
}

/// How long tokens are valid.
pub(super) const LIFE: Duration = Duration::from_secs(3599);
