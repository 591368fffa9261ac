//! `.gitignore` and `.dvcignore`, merged line by line.
//!
//! Lines that only exclude may stand in any order, so both sides' lines are kept and ours come last. A line
//! that begins with `!` depends on what stands before it: ours may then only have been added at the end, as
//! `dvc add` does.

/// The branch's text with our changes since the common text, or `None` where the order of lines would decide.
pub(super) fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    let [base_lines, our_lines, their_lines] = [base, ours, theirs].map(lines);
    let appended = our_lines.starts_with(&base_lines);
    let depends_on_order = |lines: &[&[u8]]| lines.iter().any(|line| line.starts_with(b"!"));
    if !appended && [&base_lines, &our_lines, &their_lines].into_iter().any(|lines| depends_on_order(lines)) {
        return None;
    }
    let removed = |line: &&[u8]| base_lines.contains(line) && !our_lines.contains(line);
    let mut merged: Vec<&[u8]> = their_lines.iter().copied().filter(|line| !removed(line)).collect();
    let added = if appended { &our_lines[base_lines.len()..] } else { &our_lines[..] };
    for line in added {
        // A line counts as there only below the last one that takes something back: DVC writes it again then,
        // too.
        let settled = merged.iter().rposition(|line| line.starts_with(b"!")).map_or(0, |last| last + 1);
        if !merged[settled..].contains(line) && (appended || !base_lines.contains(line)) {
            merged.push(line);
        }
    }
    let mut text = merged.join(&b'\n');
    if !text.is_empty() {
        text.push(b'\n');
    }
    Some(text)
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() { Vec::new() } else { text.split(|&byte| byte == b'\n').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, ours: &str, theirs: &str) -> Option<String> {
        let merged = merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes())?;
        Some(String::from_utf8(merged).unwrap())
    }

    #[test]
    fn lines_of_both_sides_are_kept_once() {
        let cases = [
            ("", "/a\n", "/b\n", "/b\n/a\n"),
            ("x\n", "x\n/a\n", "x\n/b\n", "x\n/b\n/a\n"),
            ("x\n", "x\n/a\n", "x\n/a\n", "x\n/a\n"),
            ("x", "x\n/a\n", "x\n/b", "x\n/b\n/a\n"),
            ("x\ny\n", "y\n/a\n", "x\ny\n/b\n", "y\n/b\n/a\n"),
            ("x\ny\n", "x\ny\n/a\n", "y\n", "y\n/a\n"),
            ("x\n", "/a\nx\n", "x\n/b\n", "x\n/b\n/a\n"),
            ("", "/a\n", "", "/a\n"),
        ];
        for (base, ours, theirs, expected) in cases {
            assert_eq!(merged(base, ours, theirs).as_deref(), Some(expected), "{base:?} {ours:?} {theirs:?}");
        }
    }

    #[test]
    fn where_order_decides_only_added_lines_are_merged() {
        assert_eq!(merged("*\n!a\n", "*\n!a\n/b\n", "*\n!a\n!c\n").as_deref(), Some("*\n!a\n!c\n/b\n"));
        assert_eq!(merged("/a\n!/a\n", "/a\n!/a\n/a\n", "/a\n!/a\n").as_deref(), Some("/a\n!/a\n/a\n"));
        assert_eq!(merged("*\n!a\n", "!a\n*\n", "*\n!a\n!c\n"), None);
        assert_eq!(merged("x\n", "y\nx\n", "x\n!z\n"), None);
    }
}
