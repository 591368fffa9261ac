//! Files on their way between the clone and the machine: which ones, in one checked stream, and safely into
//! place.

mod asked;
mod bundle;
mod entry;
mod held;
mod links;
mod patterns;
mod place;
mod reading;
mod room;
mod sparse;
mod words;

pub use asked::Asked;
pub use bundle::{Files, Received, Sender, receive};
pub use entry::{Entry, EntryKind, Header, LISTED_ENTRIES_LIMIT, Name};
pub use held::Held;
pub use links::find_with_links;
pub use patterns::{Matches, Pattern, everything, everything_behind_links, find, fixed_part};
pub use place::Place;
pub use reading::{TEXT_LIMIT_BYTES, open_beneath, read_beneath, text_beneath};
