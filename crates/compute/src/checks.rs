//! The checks of a dry run: a line for each thing that a run needs.

use trainspot_base::error::{Error, Kind, Result};

/// One thing that a run needs, and how its check ended.
#[derive(Debug)]
pub struct Check {
    /// What was checked: something that a run does, such as `push to the repository`, or needs, such as
    /// `credentials for AWS`.
    subject: String,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(Error),
    /// Nobody can tell before a run, or no run depends on it; the reason.
    Open(String),
}

impl Check {
    /// A check that did what a run does: it passed, unless `done` is an error.
    pub fn of<T>(subject: impl Into<String>, done: Result<T>) -> Self {
        let outcome = match done {
            Ok(_) => Outcome::Passed,
            Err(error) => Outcome::Failed(error),
        };
        Self { subject: subject.into(), outcome }
    }

    /// A check that has no answer before a run, or whose failure keeps no run from succeeding; `why` says
    /// which.
    pub fn open(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome: Outcome::Open(why.into()) }
    }

    /// Whether the check failed: a run would fail, too.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    /// The check's lines in the log: `✔`; or `✖` with the error, what is left and what to do next; or `-`
    /// with the reason.
    #[must_use]
    pub fn text(&self) -> String {
        let subject = &self.subject;
        match &self.outcome {
            Outcome::Passed => format!("✔ {subject}"),
            Outcome::Failed(error) => format!("✖ {subject}: {}", indented(&error.render())),
            Outcome::Open(why) => format!("- {subject}: {}", indented(why)),
        }
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

/// The last line of a dry run that made these checks.
///
/// # Errors
/// A check failed: a run would fail, too.
pub fn verdict(checks: &[Check]) -> Result<String> {
    let failed = checks.iter().filter(|check| check.is_failed()).count();
    if failed == 0 {
        return Ok("DRY_RUN: nothing was rented".to_owned());
    }
    Err(Error::new(format!("DRY_RUN: {failed} of {} checks failed; nothing was rented", checks.len()))
        .kind(Kind::Configuration)
        .hint("mend what the lines with ✖ name, and make the dry run again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_has_its_mark_and_its_advice() {
        let passed = Check::of("can push", Ok(()));
        let error = Error::new("cannot end a machine").source(Error::new("denied")).hint("allow it");
        let failed = Check::of::<()>("can end a machine", Err(error));
        let open = Check::open("can take over a machine", "there is none");
        assert_eq!(passed.text(), "✔ can push");
        assert_eq!(failed.text(), "✖ can end a machine: cannot end a machine: denied\n  Next: allow it");
        assert_eq!(open.text(), "- can take over a machine: there is none");
        assert!(verdict(&[]).is_ok());
        assert_eq!(verdict(&[passed, open]).unwrap(), "DRY_RUN: nothing was rented");
        let error = verdict(&[failed]).unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Configuration);
        assert!(error.render().starts_with("DRY_RUN: 1 of 1 checks failed; nothing was rented"));
    }
}
