//! How a machine tells that its detached run needs a pipeline again.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use trainspot_base::exposed;

/// What wakes a detached run: which custom pipeline is to run on which commit, and the ways by which a
/// machine can have it started. Without either way the run waits for the sweep, or for a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WakeSpec {
    /// The workspace's short name.
    pub workspace: String,
    /// The repository's short name.
    pub repo_slug: String,
    /// The custom pipeline's name.
    pub pipeline: String,
    /// The run's commit.
    pub commit: String,
    /// The run's branch, if the run has one.
    pub branch: Option<String>,
    /// Bitbucket, and a token that may start the pipeline.
    pub bitbucket: Option<WakeToken>,
    /// A bus that takes the machine's event to Bitbucket.
    pub bus: Option<WakeBus>,
}

/// Bitbucket's API, and a token that may start pipelines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WakeToken {
    /// The base of the API's addresses.
    pub api_url: String,
    /// The token. The machine keeps it in memory only.
    #[serde(serialize_with = "exposed::text")]
    pub token: SecretString,
}

/// A bus of `EventBridge`, to which the machine's instance profile may put events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WakeBus {
    /// The bus's name or ARN.
    pub bus: String,
    /// The bus's region.
    pub region: String,
    /// The server's URL where it is not AWS.
    pub endpoint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe and an agent of other versions speak these words, whatever the Rust names are.
    #[test]
    fn the_words_on_the_wire_stay_and_the_token_is_not_shown() {
        let both = concat!(
            r#"{"workspace":"w","repo_slug":"r","pipeline":"p","commit":"c","branch":"b","#,
            r#""bitbucket":{"api_url":"u","token":"t0ken"},"#,
            r#""bus":{"bus":"n","region":"e","endpoint":"http://h"}}"#
        );
        let neither = concat!(
            r#"{"workspace":"w","repo_slug":"r","pipeline":"p","commit":"c","branch":null,"#,
            r#""bitbucket":null,"bus":null}"#
        );
        for sent in [both, neither] {
            let spec: WakeSpec = serde_json::from_str(sent).unwrap();
            assert_eq!(serde_json::to_string(&spec).unwrap(), sent);
            let shown = format!("{spec:?}");
            assert!(shown.contains("pipeline") && !shown.contains("t0ken"), "{shown}");
        }
    }
}
