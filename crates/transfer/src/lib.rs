//! Files on their way between the clone and the machine: which ones, in one checked stream, and safely into
//! place.

mod bundle;
mod entry;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod held_files;
mod links;
mod manifest;
mod patterns;
mod reading;
mod receive_policy;
mod received;
mod refusal;
mod room;
mod sparse;
mod target_folder;
mod words;

pub use bundle::{BundleSender, FileStability, receive};
pub use entry::{BundleEntry, BundleHeader, EntryKind, EntryPath, LISTED_ENTRIES_LIMIT};
pub use held_files::HeldFiles;
pub use links::find_with_links;
pub use manifest::{Manifest, hash_of};
pub use patterns::{Matches, Pattern, everything, everything_behind_links, find, fixed_part};
pub use reading::{TEXT_LIMIT_BYTES, open_beneath, read_beneath, text_beneath};
pub use receive_policy::ReceivePolicy;
pub use received::Received;
pub use target_folder::TargetFolder;
