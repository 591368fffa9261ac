//! Files on their way between the clone and the machine: which ones, in one checked stream, and safely into place.

mod bundle;
mod patterns;
mod place;

pub use bundle::{Entry, EntryKind, Header, Name, Sender, receive};
pub use patterns::{Matches, find, fixed_part};
pub use place::Place;
