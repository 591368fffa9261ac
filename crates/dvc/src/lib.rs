//! What DVC does for a run's outputs, without DVC: pointers byte for byte, and objects in every kind of
//! remote.

mod config;
mod credentials;
mod dir;
mod draft;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gitignore;
mod hash;
mod init;
mod lines;
mod object;
mod outs;
mod pipelines;
mod pointer;
mod probe;
mod push;
pub mod remote;
mod repositories;
mod rescue;
mod rules;
mod settings;
mod site;
mod store;
mod store_plan;
mod store_request;
mod store_result;
mod template;
mod track;
mod trust;
mod yaml;

pub use config::{DvcConfig, PathBase, Remotes, Settled};
pub use credentials::is_of_remotes;
pub use dir::ListedFile;
pub use draft::Draft;
pub use hash::Md5;
pub use object::{Object, ObjectContent, Oid, Stamp};
pub use pipelines::{CacheUploads, cache_uploads};
pub use pointer::Pointer;
pub use probe::probe;
pub use push::{PushReport, push};
pub use rescue::{lay_out, salvage};
pub use settings::DvcSettings;
pub use site::{FileReader, Site, TargetBranch};
pub use store::store;
pub use store_plan::{DeliveredObjects, StorePlan, StoredOutputs};
pub use store_request::StoreRequest;
pub use store_result::StoreResult;
pub use track::{Change, Prospect, RequestedOutput, Tracked, Tracking, Upload, foresee, track, write};
