//! What a server says where nobody has agreed on a form.

/// The longest part of an answer that is worth quoting, in characters.
const QUOTE_LIMIT_CHARS: usize = 300;

/// Text on one line, without markup, and not too long: for a sentence that ends with a server's own words.
#[must_use]
pub fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let plain = if text.trim_start().starts_with('<') { without_tags(&text) } else { text.into_owned() };
    let mut line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(QUOTE_LIMIT_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The words between the tags. The page's head is left out with its styles and scripts: the body says it
/// again.
fn without_tags(page: &str) -> String {
    let body = page.find("<body").map_or(page, |start| &page[start..]);
    let mut text = String::new();
    for piece in body.split('<') {
        text.push_str(piece.split_once('>').map_or(piece, |(_, after)| after));
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_a_line() {
        for (body, expected) in [
            ("plain\n text ", "plain text"),
            (
                "<!DOCTYPE html><html><head><style>p{}</style></head><body><h1>Bad Request (400)</h1>\n</body></html>",
                "Bad Request (400)",
            ),
            ("<Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
            ("", ""),
        ] {
            assert_eq!(quote(body.as_bytes()), expected);
        }
    }

    #[test]
    fn a_long_answer_is_cut_at_a_character() {
        assert_eq!(quote("é".repeat(1000).as_bytes()).chars().count(), QUOTE_LIMIT_CHARS + 1);
        assert_eq!(quote("é".repeat(300).as_bytes()).chars().count(), QUOTE_LIMIT_CHARS);
    }
}
