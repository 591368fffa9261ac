//! The XML of S3's answers.

use serde::Deserialize;

/// A page of a listing (`ListBucketResult`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listing {
    #[serde(default)]
    pub(super) is_truncated: bool,
    #[serde(default, rename = "NextContinuationToken")]
    pub(super) next: Option<String>,
    #[serde(default, rename = "Contents")]
    pub(super) objects: Vec<ListingItem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListingItem {
    pub(super) key: String,
    pub(super) size: u64,
}

/// Uploads that were begun and not ended (`ListMultipartUploadsResult`).
#[derive(Deserialize)]
pub(super) struct UnfinishedUploads {
    #[serde(default, rename = "Upload")]
    pub(super) uploads: Vec<UnfinishedUpload>,
}

#[derive(Deserialize)]
pub(super) struct UnfinishedUpload {
    #[serde(rename = "Key")]
    pub(super) key: String,
    #[serde(rename = "UploadId")]
    pub(super) id: String,
}

/// An upload that was begun (`InitiateMultipartUploadResult`).
#[derive(Deserialize)]
pub(super) struct BegunUpload {
    #[serde(rename = "UploadId")]
    pub(super) id: String,
}

/// A refusal (`Error`).
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ErrorAnswer {
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}
