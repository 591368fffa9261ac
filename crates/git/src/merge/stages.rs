//! `dvc.lock` and `dvc.yaml`, merged stage by stage.
//!
//! Each top-level key, and each key below one that holds a mapping (`stages`, `artifacts`), is a piece of
//! text that is taken whole from one side: DVC writes a stage the same whatever stands beside it, so what it
//! would have written after both runs comes out byte for byte. The result is read again as YAML, and holds
//! only if it says of every piece what the side says that the piece was taken from.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The top-level key, and the key below it; the line of the top-level key itself has none.
pub(crate) type PieceName = (String, Option<String>);

/// A part of a document that one side changes as a whole.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    name: PieceName,
    /// Its lines, after the comments and empty lines that stand before it.
    text: String,
}

/// A document as pieces, in their order.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    head: String,
    pieces: Vec<Piece>,
}

/// The branch's text with our changes since the common text; `replaceable` says of a piece that both sides
/// changed whether ours may replace the branch's. `None` where a piece is in conflict, or a text is not
/// understood.
pub(super) fn merge(
    base: &str,
    ours: &str,
    theirs: &str,
    replaceable: &mut dyn FnMut(&PieceName) -> bool,
) -> Option<String> {
    let [base_pieces, our_pieces, their_pieces] = [base, ours, theirs].map(Pieces::read);
    let mut names: Vec<&PieceName> = their_pieces.names().chain(our_pieces.names()).collect();
    names.extend(base_pieces.names());
    let (mut chosen, mut seen) = (Vec::new(), BTreeSet::new());
    for name in names.into_iter().filter(|name| seen.insert(*name)) {
        let [before, own, other] = [&base_pieces, &our_pieces, &their_pieces].map(|side| side.text(name));
        let take_ours = if own == before || own == other {
            false
        } else if other == before || replaceable(name) {
            true
        } else {
            return None;
        };
        chosen.push((name, take_ours));
    }
    let mut merged = Pieces { head: their_pieces.head.clone(), pieces: their_pieces.pieces.clone() };
    for (name, _) in chosen.iter().filter(|(_, take_ours)| *take_ours) {
        merged.set(name, our_pieces.text(name));
    }
    let text = merged.write();
    let sides = [(&base_pieces, base), (&our_pieces, ours), (&their_pieces, theirs)];
    let is_understood = sides.iter().all(|(pieces, text)| values(text).is_some_and(|all| pieces.cover(&all)));
    (is_understood && says_as_chosen(&text, ours, theirs, &chosen)).then_some(text)
}

/// Whether the text says of each piece what the chosen side says of it, and nothing else.
fn says_as_chosen(text: &str, ours: &str, theirs: &str, chosen: &[(&PieceName, bool)]) -> bool {
    let (Some(text), Some(ours), Some(theirs)) = (values(text), values(ours), values(theirs)) else {
        return false;
    };
    let count = |value: &Value| value.as_object().map_or(0, serde_json::Map::len);
    let expected = chosen.iter().all(|((section, key), take_ours)| {
        let side = if *take_ours { &ours } else { &theirs };
        let section = &plain(section);
        match key {
            Some(key) => {
                let below =
                    |value: &Value| value.get(section).and_then(|below| below.get(plain(key))).cloned();
                below(&text) == below(side)
            }
            // A section that is made of pieces is compared by these; only that it is there counts here.
            None if text.get(section).is_some_and(Value::is_object) => side.get(section).is_some(),
            None => text.get(section) == side.get(section),
        }
    });
    let named = |section: &str| {
        chosen.iter().filter(|((name, key), _)| plain(name) == section && key.is_some()).count()
    };
    let is_named = |section: &str| chosen.iter().any(|((name, _), _)| plain(name) == section);
    let mut sections = text.as_object().into_iter().flatten();
    expected
        && sections.all(|(name, value)| is_named(name) && (named(name) == 0 || count(value) <= named(name)))
}

fn values(text: &str) -> Option<Value> {
    if text.trim().is_empty() {
        return Some(Value::Object(serde_json::Map::new()));
    }
    serde_saphyr::from_str(text).ok().filter(Value::is_object)
}

/// A key without its quotes.
fn plain(key: &str) -> String {
    if key.starts_with(['\'', '"']) {
        return serde_saphyr::from_str(key).unwrap_or_else(|_| key.to_owned());
    }
    key.to_owned()
}

