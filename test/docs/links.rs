//! Links between the documents, with the headings that they lead to.

use super::{documents, prose, read, root};
use std::path::{Component, Path, PathBuf};

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut anchored = 0;
    for file in documents() {
        let text = read(&file);
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, it)| (path, Some(it)));
            let target = if path.is_empty() { file.clone() } else { beside(&file, path) };
            assert!(root().join(&target).exists(), "{file}: {link} does not exist");
            let Some(anchor) = anchor else { continue };
            let headings = anchors(&read(&target)).into_iter().filter(|heading| heading == anchor).count();
            assert_eq!(headings, 1, "{file}: headings in {target} for #{anchor}");
            anchored += 1;
        }
    }
    assert!(anchored >= 20, "{anchored} links to headings");
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = read("README.md");
    let linked: Vec<&str> = links(&readme).filter_map(|link| link.split('#').next()).collect();
    for page in documents().iter().filter(|file| file.starts_with("docs/")) {
        assert!(linked.contains(&page.as_str()), "README.md has no link to {page}");
    }
}

#[test]
fn anchors_are_those_of_markdown_pages() {
    let text = "# What `DRY_RUN` does, and costs\n```sh\n# no heading\n```\n## A-b: c\n";
    assert_eq!(anchors(text), ["what-dry_run-does-and-costs", "a-b-c"]);
    let text = "see [one](b.md#x), [two](https://example.com/a) and\n```\n[three](c.md)\n```\n";
    assert_eq!(links(text).collect::<Vec<_>>(), ["b.md#x"]);
    assert_eq!(beside("docs/a.md", "../README.md"), "README.md");
}

/// The targets of a document's links, but for those to other sites.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    let outside = move |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    };
    text.lines()
        .filter(outside)
        .flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()))
        .filter(|link| !link.starts_with("https://"))
}

/// The anchors of a document's headings: lower case, spaces as hyphens, no punctuation.
fn anchors(text: &str) -> Vec<String> {
    let text = prose(text);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let plain = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"));
    let is_kept = |letter: &char| letter.is_alphanumeric() || ['-', '_'].contains(letter);
    plain.map(|heading| heading.chars().filter(is_kept).collect()).collect()
}

/// The path in the project of what a document's link names.
fn beside(file: &str, link: &str) -> String {
    let mut path = PathBuf::new();
    for part in Path::new(file).parent().unwrap().join(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.into_os_string().into_string().unwrap()
}
