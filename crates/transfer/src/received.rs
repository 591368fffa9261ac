//! What a receiver took of a bundle.

use super::entry::BundleHeader;
use blake3::Hash;

/// What was taken of a bundle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The list of the files and links.
    pub header: BundleHeader,
    /// The hash of each file of the list, in its order; none of a link, nor of a file that was gone.
    pub hashes: Vec<Option<Hash>>,
    /// How many bytes of files came. The bytes of files that the receiver held did not come.
    pub bytes: u64,
}
