//! The parts of a report, and how each is made shorter without being broken.

use super::markdown::{MarkdownTable, cut, fence_after, fence_around};
use std::collections::VecDeque;

/// The characters of a log line that are shown: one endless line must not be all that is left of a log.
const MAX_LOG_LINE: usize = 400;

/// A part of the report, set off from the others by blank lines.
pub(super) struct ReportSection {
    pub(super) part: ReportPart,
    /// Its own headline, escaped.
    pub(super) heading: Option<String>,
    pub(super) body: SectionBody,
}

/// The parts of a report. What a reader would miss most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ReportPart {
    Why,
    Machine,
    Links,
    Notes,
    Log,
    Metrics,
    Own,
    Outputs,
    Plots,
}

impl ReportPart {
    /// What it is called where it had to be left out.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Why => "the reason",
            Self::Machine => "the machine",
            Self::Links => "links",
            Self::Notes => "notes",
            Self::Log => "the log",
            Self::Metrics => "metrics",
            Self::Own => "the repository's own report",
            Self::Outputs => "outputs",
            Self::Plots => "plots",
        }
    }
}

/// What a section holds, and so how it is shortened.
pub(super) enum SectionBody {
    /// There as a whole or not at all.
    Whole(String),
    /// A table's or a list's rows under its head, which a list has not. The first rows stay.
    Rows { head: Option<String>, rows: Vec<String>, more: usize },
    /// Lines of a log, shown as they are. The last ones stay.
    Log(Vec<String>),
    /// The repository's own Markdown, whatever is in it. Its beginning stays.
    Own(String),
}

impl SectionBody {
    /// Rows of a table; `more` of them were left out before.
    pub(super) fn table(table: &MarkdownTable, more: usize) -> Self {
        Self::Rows { head: Some(table.head()), rows: table.lines(), more }
    }

    /// A list with one row an item.
    pub(super) fn list(items: impl Iterator<Item = String>) -> Self {
        Self::Rows { head: None, rows: items.map(|item| format!("- {item}")).collect(), more: 0 }
    }
}

impl ReportSection {
    /// As much as `room` characters hold, and what was left out said in it; nothing if that would be all.
    pub(super) fn fit(&self, room: usize) -> Option<String> {
        let Some(heading) = &self.heading else { return self.body.fit(room) };
        let body = self.body.fit(room.checked_sub(length(heading) + 2)?)?;
        Some(format!("{heading}\n\n{body}"))
    }
}

impl SectionBody {
    /// Whether there is nothing to show, however much room there is.
    pub(super) fn is_empty(&self) -> bool {
        self.fit(usize::MAX).is_none()
    }

    fn fit(&self, room: usize) -> Option<String> {
        match self {
            Self::Whole(text) => Some(text.clone()).filter(|text| (1..=room).contains(&length(text))),
            Self::Rows { head, rows, more } => first_rows(head.as_deref(), rows, *more, room),
            Self::Log(lines) => last_lines(lines, room),
            Self::Own(markdown) => beginning(markdown, room),
        }
    }
}

/// Characters, not bytes: that is what Bitbucket counts.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

fn first_rows(head: Option<&str>, rows: &[String], more: usize, room: usize) -> Option<String> {
    let rest = |kept: usize| and_more(rows.len() - kept + more, "row");
    let lines: Vec<&str> = head.into_iter().chain(rows.iter().map(String::as_str)).collect();
    let heads = lines.len() - rows.len();
    // What the first so many lines take, each with its line break.
    let sizes = lines.iter().scan(0, |size, line| {
        *size += length(line) + 1;
        Some(*size)
    });
    let sizes: Vec<usize> = sizes.collect();
    let fits = |kept: &usize| sizes[heads + kept - 1] - 1 + length(&rest(*kept)) <= room;
    let kept = (1..=rows.len()).rev().find(fits)?;
    Some(lines[..heads + kept].join("\n") + &rest(kept))
}

fn and_more(count: usize, noun: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!("\n\n… 1 more {noun}"),
        _ => format!("\n\n… {count} more {noun}s"),
    }
}

fn last_lines(lines: &[String], room: usize) -> Option<String> {
    let lines: Vec<String> = lines.iter().map(|line| cut(&plain(line), MAX_LOG_LINE)).collect();
    let fence = fence_around(lines.iter().map(String::as_str));
    let all = 2 * fence.len() + 1 + lines.iter().map(|line| length(line) + 1).sum::<usize>();
    let said = |left_out: usize| format!("… {left_out} earlier line{}", if left_out == 1 { "" } else { "s" });
    let mut left = room.checked_sub(2 * fence.len() + 1)?;
    let mut kept = VecDeque::new();
    if all > room {
        left = left.checked_sub(length(&said(lines.len())) + 1)?;
    }
    for line in lines.iter().rev() {
        let Some(after) = left.checked_sub(length(line) + 1) else { break };
        left = after;
        kept.push_front(line.as_str());
    }
    if kept.is_empty() {
        return None;
    }
    let earlier = said(lines.len() - kept.len());
    if kept.len() < lines.len() {
        kept.push_front(&earlier);
    }
    let kept: Vec<&str> = kept.into();
    Some(format!("{fence}\n{}\n{fence}", kept.join("\n")))
}

