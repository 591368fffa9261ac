//! The problems that rule a region out, all told together.

use super::super::failure::AwsError;
use trainspot_base::error::{Error, Kind};

/// One problem that rules a region out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlanProblem {
    text: String,
    kind: Kind,
}

impl PlanProblem {
    /// A variable's value that will not do: its name, and the words that follow it.
    pub(super) fn with(variable: &str, what: impl AsRef<str>) -> Self {
        Self::new(format!("{variable} {}", what.as_ref()))
    }

    /// What no variable is to blame for, as a sentence, but a variable can mend.
    pub(super) fn new(text: String) -> Self {
        Self { text, kind: Kind::Configuration }
    }

    /// The whole sentence.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl From<AwsError> for PlanProblem {
    fn from(failure: AwsError) -> Self {
        Self { text: Error::from(failure).render(), kind: Kind::Machine }
    }
}

impl From<AwsError> for Vec<PlanProblem> {
    fn from(failure: AwsError) -> Self {
        vec![failure.into()]
    }
}

/// Both values, or the problems of both.
pub(super) fn both<A, B>(
    one: Result<A, Vec<PlanProblem>>,
    other: Result<B, Vec<PlanProblem>>,
) -> Result<(A, B), Vec<PlanProblem>> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => Err(one.err().into_iter().chain(other.err()).flatten().collect()),
    }
}

/// The error of regions of which none will do.
pub(super) fn error(regions: &[(String, Vec<PlanProblem>)]) -> Error {
    let names: Vec<&str> = regions.iter().map(|(region, _)| region.as_str()).collect();
    let mut text = format!("nothing can be rented in {}; nothing was started", names.join(", "));
    for (region, problems) in regions {
        for problem in problems {
            let place = if regions.len() > 1 { format!("{region}: ") } else { String::new() };
            text.push_str("\n  ");
            text.push_str(&place);
            text.push_str(&problem.text.replace('\n', "\n    "));
        }
    }
    // A wrong value has to be mended first, whatever else failed.
    let wrong =
        regions.iter().flat_map(|(_, problems)| problems).any(|problem| problem.kind == Kind::Configuration);
    Error::new(text).kind(if wrong { Kind::Configuration } else { Kind::Machine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_problems_of_all_regions_are_told_at_once() {
        let denied = AwsError::in_answer("AccessDenied", "no").during("ec2:DescribeVpcs", "cannot list VPCs");
        let one = vec![PlanProblem::with("INSTANCE_TYPE", "names x.y"), denied.into()];
        let two = vec![PlanProblem::with("SUBNET", "names s")];
        let error = error(&[("a-1".to_owned(), one), ("b-1".to_owned(), two)]);
        assert_eq!(error.exit_kind(), Kind::Configuration);
        assert_eq!(
            error.render(),
            "nothing can be rented in a-1, b-1; nothing was started\n  \
             a-1: INSTANCE_TYPE names x.y\n  \
             a-1: cannot list VPCs: AccessDenied: no\n    \
             Next: allow ec2:DescribeVpcs to the role or user whose credentials the pipe has; docs/iam-policy.json \
             is a policy with all that it needs\n  \
             b-1: SUBNET names s"
        );
    }
}
