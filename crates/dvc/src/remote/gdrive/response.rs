//! An answer of Drive's API or of its token endpoint.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

/// An answer of any status.
pub(super) struct DriveResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}