/// A log line as a terminal would leave it: the last state of a progress bar, without colours.
fn plain(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let mut rest = line.rsplit('\r').next().unwrap_or(line).chars();
    let mut plain = String::new();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' if rest.as_str().starts_with('[') => {
                rest.next();
                rest.find(|c| ('@'..='~').contains(c));
            }
            '\t' => plain.push(character),
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// Ends at a line, never between a table's header and the line that makes it one, and closes an open fence.
fn beginning(markdown: &str, room: usize) -> Option<String> {
    let lines: Vec<&str> = markdown.trim_end().trim_start_matches(['\r', '\n']).lines().collect();
    let ending = |kept: usize, open: Option<&str>| {
        let close = open.map_or_else(String::new, |fence| format!("\n{fence}"));
        close + &and_more(lines.len() - kept, "line")
    };
    let mut best = None;
    let (mut size, mut open) = (0, None);
    for (index, line) in lines.iter().enumerate() {
        size += length(line) + usize::from(index > 0);
        open = fence_after(open, line);
        if size > room {
            break;
        }
        let splits_table = open.is_none() && lines.get(index + 1).is_some_and(|next| is_table_rule(next));
        let fits = size + length(&ending(index + 1, open)) <= room;
        if fits && !splits_table && !line.trim().is_empty() {
            best = Some((index + 1, open));
        }
    }
    best.map(|(kept, open)| lines[..kept].join("\n") + &ending(kept, open))
}

fn is_table_rule(line: &str) -> bool {
    line.contains('-') && line.chars().all(|c| "|-: ".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("| {n} |")).collect()
    }

    #[test]
    fn rows_go_from_the_end_and_are_counted() {
        let whole = "| H |\n| 0 |\n| 1 |\n| 2 |";
        assert_eq!(first_rows(Some("| H |"), &rows(3), 0, 23).as_deref(), Some(whole));
        let two = first_rows(Some("| H |"), &rows(30), 0, 51).unwrap();
        assert!(two.ends_with("| 4 |\n\n… 25 more rows"), "{two}");
        assert_eq!(first_rows(None, &rows(2), 0, 10), None);
        assert_eq!(first_rows(None, &rows(1), 1, 99).as_deref(), Some("| 0 |\n\n… 1 more row"));
    }

    #[test]
    fn the_end_of_a_log_stays() {
        let lines: Vec<String> = (0..100).map(|n| format!("step {n}")).collect();
        let log = last_lines(&lines, 58).unwrap();
        assert_eq!(log, "```\n… 97 earlier lines\nstep 97\nstep 98\nstep 99\n```");
        assert_eq!(last_lines(&lines[..2], 22).as_deref(), Some("```\nstep 0\nstep 1\n```"));
        let last = last_lines(&["x".repeat(50), "y".to_owned()], 40);
        assert_eq!(last.as_deref(), Some("```\n… 1 earlier line\ny\n```"));
        assert_eq!(last_lines(&lines, 10), None);
        assert_eq!(last_lines(&[], 100), None);
    }

    #[test]
    fn a_log_is_shown_as_a_terminal_leaves_it() {
        assert_eq!(plain(" 1 %\r99 %\r100 %\r\n"), "100 %");
        assert_eq!(plain("\u{1b}[1;31merror\u{1b}[0m\tü\u{7}"), "error\tü");
        assert_eq!(plain("\u{1b}[31"), "");
        let lines = ["```".to_owned(), "x".repeat(9999)];
        let log = last_lines(&lines, 9999).unwrap();
        assert!(log.starts_with("````\n```\nxxx") && log.ends_with("…\n````"), "{log}");
    }

    #[test]
    fn own_markdown_ends_at_a_line_with_its_fence_closed() {
        let text = "# Title\n\n```\none\ntwo\nthree\n```\nthe end of it";
        assert_eq!(beginning(text, 99).as_deref(), Some(text));
        assert_eq!(beginning(text, 36).as_deref(), Some("# Title\n\n```\none\n```\n\n… 4 more lines"));
        assert_eq!(beginning("```\nnever closed", 99).as_deref(), Some("```\nnever closed\n```"));
        let table = "a\n\n| b |\n|---|\n".to_owned() + &"| c |\n".repeat(9);
        assert_eq!(beginning(&table, 26).as_deref(), Some("a\n\n… 12 more lines"));
        assert_eq!(beginning(&"x".repeat(50), 40), None);
        assert_eq!(beginning(" \n", 40), None);
    }
}
