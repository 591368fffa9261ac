//! The table of variables as people read it: `--help`, the documents' tables, `pipe.yml`.

use super::variables::{
    Action, Provider, Requirement, VARIABLE_GROUPS, VARIABLE_TABLE, ValueKind, VariableSpec,
};
use std::fmt::Write as _;
use trainspot_base::error::Kind;

/// The text of `--help`.
#[must_use]
pub fn usage() -> String {
    let mut text = format!(
        "trainspot {}\n{}\n\nIt takes no arguments. Variables say what to do:\n\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_DESCRIPTION")
    );
    for variable in VARIABLE_TABLE {
        let _ = writeln!(text, "  {} ({})", variable.name, variable.kind.label());
        let _ = writeln!(text, "      {}{}", variable.help.replace('`', ""), presence(variable, ""));
    }
    text.push_str("\nExit codes:\n  0  done\n");
    for kind in Kind::ALL {
        let _ = writeln!(text, "  {}  {}", kind.exit_code(), kind.meaning());
    }
    text.push_str("\nLists come as NAME_COUNT, NAME_0, NAME_1, … as Pipelines passes them, or in one variable:\nseparated by commas or lines, or as a JSON list.\n");
    text
}

/// The tables of the variables that are `shown`: one for each group that has such variables, under a heading
/// of these `marks`.
#[must_use]
pub fn tables(marks: &str, shown: impl Fn(&VariableSpec) -> bool) -> String {
    let table = |(heading, variables): &(&str, &[VariableSpec])| {
        let rows: String = variables.iter().filter(|variable| shown(variable)).map(row).collect();
        let start = "| Variable | Value | Usage |\n| --- | --- | --- |\n";
        (!rows.is_empty()).then(|| format!("{marks} {heading}\n\n{start}{rows}"))
    };
    VARIABLE_GROUPS.iter().filter_map(table).collect::<Vec<_>>().join("\n")
}

fn row(variable: &VariableSpec) -> String {
    let star = if variable.requirement == Requirement::Required { " (*)" } else { "" };
    let value = match variable.kind {
        ValueKind::Choice(words) => format!("`{}`", words.join("`, `")),
        kind => kind.label().to_owned(),
    };
    let (usage, default, only) = (variable.help, presence(variable, "`"), only(variable));
    format!("| `{}`{star} | {value} | {usage}{default}{only} |\n", variable.name)
}

/// The actions that read a variable, as the tables show them; empty if all actions do.
fn only(variable: &VariableSpec) -> String {
    if for_every_action(variable) && variable.providers.len() == Provider::ALL.len() {
        return String::new();
    }
    let aws = variable.providers.len() < Provider::ALL.len();
    let names = variable.actions.iter().map(|action| match action {
        Action::Train if aws => Provider::Aws.name(),
        action => action.name(),
    });
    format!(" _({})_", names.collect::<Vec<_>>().join(", "))
}

/// The documents' table of exit codes.
#[must_use]
pub fn exit_codes() -> String {
    let mut table = String::from("| Code | Meaning |\n| --- | --- |\n| 0 | done |\n");
    for kind in Kind::ALL {
        let _ = writeln!(table, "| {} | {} |", kind.exit_code(), kind.meaning());
    }
    table
}

/// The `variables:` of `pipe.yml`.
#[must_use]
pub fn pipe_variables() -> String {
    let mut list = String::from("variables:\n");
    for variable in VARIABLE_TABLE {
        let _ = writeln!(list, "  - name: {}", variable.name);
        let _ = writeln!(list, "    description: {}", quoted(&variable.help.replace('`', "")));
        let _ = writeln!(list, "    required: {}", required(variable));
        match variable.requirement {
            Requirement::Default(default) => drop(writeln!(list, "    default: {}", quoted(default))),
            _ if variable.inherited => drop(writeln!(list, "    default: ${}", variable.name)),
            _ => {}
        }
    }
    list
}

/// Whether every step must give the variable, whatever the step's action.
fn required(variable: &VariableSpec) -> bool {
    variable.requirement == Requirement::Required
        && for_every_action(variable)
        && variable.providers.len() == Provider::ALL.len()
}

fn for_every_action(variable: &VariableSpec) -> bool {
    variable.actions.len() == Action::ALL.len()
}

fn presence(variable: &VariableSpec, mark: &str) -> String {
    match variable.requirement {
        Requirement::Default(default) => format!(" Default: {mark}{default}{mark}."),
        Requirement::Required if mark.is_empty() => " Required.".to_owned(),
        _ => String::new(),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
