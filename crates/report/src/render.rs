//! The whole report, and what goes first when it is too long.

use super::fit::{ReportPart, ReportSection, SectionBody, length};
use super::markdown::{MarkdownTable, cell, link, sentence};
use super::{
    MachineSummary, MetricsFile, OutputFile, Plot, Report, ReportLink, ReportedOutcome, compare, numbers,
};

/// Bitbucket's clients agree on 32,768 characters for a comment; this leaves room for what the server adds.
pub const COMMENT_LIMIT_CHARS: usize = 30_000;

/// Bitbucket shows a heading or a table as such only after a blank line.
const BLANK_LINE: &str = "\n\n";

/// The report in at most `limit` characters of Bitbucket's Markdown.
///
/// What does not fit is left out by whole rows, lines and sections, the least important first, and said.
/// A limit too small for the marker and the title gives these alone.
#[must_use]
pub fn render(report: &Report, limit: usize) -> String {
    let head = format!("{}{BLANK_LINE}{}", report.marker, title(report));
    let sections = sections(report);
    let texts: Vec<_> = sections.iter().map(|section| section.fit(usize::MAX)).collect();
    let whole = join(&head, &texts, None);
    if length(&whole) <= limit {
        return whole;
    }
    let all = sections.iter().map(|section| section.part).collect::<Vec<_>>();
    let taken = length(&head) + BLANK_LINE.len() + length(&left_out(&all));
    let Some(room) = limit.checked_sub(taken) else { return head };
    let texts = share_out(&sections, &texts, room);
    let missing = all.iter().zip(&texts).filter(|(_, text)| text.is_none());
    let missing: Vec<ReportPart> = missing.map(|(&part, _)| part).collect();
    let said = (!missing.is_empty()).then(|| left_out(&missing));
    join(&head, &texts, said.as_deref())
}

/// Gives room to the sections, the important ones first. None takes more than half of it from those that
/// come after; what they do not need is its own.
fn share_out(sections: &[ReportSection], whole: &[Option<String>], mut room: usize) -> Vec<Option<String>> {
    let size = |text: &Option<String>| text.as_ref().map_or(0, |text| length(text) + BLANK_LINE.len());
    let mut order: Vec<usize> = (0..sections.len()).collect();
    order.sort_by_key(|&index| sections[index].part);
    let mut texts = vec![None; sections.len()];
    for (rank, &index) in order.iter().enumerate() {
        let needed_later: usize = order[rank + 1..].iter().map(|&later| size(&whole[later])).sum();
        let share = match sections[index].body {
            SectionBody::Whole(_) => room,
            _ => room.saturating_sub(needed_later).max(room / 2),
        };
        texts[index] = sections[index].fit(share.saturating_sub(BLANK_LINE.len()));
        room -= size(&texts[index]);
    }
    texts
}

fn join(head: &str, texts: &[Option<String>], last: Option<&str>) -> String {
    let texts = texts.iter().flatten().map(String::as_str).chain(last);
    std::iter::once(head).chain(texts).collect::<Vec<_>>().join(BLANK_LINE)
}

fn left_out(parts: &[ReportPart]) -> String {
    let mut names: Vec<_> = parts.iter().map(|part| part.name()).collect();
    names.dedup();
    format!("Left out, as the report would be too long: {}.", names.join(", "))
}

/// The sections that have something to show, in the order in which they are read.
fn sections(report: &Report) -> Vec<ReportSection> {
    let section =
        |part, heading: Option<&str>, body| ReportSection { part, heading: heading.map(str::to_owned), body };
    let mut sections = Vec::new();
    if let ReportedOutcome::Failed { why, log_tail, .. } = &report.outcome {
        sections.push(section(
            ReportPart::Why,
            None,
            SectionBody::Whole(format!("**Why:** {}", sentence(why))),
        ));
        sections.push(section(
            ReportPart::Log,
            Some("### End of the log"),
            SectionBody::Log(log_tail.clone()),
        ));
    }
    let own = report.own_markdown.iter().cloned();
    sections.extend(own.map(|markdown| section(ReportPart::Own, None, SectionBody::Own(markdown))));
    sections.extend(report.metrics.iter().flat_map(|file| metrics(file, report.metrics.len() == 1)));
    sections.push(section(
        ReportPart::Plots,
        Some("### Plots"),
        SectionBody::list(report.plots.iter().map(plot)),
    ));
    sections.push(section(
        ReportPart::Outputs,
        Some("### Outputs"),
        SectionBody::table(&outputs(&report.outputs), 0),
    ));
    sections.push(section(
        ReportPart::Notes,
        Some("### Notes"),
        SectionBody::list(report.notes.iter().map(|note| sentence(note))),
    ));
    let machine = report.machine.as_ref().map(|machine| sentence(&machine_line(machine)));
    sections.extend(machine.map(|line| section(ReportPart::Machine, None, SectionBody::Whole(line))));
    if !report.links.is_empty() {
        sections.push(section(ReportPart::Links, None, SectionBody::Whole(links(&report.links))));
    }
    sections.retain(|section| !section.body.is_empty());
    sections
}

fn title(report: &Report) -> String {
    match report.outcome {
        ReportedOutcome::Succeeded(done) => format!("## ✔ {} {}", cell(&report.name), done.word()),
        ReportedOutcome::Failed { failure, .. } => format!("## ✖ {} {}", cell(&report.name), failure.words()),
    }
}

fn metrics(file: &MetricsFile, only: bool) -> impl Iterator<Item = ReportSection> {
    let heading = if only { "### Metrics".to_owned() } else { format!("### {}", cell(&file.path)) };
    let more = file.now.as_ref().map_or(0, super::metrics::Metrics::left_out);
    // What could not be read is not "gone".
    let known = file.now.is_some() || file.problem.is_none();
    let table = known.then(|| SectionBody::table(&compare::table(file), more));
    let problem = file.problem.as_ref().map(|problem| SectionBody::Whole(sentence(problem)));
    // One of the two carries the heading.
    table.into_iter().chain(problem).scan(Some(heading), |heading, body| {
        Some(ReportSection { part: ReportPart::Metrics, heading: heading.take(), body })
    })
}

/// The link always works; whether the image is shown depends on who looks: Bitbucket fetches it without a
/// session.
fn plot(plot: &Plot) -> String {
    let text = link(&plot.path, plot.page.as_deref());
    match &plot.image {
        Some(image) => format!("{text} !{}", link(&plot.path, Some(image))),
        None => text,
    }
}

fn outputs(files: &[OutputFile]) -> MarkdownTable {
    let row = |file: &OutputFile| vec![link(&file.path, file.url.as_deref()), numbers::bytes(file.bytes)];
    MarkdownTable { header: &["Output", "Size"], rows: files.iter().map(row).collect() }
}

/// What it ran on, how long, and for how much, as plain text.
pub(super) fn machine_line(machine: &MachineSummary) -> String {
    let [trained, total] = [machine.trained, machine.total].map(numbers::duration);
    let cost = machine.cost.iter().map(|cost| format!(" · {cost}"));
    format!("{} · trained {trained} · held {total}", machine.description) + &cost.collect::<String>()
}

fn links(links: &[ReportLink]) -> String {
    let links = links.iter().map(|it| link(&it.label, it.url.as_deref()));
    links.collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
pub(super) mod tests;
