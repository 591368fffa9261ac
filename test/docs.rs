//! The documents say what the program does. `UPDATE_DOCS=1` rewrites the parts that are generated.

mod examples;
mod links;
mod messages;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use trainspot::config::{Config, help, variables::VARIABLE_TABLE};
use trainspot_base::error::Kind;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The variables that the README shows; `docs/variables.md` has all.
const ESSENTIAL: [&str; 21] = [
    "ACTION",
    "TRAIN_COMMAND",
    "TRAIN_ENV",
    "OUTPUTS",
    "CHECKPOINTS",
    "MAX_RUNTIME",
    "AWS_OIDC_ROLE_ARN",
    "AWS_DEFAULT_REGION",
    "FALLBACK_REGIONS",
    "INSTANCE_TYPE",
    "GPU",
    "PURCHASE",
    "MAX_COST",
    "IMAGE",
    "STARTUP_SCRIPT",
    "DRY_RUN",
    "DVC_OUTPUTS",
    "DVC_REMOTE",
    "PUBLISH",
    "TARGET_BRANCH",
    "BITBUCKET_ACCESS_TOKEN",
];

const README_LINES_LIMIT: usize = 250;

/// The paths of what is written for people.
fn documents() -> Vec<String> {
    let single = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let beside_code = ["examples/random-forest/README.md", "test/rig/README.md"];
    let files = std::fs::read_dir(root().join("docs")).unwrap();
    let files = files.map(|file| format!("docs/{}", file.unwrap().file_name().into_string().unwrap()));
    let mut pages: Vec<String> =
        files.filter(|file| Path::new(file).extension().is_some_and(|it| it == "md")).collect();
    pages.sort();
    single.into_iter().chain(beside_code).map(str::to_owned).chain(pages).collect()
}

