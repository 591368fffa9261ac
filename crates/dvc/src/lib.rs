//! What DVC does for a run's outputs, without DVC: pointers byte for byte, and objects in every kind of
//! remote.

mod config;
mod credentials;
mod dir;
mod draft;
mod gitignore;
mod hash;
mod init;
mod keeper;
mod keeping;
mod object;
mod order;
mod outcome;
mod outs;
mod pipelines;
mod pointer;
mod probe;
mod push;
pub mod remote;
mod repositories;
mod rescue;
mod rules;
mod site;
mod store;
mod template;
mod track;
mod trust;
mod yaml;

pub use config::{DvcConfig, Folders, Remotes, Settled};
pub use credentials::is_of_remotes;
pub use dir::Listed;
pub use draft::Draft;
pub use hash::Md5;
pub use keeper::{Delivered, Keeper, Kept};
pub use keeping::Keeping;
pub use object::{Content, Object, Oid, Stamp};
pub use order::Order;
pub use outcome::Outcome;
pub use pipelines::{Cached, cached};
pub use pointer::Pointer;
pub use probe::probe;
pub use push::{Pushed, push};
pub use rescue::{lay_out, salvage};
pub use site::{FileReader, Site, TargetBranch};
pub use store::store;
pub use track::{Change, Ordered, Prospect, Shipment, Tracked, Tracking, foresee, track, write};
