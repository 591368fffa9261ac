//! What a pipe tells the agent of a detached run: a training that goes on when its pipe has gone.

use super::{FileSelection, WakeSpec};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use trainspot_base::exposed;

/// A store as a machine reaches it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreAccess {
    /// The store's address: `s3://BUCKET/PREFIX`, or a folder of the machine.
    pub address: String,
    /// The bucket's region.
    pub region: String,
    /// The server's URL where it is not AWS.
    pub endpoint: Option<String>,
    /// Keys for the bucket; none where the machine has an instance profile, or the store is a folder.
    pub keys: Option<StoreKeys>,
}

/// Keys for a bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreKeys {
    /// The access key's id.
    pub id: String,
    /// The access key.
    #[serde(serialize_with = "exposed::text")]
    pub secret: SecretString,
    /// The session's token, for keys that expire.
    #[serde(serialize_with = "exposed::optional_text")]
    pub session_token: Option<SecretString>,
}

/// What the agent does for a training whose pipe goes: what the training leaves is sent to a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DetachedSpec {
    /// The run's id.
    pub run: String,
    /// Where the store is.
    pub store: StoreAccess,
    /// The key of the machine's own folder in the store.
    pub folder: String,
    /// The files to send when the training has ended well.
    pub outputs: FileSelection,
    /// What DVC is to keep, as the verb `dvc` reads it: it holds the remotes' credentials.
    #[serde(serialize_with = "exposed::optional_text")]
    pub dvc: Option<SecretString>,
    /// How long the training may run on this machine until the run has cost what it may.
    pub cost_limit: Option<Duration>,
    /// What wakes the run when it needs a pipe again; none where only the sweep does, or a person.
    pub wake: Option<WakeSpec>,
}

/// A checkpoint that another machine left in a store, to go on from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Where the store is.
    pub store: StoreAccess,
    /// The key of that machine's folder.
    pub folder: String,
    /// The checkpoint's number there.
    pub number: u64,
    /// Patterns of the files that are checkpoints.
    pub patterns: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_as_they_are_and_are_not_shown() {
        let sent = concat!(
            r#"{"run":"r","store":{"address":"s3://b","region":"e","endpoint":null,"#,
            r#""keys":{"id":"i","secret":"s3cret","session_token":"s3cret-too"}},"folder":"f","#,
            r#""outputs":{"required":[],"optional":[],"without":[]},"dvc":"{\"s3cret\":1}","cost_limit":null,"wake":null}"#
        );
        let spec: DetachedSpec = serde_json::from_str(sent).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), sent);
        let shown = format!("{spec:?}");
        assert!(shown.contains("s3://b") && !shown.contains("s3cret"), "{shown}");
    }
}
