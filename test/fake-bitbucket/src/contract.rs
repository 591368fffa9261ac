//! The contract: Bitbucket's `OpenAPI` 3.0 document, against which each request and each answer is checked.
//!
//! The document is Atlassian's and is not part of this repository. It is looked for at `$TRAINSPOT_CONTRACT`,
//! else beside the repository; without it nothing is checked, and that is said.

use jsonschema::{Draft, Registry, Validator};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

const REQUESTS: &str = "https://contract.invalid/requests";
const ANSWERS: &str = "https://contract.invalid/answers";
/// Parameters that Bitbucket takes wherever it lists something, which the document leaves out of most
/// operations.
const OF_EVERY_LIST: [&str; 5] = ["q", "sort", "page", "pagelen", "fields"];

pub(crate) struct Contract {
    requests: &'static Value,
    answers: &'static Value,
    registry: Registry<'static>,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    /// The contract, read once a process.
    pub(crate) fn load() -> Option<&'static Self> {
        static CONTRACT: OnceLock<Option<Contract>> = OnceLock::new();
        CONTRACT.get_or_init(Self::read).as_ref()
    }

    fn read() -> Option<Self> {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/contract/bitbucket-openapi.json");
        let path =
            std::env::var_os("TRAINSPOT_CONTRACT").map_or_else(|| PathBuf::from(beside), PathBuf::from);
        let Ok(text) = fs::read_to_string(&path) else {
            let what = "Bitbucket's contract is not checked: no OpenAPI document at $TRAINSPOT_CONTRACT";
            skip::skip(&format!("{what} ({})", path.display()));
            return None;
        };
        let mut document: Value = serde_json::from_str(&text).expect("the OpenAPI document is JSON");
        patch_both(&mut document);
        let answers: &'static Value = Box::leak(Box::new(document.clone()));
        patch_requests(&mut document);
        let requests: &'static Value = Box::leak(Box::new(document));
        let registry = Registry::new()
            .draft(Draft::Draft4)
            .add(REQUESTS, requests)
            .and_then(|registry| registry.add(ANSWERS, answers))
            .and_then(jsonschema::RegistryBuilder::prepare)
            .expect("the OpenAPI document resolves");
        Some(Self { requests, answers, registry, validators: Mutex::default() })
    }

    /// What is wrong with a request to `path` (which starts with `/2.0`).
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        query: &[(String, String)],
        body: &[u8],
    ) -> Vec<String> {
        let at = format!("{method} {path}");
        let Some((item, operation, pointer)) = self.operation(method, path) else {
            return vec![format!("{at}: no such operation")];
        };
        let mut found = Vec::new();
        let listed =
            [item, operation].into_iter().filter_map(|level| level["parameters"].as_array()).flatten();
        let known: Vec<&str> = listed
            .filter(|p| p["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        for (name, _) in query {
            let name = name.as_str();
            if !(known.contains(&name) || method == "GET" && OF_EVERY_LIST.contains(&name)) {
                found.push(format!("{at}: no such query parameter: {name}"));
            }
        }
        let place = ["requestBody", "content", "application/json", "schema"];
        let schema = operation.pointer("/requestBody/content/application~1json/schema");
        match (schema, body.is_empty()) {
            (None, true) => {}
            (None, false) => found.push(format!("{at}: takes no body")),
            (Some(_), true) => found.push(format!("{at}: needs a body")),
            (Some(schema), false) => match serde_json::from_slice(body) {
                Ok(body) => {
                    found.extend(self.check(REQUESTS, &pointer, &place, &body, &at));
                    self.unknown(&body, schema, &at, &mut found);
                }
                Err(error) => found.push(format!("{at}: the body is not JSON: {error}")),
            },
        }
        found
    }

    /// What is wrong with an answer that the fake itself gives.
    pub(crate) fn answer(&self, method: &str, path: &str, status: u16, body: &Value) -> Vec<String> {
        let Some((_, operation, pointer)) = self.operation(method, path) else { return Vec::new() };
        let (at, code) = (format!("{method} {path} → {status}"), status.to_string());
        let place = ["responses", &code, "content", "application/json", "schema"];
        if operation["responses"][&code]["content"]["application/json"]["schema"].is_object() {
            return self.check(ANSWERS, &pointer, &place, body, &at);
        }
        if status < 400 {
            let unknown = operation["responses"][&code].is_null();
            return if unknown { vec![format!("{at}: no such answer")] } else { Vec::new() };
        }
        self.check(ANSWERS, &["components", "schemas"].map(str::to_owned), &["error"], body, &at)
    }

    /// The path's item, its operation, and where that is; of several templates that fit, the most literal
    /// one.
    fn operation(&self, method: &str, path: &str) -> Option<(&Value, &Value, [String; 3])> {
        let segments: Vec<&str> = path.strip_prefix("/2.0/")?.trim_end_matches('/').split('/').collect();
        let templates = self.answers["paths"].as_object()?.iter().filter_map(|(template, item)| {
            let parts: Vec<&str> = template.trim_matches('/').split('/').collect();
            let variables = parts.iter().filter(|part| part.starts_with('{')).count();
            let fits = parts.len() == segments.len()
                && parts
                    .iter()
                    .zip(&segments)
                    .all(|(part, segment)| part.starts_with('{') || part == segment);
            fits.then_some((variables, template, item))
        });
        let (_, template, item) = templates.min_by_key(|(variables, ..)| *variables)?;
        let method = method.to_lowercase();
        Some((item, item.get(&method)?, ["paths".into(), template.clone(), method]))
    }

    fn check(
        &self,
        document: &str,
        pointer: &[String],
        place: &[&str],
        body: &Value,
        at: &str,
    ) -> Vec<String> {
        let parts = pointer.iter().map(String::as_str).chain(place.iter().copied());
        let fragment: String = parts.flat_map(|part| ["/".to_owned(), escape(part)]).collect();
        let validator = self.validator(format!("{document}#{fragment}"));
        validator.iter_errors(body).map(|error| format!("{at}: {}: {error}", error.instance_path())).collect()
    }

    fn validator(&self, reference: String) -> Arc<Validator> {
        let mut validators = crate::lock(&self.validators);
        let schema = json!({ "$ref": reference });
        let build = || {
            let options = jsonschema::options().with_draft(Draft::Draft4).with_registry(&self.registry);
            Arc::new(options.build(&schema).expect("a schema of the OpenAPI document compiles"))
        };
        validators.entry(reference).or_insert_with(build).clone()
    }

    /// Names the fields that the schema does not know: the document allows any, so that a misspelt one would
    /// pass.
    fn unknown(&self, value: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
        let schema = self.resolve(schema);
        match value {
            Value::Object(fields) => {
                let mut known = Map::new();
                self.properties(schema, &mut known);
                for (name, field) in fields {
                    match known.get(name) {
                        Some(schema) => self.unknown(field, schema, &format!("{at}: {name}"), found),
                        None if known.is_empty() => {}
                        None => found.push(format!("{at}: no such field: {name}")),
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.unknown(item, &schema["items"], at, found);
                }
            }
            _ => {}
        }
    }

    fn properties(&self, schema: &Value, known: &mut Map<String, Value>) {
        let schema = self.resolve(schema);
        known.extend(schema["properties"].as_object().cloned().unwrap_or_default());
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.properties(part, known);
        }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let target = schema["$ref"].as_str().and_then(|reference| self.requests.pointer(&reference[1..]));
        target.unwrap_or(schema)
    }
}