/// Names in capitals that the documents may use although they are not variables of ours.
const FOREIGN: &[&str] = &[
    "AUTH",
    "AWS_REGION",
    "BITBUCKET_CLONE_DIR",
    "BITBUCKET_GIT_HTTP_ORIGIN",
    "BITBUCKET_REPO_SLUG",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BITBUCKET_WORKSPACE",
    "CAP_SYS_PTRACE",
    "CONNECTION_STRING",
    "CREDENTIAL",
    "DSN",
    "ERROR:",
    "FROM",
    "FUZZ_RUNS",
    "GDRIVE_CREDENTIALS_DATA",
    "GET",
    "HEAD",
    "HOME",
    "INFO:",
    "INSTA_UPDATE",
    "JWT",
    "KEY",
    "MUTANTS",
    "NAME",
    "NAME_0",
    "NAME_1",
    "NAME_COUNT",
    "OFFLINE",
    "O_TMPFILE",
    "PASS",
    "PASSWD",
    "PASSWORD",
    "PATH",
    "POST",
    "REPO_TOKEN",
    "PWD",
    "PYTHONUNBUFFERED",
    "SECRET",
    "SSH_KNOWN_HOSTS",
    "SSH_PRIVATE_KEY",
    "TMPDIR",
    "TOKEN",
    "UPDATE_DOCS",
    "WARNING:",
    "CAP_SYS_PTRACE",
    "AWS_ENDPOINT_URL",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares what stands in `file` after `start`, up to `end`, with `wanted`; or puts it there.
fn generated(file: &str, start: &str, end: Option<&str>, wanted: &str) {
    let text = read(file);
    let from = text.find(start).unwrap_or_else(|| panic!("{file} has no {start:?}")) + start.len();
    let to = end.map_or(text.len(), |end| {
        from + text[from..].find(end).unwrap_or_else(|| panic!("{file} has no {end:?}"))
    });
    if text[from..to] == *wanted {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = format!("{}{wanted}{}", &text[..from], &text[to..]);
        return std::fs::write(root().join(file), updated).unwrap();
    }
    let (mut old, mut new) = (text[from..to].lines(), wanted.lines());
    let (is, should_be) = loop {
        let pair = (old.next(), new.next());
        if pair.0 != pair.1 || pair.0.is_none() {
            break (pair.0.unwrap_or("(nothing)"), pair.1.unwrap_or("(nothing)"));
        }
    };
    panic!(
        "{file} differs from the table in src/config/variables after {start:?}:\n  is:        {is}\n  should be: {should_be}\n\
         Run `UPDATE_DOCS=1 cargo test --test integration docs` to rewrite it."
    );
}

// One test, so that two that rewrite the same file do not run at once.
#[test]
fn tables_are_those_of_the_program() {
    let is_essential = |name: &str| ESSENTIAL.contains(&name);
    let essential = format!("{}\n", help::tables("###", |variable| is_essential(variable.name)));
    generated("README.md", "\n<!-- From src/config/variables. -->\n\n", Some("<!-- End. -->\n"), &essential);
    let all = format!("{}\n", help::tables("##", |_| true));
    generated(
        "docs/variables.md",
        "\n<!-- From src/config/variables. -->\n\n",
        Some("<!-- End. -->\n"),
        &all,
    );
    let codes = format!("{}\n", help::exit_codes());
    generated("docs/troubleshooting.md", "\n## Exit codes\n\n", Some("## "), &codes);
    let list = help::pipe_variables();
    generated("pipe.yml", "\nvariables:\n", None, list.strip_prefix("variables:\n").unwrap());
}

#[test]
fn pipe_yml_is_complete() {
    let pipe: Value = serde_saphyr::from_str(&read("pipe.yml")).unwrap();
    assert_eq!(pipe["image"], format!("trainspot/trainspot:{VERSION}"));
    for key in ["name", "description", "category", "repository"] {
        assert!(pipe[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
    }
    for who in ["vendor", "maintainer"] {
        assert!(pipe[who]["name"].is_string() && pipe[who]["website"].is_string(), "{who}");
    }
    assert!(pipe["tags"].as_array().is_some_and(|tags| tags.iter().all(Value::is_string)));
    let names =
        pipe["variables"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap());
    assert!(names.eq(VARIABLE_TABLE.iter().map(|variable| variable.name)));
}

#[test]
fn pipelines_run_in_the_image_that_the_dockerfile_builds_in() {
    let text = read("Dockerfile");
    let dockerfile = text.lines().find_map(|line| line.strip_prefix("FROM ")?.strip_suffix(" AS build"));
    let pipelines: Value = serde_saphyr::from_str(&read("bitbucket-pipelines.yml")).unwrap();
    assert_eq!(pipelines["image"].as_str(), Some(dockerfile.unwrap()));
}

#[test]
fn every_document_is_of_this_version() {
    let with_examples = ["README.md", "pipe.yml", "examples/random-forest/bitbucket-pipelines.yml"];
    let pages = documents().into_iter().filter(|file| file.starts_with("docs/"));
    let mut named = 0;
    for file in with_examples.map(str::to_owned).into_iter().chain(pages) {
        let text = read(&file);
        let images: Vec<&str> = text.split("trainspot/trainspot:").skip(1).collect();
        assert!(!with_examples.contains(&&*file) || !images.is_empty(), "{file} does not name the image");
        named += images.len();
        for image in images {
            let version = image.split(|letter: char| letter.is_whitespace()).next();
            assert_eq!(version, Some(VERSION), "{file} names another version than Cargo.toml");
        }
    }
    assert!(named >= 15, "the image is named {named} times");
    let changelog = read("CHANGELOG.md");
    let mut headings = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    let newest = headings.find(|heading| *heading != "Unreleased");
    assert_eq!(newest, Some(VERSION), "the newest release in CHANGELOG.md");
}

#[test]
fn names_of_variables_exist() {
    let sources = [
        "crates/agent/src/command.rs",
        "crates/bitbucket/src/pipelines/run.rs",
        "src/config/reader/detached.rs",
        "test/skip/src/lib.rs",
        "test/bill/mod.rs",
    ];
    let sources = sources.map(read).concat();
    for file in documents() {
        // A code that holds a backtick itself stands between two of them.
        let text = prose(&read(&file)).replace("`` ` ``", "");
        for code in text.split('`').skip(1).step_by(2) {
            let name = code.split(['=', ' ']).next().unwrap_or_default().trim_start_matches('$');
            let name = if FOREIGN.contains(&name) { name } else { name.trim_end_matches(':') };
            let capitals =
                |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
            if name.len() < 3
                || !name.chars().all(capitals)
                || !name.starts_with(|it: char| it.is_ascii_uppercase())
            {
                continue;
            }
            let ours = VARIABLE_TABLE.iter().any(|variable| variable.name == name);
            let set_by_us = name.starts_with("TRAINSPOT_") && sources.contains(&format!("\"{name}\""));
            assert!(ours || set_by_us || FOREIGN.contains(&name), "{file}: `{code}` is no variable");
        }
    }
}

#[test]
fn the_definition_shows_the_variables_of_the_readme() {
    let readme = read("README.md");
    let (_, from_definition) = readme.split_once("\n## YAML Definition\n").unwrap();
    let definition = fenced(from_definition, "yaml").into_iter().next().unwrap();
    let names = definition.lines().filter_map(|line| line.trim_start_matches([' ', '#']).split_once(':'));
    let names: BTreeSet<&str> =
        names.map(|(name, _)| name).filter(|name| name.starts_with(|it: char| it.is_uppercase())).collect();
    assert_eq!(names, BTreeSet::from(ESSENTIAL));
}

/// Pipelines passes the defaults in `pipe.yml` on as if the user had written them.
#[test]
fn the_defaults_of_pipe_yml_are_taken_without_a_word() {
    let pipe: Value = serde_saphyr::from_str(&read("pipe.yml")).unwrap();
    let defaults: Vec<(String, String)> = pipe["variables"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["default"].as_str()?)))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(defaults.len() > 10);
    // No such variable in the repository: the shell makes nothing of it. Should Pipelines not ask a shell, it
    // stays.
    let empty = |value: &String| if value.starts_with('$') { String::new() } else { value.clone() };
    let expanded: Vec<_> = defaults.iter().map(|(name, value)| (name.clone(), empty(value))).collect();
    assert_ne!(defaults, expanded);
    for own in [
        &[
            ("TRAIN_COMMAND", "true"),
            ("OUTPUTS", "x"),
            ("INSTANCE_TYPE", "m5.large"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
        ] as &[_],
        &[("TRAIN_COMMAND", "true"), ("OUTPUTS", "x"), ("CLOUD", "local")],
        &[("ACTION", "publish"), ("OUTPUTS", "x")],
        &[
            ("ACTION", "runner"),
            ("INSTANCE_TYPE", "m5.large"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("BITBUCKET_ACCESS_TOKEN", "a-token"),
            ("BITBUCKET_WORKSPACE", "acme"),
            ("BITBUCKET_REPO_SLUG", "forest"),
            ("BITBUCKET_REPO_OWNER_UUID", "{a}"),
            ("BITBUCKET_REPO_UUID", "{b}"),
        ],
        &[("ACTION", "sweep"), ("AWS_DEFAULT_REGION", "eu-west-1")],
        &[
            ("TRAIN_COMMAND", "true"),
            ("OUTPUTS", "x"),
            ("INSTANCE_TYPE", "m5.large"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("DETACH", "true"),
            ("STORE", "s3://models"),
            ("INSTANCE_PROFILE", "machine"),
            ("RUN", "$TRAINSPOT_RUN"),
        ],
        &[("ACTION", "status"), ("STORE", "s3://models"), ("AWS_DEFAULT_REGION", "eu-west-1")],
        &[
            ("ACTION", "stop"),
            ("STORE", "s3://models"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("RUN", "0123456789abcdef"),
        ],
    ] {
        let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        for defaults in [&defaults, &expanded] {
            let config = Config::load(defaults.iter().cloned().chain(own.clone())).unwrap();
            assert_eq!(config.warnings, Vec::<String>::new());
            assert!(
                config.secrets.iter().all(|secret| !secret.value.expose_secret().starts_with('$')),
                "{:?}",
                config.secrets
            );
        }
    }
}

/// Paths of the source, as in the picture and the lists of `ARCHITECTURE.md`.
#[test]
fn documents_name_files_that_exist() {
    let text: String = documents().iter().map(|file| read(file) + "\n").collect();
    let paths = text.split(['`', ' ', '\n', '(', ')', ',', ';']);
    let paths: BTreeSet<PathBuf> = paths
        .filter(|word| ["src/", "crates/", "test/"].iter().any(|folder| word.starts_with(folder)))
        .map(|word| PathBuf::from(word.trim_end_matches(['.', ':'])))
        .collect();
    assert!(paths.len() >= 10, "{paths:?}");
    for path in paths {
        assert!(root().join(&path).exists(), "{} does not exist", path.display());
    }
}

#[test]
fn a_newcomer_finds_the_two_commands_at_once() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_LIMIT, "README.md has {lines} lines");
    let first_screen: Vec<&str> = readme.lines().take(40).collect();
    for command in ["make demo", "make test"] {
        assert!(first_screen.iter().any(|line| line.contains(command)), "{command}");
    }
}

#[test]
fn help_names_every_variable_and_exit_code() {
    let output = Command::new(env!("CARGO_BIN_EXE_trainspot")).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for variable in VARIABLE_TABLE {
        assert!(text.contains(&format!("\n  {} (", variable.name)), "{}", variable.name);
    }
    for kind in Kind::ALL {
        assert!(text.contains(&format!("\n  {}  {}\n", kind.exit_code(), kind.meaning())), "{kind:?}");
    }
}

/// The text without its fenced blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let outside = |line: &&str| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    };
    text.lines().filter(outside).collect::<Vec<_>>().join("\n")
}

/// The fenced blocks of a language.
fn fenced<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}
