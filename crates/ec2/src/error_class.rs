//! What an error's code means for the caller: whether to wait, to try elsewhere, or to give up.

/// What a failure means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorClass {
    /// Another zone or another type may do.
    TryElsewhere,
    /// A quota, counted over a whole family of types: only another family may do.
    TryOtherFamily,
    /// Throttled, a fault of the service, or no answer: the same call may work in a moment.
    Transient,
    /// The resource that the call names does not exist, or no longer, or not yet.
    NotFound,
    /// The failure is final: only the user can act.
    Fatal,
}

/// EC2's code for a used-up quota of spot machines. Its message, unlike that of the quota on demand, has no
/// number.
pub(super) const SPOT_QUOTA: &str = "MaxSpotInstanceCountExceeded";

/// The codes that say more than their HTTP status, from EC2's list of error codes and from what Karpenter and
/// `ParallelCluster` take for a lack of capacity.
pub(super) const CODE_CLASSES: &[(ErrorClass, &[&str])] = &[
    (
        ErrorClass::TryElsewhere,
        &[
            "InsufficientInstanceCapacity",
            "InsufficientCapacity",
            "UnfulfillableCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "ReservationCapacityExceeded",
            "InsufficientFreeAddressesInSubnet",
            "Unsupported",
            "SpotMaxPriceTooLow",
            "InvalidFleetConfiguration",
        ],
    ),
    (ErrorClass::TryOtherFamily, &[SPOT_QUOTA, "VcpuLimitExceeded", "InstanceLimitExceeded"]),
    (
        ErrorClass::Transient,
        &[
            "RequestLimitExceeded",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "RequestThrottledException",
            "TooManyRequestsException",
            "EC2ThrottledException",
            "PriorRequestNotComplete",
            "SlowDown",
            "BandwidthLimitExceeded",
            "InternalError",
            "InternalFailure",
            "InternalErrorException",
            "InternalServerError",
            "Unavailable",
            "ServiceUnavailable",
            "IncorrectState",
            "IDPCommunicationError",
            "RequestTimeout",
        ],
    ),
    // These codes end in NotFound, but name what the user chose: waiting does not bring it into being.
    (ErrorClass::Fatal, &["InvalidAMIID.NotFound", "InvalidKeyPair.NotFound"]),
];

/// The class of a code; none where the HTTP status decides.
pub(super) fn classify(code: &str) -> Option<ErrorClass> {
    let named = CODE_CLASSES.iter().find(|(_, codes)| codes.contains(&code)).map(|(class, _)| *class);
    let gone =
        code.contains(".NotFound") || code.ends_with("NotFound") || code.ends_with("NotFoundException");
    named.or_else(|| gone.then_some(ErrorClass::NotFound))
}