/// Where the document is plainly wrong.
fn patch_both(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    // A pull request has a description; the document knows it only as its rendered form, `summary`.
    schemas["pullrequest"]["allOf"][1]["properties"]["description"] = json!({ "type": "string" });
    // A report's value may be a boolean, number, text or link; the document says object.
    schemas["report_data"]["properties"]["value"] = json!({});
    // Errors name the fields at fault, which the document does not know but forbids as additional.
    schemas["error"]["properties"]["error"]["properties"]["fields"] = json!({ "type": "object" });
    // Runners are registered and changed by something, which the document leaves out.
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let new = json!({
        "type": "object",
        "required": ["name", "labels"],
        "properties": { "name": { "type": "string" }, "labels": texts },
    });
    let runner = json!({ "$ref": "#/components/schemas/pipeline_runner" });
    for owner in ["repositories/{workspace}/{repo_slug}", "workspaces/{workspace}"] {
        let runners = format!("/{owner}/pipelines-config/runners");
        let body = |schema: &Value| json!({ "content": { "application/json": { "schema": schema } } });
        document["paths"][&runners]["post"]["requestBody"] = body(&new);
        document["paths"][format!("{runners}/{{runner_uuid}}")]["put"]["requestBody"] = body(&runner);
    }
}

/// Where requests are freer than answers: the base of most resources requires `type`, which no client sends.
fn patch_requests(document: &mut Value) {
    if let Some(object) = document["components"]["schemas"]["object"].as_object_mut() {
        object.remove("required");
    }
    // Of the kinds of target, which the document lists without saying where they belong, two are used here,
    // and this one has all fields of the other, `pipeline_commit_target`.
    document["components"]["schemas"]["pipeline"]["allOf"][1]["properties"]["target"] =
        json!({ "$ref": "#/components/schemas/pipeline_ref_target" });
}

