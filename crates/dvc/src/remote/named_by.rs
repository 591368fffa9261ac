//! Who named the server that gets a credential.

/// Who named the server that gets a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// Nobody: it is the service itself, such as AWS.
    Service,
    /// A variable of the step.
    Step,
    /// The clone's configuration.
    Configuration,
}
