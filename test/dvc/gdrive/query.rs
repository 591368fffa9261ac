//! Drive's query language, as far as its guide ("Search query terms and operators") describes what is used
//! here.

use super::fake::Node;

#[derive(Debug, PartialEq)]
enum Word {
    Open,
    Close,
    /// A name or an operator.
    Plain(String),
    Text(String),
}

/// Whether a file fits. An error says what Drive would not understand.
pub(super) fn fits(query: &str, node: &Node) -> Result<bool, String> {
    let words = words(query)?;
    let mut words = words.as_slice();
    let fits = any(&mut words, node)?;
    if words.is_empty() { Ok(fits) } else { Err(format!("{words:?} is left over in {query}")) }
}

/// The folders that a query asks about.
pub(super) fn parents(query: &str) -> usize {
    query.matches("in parents").count()
}

fn words(query: &str) -> Result<Vec<Word>, String> {
    let (mut words, mut letters) = (Vec::new(), query.chars().peekable());
    while let Some(letter) = letters.next() {
        words.push(match letter {
            ' ' => continue,
            '(' => Word::Open,
            ')' => Word::Close,
            '\'' => {
                let mut text = String::new();
                loop {
                    match letters.next().ok_or("a text does not end")? {
                        '\'' => break,
                        '\\' => text.push(letters.next().ok_or("a text ends with a backslash")?),
                        other => text.push(other),
                    }
                }
                Word::Text(text)
            }
            '=' => Word::Plain("=".to_owned()),
            first => {
                let mut word = first.to_string();
                while let Some(next) = letters.next_if(|next| !" ()'=".contains(*next)) {
                    word.push(next);
                }
                Word::Plain(word)
            }
        });
    }
    Ok(words)
}

fn any(words: &mut &[Word], node: &Node) -> Result<bool, String> {
    let mut fits = all(words, node)?;
    while took(words, "or") {
        fits |= all(words, node)?;
    }
    Ok(fits)
}

fn all(words: &mut &[Word], node: &Node) -> Result<bool, String> {
    let mut fits = term(words, node)?;
    while took(words, "and") {
        fits &= term(words, node)?;
    }
    Ok(fits)
}

fn term(words: &mut &[Word], node: &Node) -> Result<bool, String> {
    if let [Word::Open, rest @ ..] = *words {
        *words = rest;
        let fits = any(words, node)?;
        let [Word::Close, rest @ ..] = *words else { return Err(format!("no ) before {words:?}")) };
        *words = rest;
        return Ok(fits);
    }
    let [first, operator, second, rest @ ..] = *words else { return Err(format!("no term: {words:?}")) };
    *words = rest;
    let Word::Plain(operator) = operator else { return Err(format!("no operator: {operator:?}")) };
    match (first, operator.as_str(), second) {
        (Word::Text(id), "in", Word::Plain(list)) if list == "parents" => Ok(node.parents.contains(id)),
        // Not told apart: upper and lower case.
        (Word::Plain(field), "=", Word::Text(text)) if field == "name" || field == "title" => {
            Ok(node.name.to_lowercase() == text.to_lowercase())
        }
        (Word::Plain(field), "=", Word::Text(text)) if field == "mimeType" => Ok(node.mime == *text),
        (Word::Plain(field), "=", Word::Plain(value)) if field == "trashed" => {
            Ok(node.trashed.to_string() == *value)
        }
        term => Err(format!("unknown term {term:?}")),
    }
}

fn took(words: &mut &[Word], operator: &str) -> bool {
    match *words {
        [Word::Plain(word), rest @ ..] if word == operator => {
            *words = rest;
            true
        }
        _ => false,
    }
}
