//! Google's own description of its API: the discovery document of Drive v3, which comes with its Python
//! client.

use super::http::Request;
use super::sample::Scene;
use crate::support::say;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the Python that has DVC and Google's client; the reason where there is none.
pub(crate) fn python() -> Result<&'static Path, &'static str> {
    static BIN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = BIN.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made = Command::new(root.join("scripts/venv.sh"))
            .args(["dvc-gdrive", "test/dvc/gdrive.txt"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("scripts/venv.sh: {error}"))?;
        if !made.status.success() {
            return Err(format!("no Python packages: {}", String::from_utf8_lossy(&made.stderr)));
        }
        Ok(PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()))
    });
    made.as_deref().map_err(String::as_str)
}

fn document() -> Result<&'static Value, &'static str> {
    static DOCUMENT: OnceLock<Result<Value, &'static str>> = OnceLock::new();
    let read = || {
        let find = "import googleapiclient, os; print(os.path.dirname(googleapiclient.__file__))";
        let found = Command::new(python()?.join("python")).args(["-c", find]).output().unwrap();
        let folder = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
        let text = std::fs::read(folder.join("discovery_cache/documents/drive.v3.json")).unwrap();
        Ok(serde_json::from_slice(&text).unwrap())
    };
    DOCUMENT.get_or_init(read).as_ref().map_err(|reason| *reason)
}

/// Fails if a request that was made is not one of Google's description.
pub(crate) fn hold(scene: &Scene) {
    let document = match document() {
        Ok(document) => document,
        Err(reason) => return skip::skip(reason),
    };
    let state = scene.fake.state();
    let requests: Vec<_> = state.requests.iter().filter(|request| request.path.contains("/drive/")).collect();
    for request in &requests {
        if let Err(why) = check(document, request) {
            panic!("{} {} {:?}: {why}", request.method, request.path, request.query);
        }
    }
    say(&format!("gdrive: {} requests as the discovery document wants them", requests.len()));
}

fn check(document: &Value, request: &Request) -> Result<(), String> {
    let methods = document["resources"]["files"]["methods"].as_object().unwrap();
    let upload = request.path.starts_with("/upload/");
    let fits = |method: &&Value| {
        // Its path for resumable uploads is another one, which neither Google's guide nor its client goes.
        let path = if upload {
            method["mediaUpload"]["protocols"]["simple"]["path"].as_str().unwrap_or_default().to_owned()
        } else {
            format!("/{}{}", document["servicePath"].as_str().unwrap(), method["path"].as_str().unwrap())
        };
        method["httpMethod"] == request.method.as_str() && same(&path, &request.path)
    };
    let method = methods.values().find(fits).ok_or("no such method")?;
    for (name, value) in &request.query {
        let own = &method["parameters"][name];
        let known = if own.is_null() { &document["parameters"][name] } else { own };
        if known.is_null() {
            return Err(format!("no parameter {name}"));
        }
        let number = |key: &str| known[key].as_str().and_then(|text| text.parse::<i64>().ok());
        if known["type"] == "integer" {
            let value: i64 = value.parse().map_err(|_| format!("{name} is no number"))?;
            if number("minimum").is_some_and(|least| value < least)
                || number("maximum").is_some_and(|most| value > most)
            {
                return Err(format!("{name} is {value}"));
            }
        }
        if known["type"] == "boolean" && value != "true" && value != "false" {
            return Err(format!("{name} is {value}"));
        }
    }
    let schema = &document["schemas"];
    let file = schema["File"]["properties"].as_object().unwrap();
    let known = |name: &str| file.contains_key(name) || schema["FileList"]["properties"].get(name).is_some();
    let fields = request.asked("fields").split([',', '(', ')']).filter(|field| !field.is_empty());
    if let Some(field) = fields.into_iter().find(|field| !known(field)) {
        return Err(format!("no field {field}"));
    }
    let body = request.json();
    match body.as_object().into_iter().flatten().find(|(name, _)| !file.contains_key(*name)) {
        Some((name, _)) => Err(format!("no property {name}")),
        None => Ok(()),
    }
}

/// Whether a path is one of a template such as `/drive/v3/files/{fileId}`.
fn same(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let part =
        |(template, part): (&&str, &&str)| template.starts_with('{') && !part.is_empty() || template == part;
    template.len() == path.len() && template.iter().zip(&path).all(part)
}
