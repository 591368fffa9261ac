//! A file or folder as Drive tells it, and questions about files.

use super::Object;
use serde::Deserialize;

/// The fields of a file that Drive is asked for.
pub(super) const FILE_FIELDS: &str = "id,name,size,md5Checksum,parents";

pub(super) const FOLDER_MIME_TYPE: &str = "application/vnd.google-apps.folder";

/// A file or folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DriveFile {
    pub(super) id: String,
    pub(super) name: String,
    /// In decimal digits. None for a folder, or for a document of Google's own.
    size: Option<String>,
    md5_checksum: Option<String>,
    /// The folders that hold it: one today, several in old ones.
    #[serde(default)]
    pub(super) parents: Vec<String>,
}

impl DriveFile {
    /// Whether it is the object, and whole.
    pub(super) fn holds(&self, object: &Object) -> bool {
        let size = self.size.as_deref().and_then(|digits| digits.parse().ok());
        let same = self.md5_checksum.as_deref() == Some(object.oid.md5());
        // What DVC 2 recorded may be named after what a text has without the line ends of Windows.
        let named = same || (object.oid.is_of_dvc_2() && object.content.is_elsewhere());
        named && size.is_some_and(|size| object.fits(size))
    }

    /// What it holds, for messages.
    pub(super) fn content(&self) -> String {
        let size = self.size.as_deref().unwrap_or("no");
        format!("{size} bytes with the MD5 {}", self.md5_checksum.as_deref().unwrap_or("of nothing"))
    }
}

/// A page of a listing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FilePage {
    #[serde(default)]
    pub(super) files: Vec<DriveFile>,
    pub(super) next_page_token: Option<String>,
}

/// The folder that the remote names.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RootFolder {
    pub(super) id: String,
    /// The Shared Drive that it is in.
    pub(super) drive_id: Option<String>,
    pub(super) mime_type: String,
    #[serde(default)]
    pub(super) trashed: bool,
}

/// The query for what is in any of these folders.
pub(super) fn either(folders: &[String]) -> String {
    let each: Vec<_> = folders.iter().map(|id| format!("'{id}' in parents")).collect();
    format!("({})", each.join(" or "))
}

/// A text in a query.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_takes_any_name() {
        assert_eq!(quoted(r"it's a \ path"), r"'it\'s a \\ path'");
        assert_eq!(either(&["a".to_owned(), "b".to_owned()]), "('a' in parents or 'b' in parents)");
    }
}
