//! Words of the program that the documents quote: messages, and lines of its log.

use super::{fenced, read, root};
use std::path::Path;
use trainspot::config::variables::find;

/// Marks a place where the program puts a value in.
const VALUE: char = '…';
/// A literal with fewer letters than this says nothing of a line that it fits.
const LITERAL_LETTERS_LEAST: usize = 5;

/// Messages that are AWS's own.
const WORDS_OF_AWS: [&str; 2] =
    ["is not eligible for Free Tier", "with an explicit deny in a service control policy"];

#[test]
fn troubleshooting_quotes_messages_of_the_program() {
    let literals = literals().join("\n");
    let text = read("docs/troubleshooting.md");
    let (_, tables) = text.split_once("\n## Exit codes\n").unwrap();
    let messages = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let parts: Vec<&str> =
        messages.flat_map(|cell| cell.split('`').step_by(2)).flat_map(fixed_parts).collect();
    assert!(parts.len() >= 40, "{parts:?}");
    let is_unknown = |part: &&&str| !literals.contains(**part) && !WORDS_OF_AWS.contains(*part);
    let unknown: Vec<_> = parts.iter().filter(is_unknown).collect();
    assert!(unknown.is_empty(), "no message of the program has {unknown:#?}");
}

/// The parts of a quoted message that are the same in every run, but for single words, such as AWS's codes.
fn fixed_parts(message: &str) -> impl Iterator<Item = &str> {
    let parts = message.split([VALUE, '\'']).map(|part| part.trim_matches([' ', ':', ',', ';', '.']));
    // A mistake of the configuration begins with its variable.
    let without_variable = |part| match str::split_once(part, ' ') {
        Some((first, rest)) if find(first).is_some() => rest,
        _ => part,
    };
    parts.map(without_variable).filter(|part| part.contains(' '))
}

#[test]
fn the_readme_shows_lines_that_the_program_logs() {
    let literals = literals();
    let readme = read("README.md");
    let logs = fenced(&readme, "text");
    assert_eq!(logs.len(), 2, "a dry run, and a run");
    let of_the_pipe = logs
        .iter()
        .flat_map(|log| log.lines())
        .filter_map(|line| ["INFO: ", "WARNING: ", "✔ "].iter().find_map(|mark| line.strip_prefix(mark)));
    let mut checked = 0;
    for line in of_the_pipe.filter(|line| *line != format!("trainspot {}", super::VERSION)) {
        let is_made_of_one = literals.iter().any(|literal| fits(literal, line));
        assert!(is_made_of_one || is_made_of_two(&literals, line), "nothing logs '{line}'");
        checked += 1;
    }
    assert!(checked >= 20, "{checked} lines");
}

#[test]
fn a_line_fits_the_literal_that_made_it() {
    assert!(fits("sent the workspace: … (… s)", "sent the workspace: 6 files (0.1 s)"));
    assert!(fits("training started", "training started"));
    assert!(!fits("training started", "training starts"));
    assert!(!fits("sent the workspace: … (… s)", "sent the outputs: 6 files (0.1 s)"));
    assert!(!fits("… (…)", "anything (at all)"));
}

/// Whether a literal with values in the place of its marks makes the line.
fn fits(literal: &str, line: &str) -> bool {
    if literal.chars().filter(|letter| letter.is_alphabetic()).count() < LITERAL_LETTERS_LEAST {
        return false;
    }
    let mut parts = literal.split(VALUE);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) if !part.is_empty() => rest = after,
            _ if part.is_empty() => rest = "",
            _ => return false,
        }
    }
    rest.is_empty()
}

/// Whether a line is a region and two literals, as a dry run's "launch" and "a spot machine".
fn is_made_of_two(literals: &[String], line: &str) -> bool {
    let is_literal = |text: &str| literals.iter().any(|literal| literal == text);
    let subject = line.split_once(": ").map_or(line, |(_, subject)| subject);
    let mut cuts = subject.match_indices(' ');
    cuts.any(|(at, _)| is_literal(&subject[..at]) && is_literal(&subject[at + 1..]))
}

/// Every text in quotes of the product's source, with a mark in the place of each value.
fn literals() -> Vec<String> {
    let mut sources = Vec::new();
    for folder in ["src", "crates"] {
        collect(&root().join(folder), &mut sources);
    }
    let mut literals = Vec::new();
    for source in sources {
        // A text that goes on in the next line is one text.
        let mut lines = source.split('\n').map(str::trim).peekable();
        while let Some(line) = lines.next() {
            let mut whole = line.to_owned();
            while whole.ends_with('\\') && lines.peek().is_some() {
                whole.pop();
                whole.push_str(lines.next().unwrap());
            }
            literals.extend(whole.replace("\\\"", "'").split('"').skip(1).step_by(2).map(marked));
        }
    }
    literals
}

fn collect(folder: &Path, sources: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|it| it == "rs") {
            sources.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn marked(literal: &str) -> String {
    let mut marked = String::new();
    let mut rest = literal;
    while let Some((before, after)) = rest.split_once('{') {
        marked.push_str(before);
        marked.push(VALUE);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    marked + rest
}
