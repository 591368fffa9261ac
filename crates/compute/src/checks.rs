//! The checks of a dry run: a line for each thing that a run needs.

use trainspot_base::error::{Error, Kind, Result};

/// The check of one thing that a run needs, and its outcome.
#[derive(Debug)]
pub struct Check {
    /// What was checked: something that a run does, such as `push to the repository`, or needs, such as
    /// `credentials for AWS`.
    subject: String,
    outcome: CheckOutcome,
}

#[derive(Debug)]
enum CheckOutcome {
    Passed,
    Failed(Error),
    /// Not known before a run, or no run depends on it; with the reason.
    Unverified(String),
}

impl Check {
    /// A check that did what a run does: it passed, unless `result` is an error.
    pub fn from_result<T>(subject: impl Into<String>, result: Result<T>) -> Self {
        let outcome = match result {
            Ok(_) => CheckOutcome::Passed,
            Err(error) => CheckOutcome::Failed(error),
        };
        Self { subject: subject.into(), outcome }
    }

    /// A check that has no answer before a run, or whose failure keeps no run from succeeding; `why` says
    /// which.
    pub fn unverified(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome: CheckOutcome::Unverified(why.into()) }
    }

    /// Whether the check failed: a run would fail, too.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, CheckOutcome::Failed(_))
    }

    /// The check's lines in the log: `✔`; or `✖` with the error, what is left and what to do next; or `-`
    /// with the reason.
    #[must_use]
    pub fn text(&self) -> String {
        let subject = &self.subject;
        match &self.outcome {
            CheckOutcome::Passed => format!("✔ {subject}"),
            CheckOutcome::Failed(error) => format!("✖ {subject}: {}", indented(&error.render())),
            CheckOutcome::Unverified(why) => format!("- {subject}: {}", indented(why)),
        }
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

/// The last line of a dry run, from all its checks.
///
/// # Errors
/// At least one check failed: a run would fail, too.
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
        let passed = Check::from_result("can push", Ok(()));
        let error = Error::new("cannot end a machine").source(Error::new("denied")).hint("allow it");
        let failed = Check::from_result::<()>("can end a machine", Err(error));
        let unverified = Check::unverified("can take over a machine", "there is none");
        assert_eq!(passed.text(), "✔ can push");
        assert_eq!(failed.text(), "✖ can end a machine: cannot end a machine: denied\n  Next: allow it");
        assert_eq!(unverified.text(), "- can take over a machine: there is none");
        assert!(verdict(&[]).is_ok());
        assert_eq!(verdict(&[passed, unverified]).unwrap(), "DRY_RUN: nothing was rented");
        let error = verdict(&[failed]).unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Configuration);
        assert!(error.render().starts_with("DRY_RUN: 1 of 1 checks failed; nothing was rented"));
    }
}
