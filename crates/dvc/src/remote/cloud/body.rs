//! What goes with a request to an object store.

use super::part::FilePart;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;

/// A whole body, or the part of a file.
#[derive(Clone)]
pub(super) enum RequestBody {
    Bytes(Bytes),
    Part(FilePart),
}

impl RequestBody {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part(part) => part.length,
        }
    }

    /// The body to send, which tells of each piece that goes.
    pub(super) fn sent(self, going: watch::Sender<()>) -> reqwest::Body {
        match self {
            Self::Bytes(bytes) => bytes.into(),
            Self::Part(part) => {
                reqwest::Body::wrap_stream(part.stream().inspect(move |_| _ = going.send(())))
            }
        }
    }

    /// Whether the content still is what the object is named after.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Bytes(_) => true,
            Self::Part(part) => part.holds(),
        }
    }
}