impl Pieces {
    /// Cuts a text at its keys. What it makes of a text that is no block of YAML does not survive the check
    /// at the end.
    pub(super) fn read(text: &str) -> Self {
        let mut pieces = Self::default();
        let (mut waiting, mut column, mut section) = (String::new(), None, String::new());
        for line in text.lines() {
            let indent = line.len() - line.trim_start_matches(' ').len();
            let filler = line.trim().is_empty() || line.trim_start().starts_with('#');
            let key = if filler { None } else { key(&line[indent..]) };
            match key {
                Some(key) if indent == 0 => {
                    (section, column) = (key.to_owned(), None);
                    pieces.start((section.clone(), None), &mut waiting);
                    if line.trim_end() != format!("{key}:") {
                        column = Some(usize::MAX);
                    }
                }
                Some(key) if !section.is_empty() && *column.get_or_insert(indent) == indent => {
                    pieces.start((section.clone(), Some(key.to_owned())), &mut waiting);
                }
                // A list below a section, or text that goes on: its keys are not the section's.
                _ if !filler => column = column.or(Some(usize::MAX)),
                _ => {}
            }
            waiting.push_str(line);
            waiting.push('\n');
            if !filler {
                pieces.extend(&mut waiting);
            }
        }
        pieces.extend(&mut waiting);
        pieces
    }

    /// The text of a piece.
    pub(super) fn text(&self, name: &PieceName) -> Option<&str> {
        self.pieces.iter().find(|piece| piece.name == *name).map(|piece| piece.text.as_str())
    }

    /// Whether each key of the document, and each key below one that is cut at its keys, is a piece: what is
    /// not would be lost without a word.
    fn cover(&self, all: &Value) -> bool {
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (section, key) in self.names() {
            names.entry(plain(section)).or_default().extend(key.as_deref().map(plain));
        }
        all.as_object().into_iter().flatten().all(|(section, value)| {
            let mut keys = value.as_object().into_iter().flatten().map(|(key, _)| key);
            names.get(section).is_some_and(|cut| cut.is_empty() || keys.all(|key| cut.contains(key)))
        })
    }

    fn names(&self) -> impl Iterator<Item = &PieceName> {
        self.pieces.iter().map(|piece| &piece.name)
    }

    /// Begins a piece with the comments that stand before it.
    fn start(&mut self, name: PieceName, waiting: &mut String) {
        self.pieces.push(Piece { name, text: std::mem::take(waiting) });
    }

    fn extend(&mut self, waiting: &mut String) {
        let text = self.pieces.last_mut().map_or(&mut self.head, |piece| &mut piece.text);
        text.push_str(&std::mem::take(waiting));
    }

    /// Replaces a piece, removes it, or adds it where DVC adds a stage: at the end of its section.
    fn set(&mut self, name: &PieceName, text: Option<&str>) {
        let at = self.pieces.iter().position(|piece| piece.name == *name);
        match (at, text) {
            (Some(at), Some(text)) => text.clone_into(&mut self.pieces[at].text),
            (Some(at), None) => _ = self.pieces.remove(at),
            (None, Some(text)) => {
                let last = self.pieces.iter().rposition(|piece| piece.name.0 == name.0);
                let at = last.map_or(self.pieces.len(), |last| last + 1);
                self.pieces.insert(at, Piece { name: name.clone(), text: text.to_owned() });
            }
            (None, None) => {}
        }
    }

    fn write(&self) -> String {
        let texts = self.pieces.iter().map(|piece| piece.text.as_str());
        std::iter::once(self.head.as_str()).chain(texts).collect()
    }
}

