//! The examples of the documents as configurations.

use super::{documents, fenced, read};
use serde_json::Value;
use trainspot::config::{Config, Train};

/// What a pipe in an example says must be a configuration that the program takes without a word.
#[test]
fn examples_are_good_configurations() {
    let mut pipes = Vec::new();
    for document in documents().iter().map(|file| read(file)) {
        for example in fenced(&document, "yaml") {
            let example: Value =
                serde_saphyr::from_str(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
            find_pipes(&example, Around::default(), &mut pipes);
        }
    }
    let example = read("examples/random-forest/bitbucket-pipelines.yml");
    find_pipes(&serde_saphyr::from_str(&example).unwrap(), Around::default(), &mut pipes);
    assert!(pipes.len() >= 7, "{} pipes", pipes.len());
    let mut trainings = 0;
    for (pipe, around) in pipes {
        let token = around.oidc.then(|| ("BITBUCKET_STEP_OIDC_TOKEN".to_owned(), "a-token".to_owned()));
        let step = [
            ("WORKSPACE", "acme"),
            ("REPO_SLUG", "forest"),
            ("REPO_OWNER_UUID", "{a}"),
            ("REPO_UUID", "{b}"),
            ("BRANCH", "main"),
        ];
        let step = step.map(|(name, value)| (format!("BITBUCKET_{name}"), value.to_owned()));
        let loaded = Config::load(environment(&pipe["variables"]).into_iter().chain(token).chain(step));
        let config = loaded.unwrap_or_else(|problems| panic!("{problems}\n{pipe:#}"));
        assert!(config.warnings.is_empty(), "{:?}\n{pipe:#}", config.warnings);
        // The step of a detached run need not live as long as its training.
        let stays = |train: &Train| around.is_there && train.detach.is_none();
        let Some(train) = config.train.filter(stays) else { continue };
        // A few minutes are for the boot of the machine, and for the run's end.
        let needed = train.max_runtime.as_secs().div_ceil(60) + 15;
        let max_time = around.max_time;
        assert!(max_time.is_some_and(|minutes| minutes >= needed), "max-time is {max_time:?}: {pipe:#}");
        trainings += 1;
    }
    assert!(trainings >= 6, "{trainings} trainings");
}

/// What of a step matters to the pipe in it.
#[derive(Clone, Copy, Default)]
struct Around {
    /// Whether the step is shown at all.
    is_there: bool,
    /// Whether it has a token for OIDC.
    oidc: bool,
    /// In minutes.
    max_time: Option<u64>,
}

/// Each pipe, and its step.
fn find_pipes(value: &Value, around: Around, found: &mut Vec<(Value, Around)>) {
    match value {
        Value::Object(map) if map.contains_key("pipe") => found.push((value.clone(), around)),
        Value::Object(map) => {
            let around = Around {
                is_there: around.is_there || map.contains_key("script"),
                oidc: around.oidc || map.get("oidc") == Some(&Value::Bool(true)),
                max_time: value["max-time"].as_u64().or(around.max_time),
            };
            map.values().for_each(|value| find_pipes(value, around, found));
        }
        Value::Array(items) => items.iter().for_each(|value| find_pipes(value, around, found)),
        _ => {}
    }
}

/// What Pipelines makes of a pipe's `variables`.
fn environment(variables: &Value) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    for (name, value) in variables.as_object().unwrap() {
        if let Some(items) = value.as_array() {
            environment.push((format!("{name}_COUNT"), items.len().to_string()));
            let items = items.iter().enumerate();
            environment.extend(items.map(|(index, item)| (format!("{name}_{index}"), text(name, item))));
        } else {
            environment.push((name.clone(), text(name, value)));
        }
    }
    environment
}

/// The schema of Pipelines takes nothing but strings. `$NAME` is a variable of the repository.
fn text(name: &str, value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("{name}: {value} must be quoted"));
    match name {
        _ if !text.starts_with('$') => text.to_owned(),
        "AWS_DEFAULT_REGION" => "eu-west-1".to_owned(),
        "AWS_OIDC_ROLE_ARN" => "arn:aws:iam::123456789012:role/trainspot".to_owned(),
        // Nobody names a run.
        "RUN" => String::new(),
        _ => format!("a-value-for-{name}"),
    }
}
