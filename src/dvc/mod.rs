//! What DVC does for a run's outputs, without DVC: pointers byte for byte, and objects in every kind of remote.

mod config;
mod credentials;
mod dir;
mod draft;
mod gitignore;
mod hash;
mod init;
mod object;
mod outs;
mod pipelines;
mod pointer;
mod push;
pub mod remote;
mod repositories;
mod rescue;
mod rules;
mod store;
mod template;
mod track;
mod yaml;

pub use config::{DvcConfig, Folders, Remotes};
pub use credentials::is_of_remotes;
pub use dir::Listed;
pub use draft::Draft;
pub use hash::Md5;
pub use object::{Content, Object, Oid, Stamp};
pub use pipelines::{Cached, cached};
pub use pointer::Pointer;
pub use push::{Pushed, push};
pub use rescue::{lay_out, salvage};
pub use store::{Order, Sent, Stored, store};
pub use track::{Change, Prospect, Shipment, Tracked, Tracking, foresee, track, write};