/// The key that a line begins with, as it is written.
fn key(text: &str) -> Option<&str> {
    if text.starts_with(['-', '?', '{', '[', '&', '*', '!', '|', '>', '%', '@', '`']) {
        return None;
    }
    let end = match text.chars().next().filter(|first| matches!(first, '\'' | '"')) {
        Some(quote) => text[1..].find(quote)? + 2,
        None => text.find(": ").or_else(|| text.trim_end().strip_suffix(':').map(str::len))?,
    };
    let rest = text[end..].strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then_some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "schema: '2.0'\nstages:\n";

    fn stage(name: &str, hash: &str) -> String {
        format!(
            "  {name}:\n    cmd: python {name}.py\n    outs:\n    - path: {name}.bin\n      hash: md5\n      md5: {hash}\n      size: 3\n"
        )
    }

    fn lock(stages: &[(&str, &str)]) -> String {
        LOCK.to_owned() + &stages.iter().map(|(name, hash)| stage(name, hash)).collect::<String>()
    }

    fn merged(base: &str, ours: &str, theirs: &str) -> Option<String> {
        merge(base, ours, theirs, &mut |_| false)
    }

    #[test]
    fn stages_of_both_sides_come_together() {
        let (base, ours, theirs) = (
            lock(&[("a", "0"), ("b", "0")]),
            lock(&[("a", "1"), ("b", "0"), ("c", "3")]),
            lock(&[("a", "0"), ("b", "2"), ("d", "4")]),
        );
        let expected = lock(&[("a", "1"), ("b", "2"), ("d", "4"), ("c", "3")]);
        assert_eq!(merged(&base, &ours, &theirs), Some(expected));
        let (ours, theirs) = (lock(&[("a", "1")]), lock(&[("b@x-1", "2")]));
        assert_eq!(merged("", &ours, &theirs), Some(lock(&[("b@x-1", "2"), ("a", "1")])));
    }

    #[test]
    fn what_is_no_piece_is_not_lost() {
        let base = lock(&[("a", "0")]);
        let indented = lock(&[("a", "1")]).replace('\n', "\n  ");
        let indented = format!("  {}", indented.trim_end());
        assert!(values(&indented).is_some());
        let flow = "{schema: '2.0', stages: {a: {cmd: x}}}\n";
        let half = format!("{base}  ? b\n  : cmd: y\n");
        for other in [&indented, flow, &half] {
            for (ours, theirs) in [(other, &*base), (&base, other)] {
                assert_eq!(merged(&base, ours, theirs), None, "{ours} {theirs}");
            }
        }
        assert_eq!(
            merged("", "\"stages\":\n  'a':\n    cmd: x\n", ""),
            Some("\"stages\":\n  'a':\n    cmd: x\n".to_owned())
        );
    }

    #[test]
    fn lines_of_a_text_in_quotes_that_look_like_keys_do_not_become_keys() {
        let quoted = "a: \"b\n. c:\n  d  a: #x:\n- #y:\n  / cmd:\n- #y:\n   cmd: :. c:\n  d  a: #x#y:\n   cmd: :r-c\" #g\tt\n";
        assert!(values(quoted).is_some());
        assert!([None, Some(String::new())].contains(&merged(quoted, "", quoted)));
    }

    #[test]
    fn a_stage_that_one_side_removed_is_gone() {
        let (base, ours) = (lock(&[("a", "0"), ("b", "0")]), lock(&[("b", "1")]));
        let theirs = lock(&[("a", "0"), ("b", "0"), ("c", "0")]);
        assert_eq!(merged(&base, &ours, &theirs), Some(lock(&[("b", "1"), ("c", "0")])));
    }

    #[test]
    fn a_stage_that_both_changed_is_a_conflict_unless_it_may_be_replaced() {
        let (base, ours, theirs) =
            (lock(&[("a", "0")]), lock(&[("a", "1")]), lock(&[("a", "2"), ("b", "2")]));
        assert_eq!(merged(&base, &ours, &theirs), None);
        let mut asked = Vec::new();
        let replaced = merge(&base, &ours, &theirs, &mut |name| {
            asked.push(name.clone());
            true
        });
        assert_eq!(replaced, Some(lock(&[("a", "1"), ("b", "2")])));
        assert_eq!(asked, [("stages".to_owned(), Some("a".to_owned()))]);
        // Only one side says that the stage is gone.
        assert_eq!(merged(&base, LOCK, &theirs), None);
    }

    #[test]
    fn comments_lists_and_other_sections_of_dvc_yaml() {
        let base = "# the pipeline\nvars:\n- params.yaml\n\nstages:\n  # first\n  a:\n    cmd: |\n      x: 1\n      y\n\nmetrics:\n- m.json\n";
        let ours = base.replace("\nmetrics", "  b:\n    cmd: b\n\nmetrics");
        let theirs = base.replace("x: 1", "x: 2").replace("- m.json", "- m.json\n- n.json");
        let expected = theirs.replace("\nmetrics", "  b:\n    cmd: b\n\nmetrics");
        assert_eq!(merged(base, &ours, &theirs), Some(expected));
        let ours = base.replace("- m.json", "- o.json");
        assert_eq!(merged(base, &ours, &theirs), None);
    }

    #[test]
    fn what_is_not_understood_is_a_conflict() {
        let flow = "stages: {a: {cmd: a}}\n";
        assert_eq!(merged(flow, "stages: {a: {cmd: a}, b: {cmd: b}}\n", "stages: {a: {cmd: c}}\n"), None);
        assert_eq!(merged("a: 1\n", "a: 1\nb: *x\n", "a: 1\nc: 2\n"), None);
        assert_eq!(merged("a: 1\n", "a: 1\na: 2\n", "a: 1\nc: 2\n"), None);
        assert_eq!(merged("- 1\n", "- 1\n- 2\n", "- 1\n- 3\n"), None);
        let tabs = "stages:\n  'a':\n    cmd: x\n";
        assert_eq!(
            merged(tabs, "stages:\n  'a':\n    cmd: y\n", "stages:\n  'a':\n    cmd: x\n  b:\n    cmd: z\n"),
            Some("stages:\n  'a':\n    cmd: y\n  b:\n    cmd: z\n".to_owned())
        );
    }
}