/// A segment of a JSON pointer, inside a URI's fragment.
fn escape(segment: &str) -> String {
    let pointer = segment.replace('~', "~0").replace('/', "~1");
    utf8_percent_encode(&pointer, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PULL_REQUESTS: &str = "/2.0/repositories/acme/forest/pullrequests";

    const PIPELINES: &str = "/2.0/repositories/acme/forest/pipelines";
    const RUNNERS: &str = "/2.0/repositories/acme/forest/pipelines-config/runners";
    const RUNNER: &str = "/2.0/workspaces/acme/pipelines-config/runners/%7Ba%7D";

    fn wrong(method: &str, path: &str, query: &str, body: &str) -> Option<String> {
        let contract = Contract::load()?;
        Some(contract.request(method, path, &crate::rest::query(query), body.as_bytes()).join("\n"))
    }

    #[test]
    fn a_right_request_passes_without_its_type() {
        let body = r#"{"title":"t","source":{"branch":{"name":"b"}},"close_source_branch":true}"#;
        let Some(found) = wrong("POST", PULL_REQUESTS, "", body) else { return };
        assert_eq!(found, "");
        assert_eq!(wrong("GET", PULL_REQUESTS, "q=state%3D%22OPEN%22&pagelen=50", "").unwrap(), "");
        let report = r#"{"title":"t","data":[{"title":"a","type":"PERCENTAGE","value":93.5}]}"#;
        let path = "/2.0/repositories/acme/forest/commit/0123abc/reports/trainspot";
        assert_eq!(wrong("PUT", path, "", report).unwrap(), "");
    }

    #[test]
    fn each_kind_of_wrong_request_is_named() {
        let cases = [
            ("GET", "/2.0/repositories/acme/forest/nothing", "", "", "no such operation"),
            ("PATCH", PULL_REQUESTS, "", "", "no such operation"),
            ("GET", PULL_REQUESTS, "pagelength=3", "", "no such query parameter: pagelength"),
            ("POST", PULL_REQUESTS, "q=1", r#"{"title":"t"}"#, "no such query parameter: q"),
            ("POST", PULL_REQUESTS, "", "", "needs a body"),
            ("GET", PULL_REQUESTS, "", "{}", "takes no body"),
            ("POST", PULL_REQUESTS, "", "{", "not JSON"),
            ("POST", PULL_REQUESTS, "", r#"{"title":3}"#, "/title: 3 is not of type"),
            ("POST", PULL_REQUESTS, "", r#"{"titel":"t"}"#, "no such field: titel"),
            ("POST", PULL_REQUESTS, "", r#"{"source":{"branch":{"nam":"b"}}}"#, "nam"),
            ("POST", RUNNERS, "", r#"{"name":"n"}"#, "\"labels\" is a required property"),
            ("POST", RUNNERS, "", r#"{"name":"n","labels":["l"],"label":"l"}"#, "no such field: label"),
            ("POST", RUNNERS, "", "", "needs a body"),
            ("PUT", RUNNER, "", r#"{"state":{"status":"OFF"}}"#, "\"OFF\" is not one of"),
            ("DELETE", RUNNER, "", "{}", "takes no body"),
            ("POST", PIPELINES, "", r#"{"target":{"ref_nam":"b"}}"#, "no such field: ref_nam"),
            ("POST", PIPELINES, "", r#"{"target":{"selector":{"type":"own"}}}"#, "\"own\" is not one of"),
            ("POST", PIPELINES, "", r#"{"variables":[{"name":"a"}]}"#, "no such field: name"),
            ("GET", PIPELINES, "selector=a", "", "no such query parameter: selector"),
        ];
        for (method, path, query, body, expected) in cases {
            let Some(found) = wrong(method, path, query, body) else { return };
            assert!(found.contains(expected), "{method} {path}?{query} {body}: {found:?}");
        }
    }

    #[test]
    fn a_wrong_answer_of_the_fake_is_named() {
        let Some(contract) = Contract::load() else { return };
        let found = |status, body| contract.answer("GET", PULL_REQUESTS, status, &body).join("\n");
        assert!(found(200, json!({ "values": [{ "id": 1 }] })).contains("\"type\" is a required property"));
        assert!(
            found(404, json!({ "error": { "message": "no" } })).contains("\"type\" is a required property")
        );
        assert!(found(204, json!(null)).contains("no such answer"));
        assert_eq!(
            found(400, json!({ "type": "error", "error": { "message": "no", "fields": { "q": ["bad"] } } })),
            ""
        );
    }
}
