//! What there is to know of the repository: its size, its branches, and who reviews.

use super::{Call, Reply, error};
use crate::BareRepository;
use crate::lock;
use serde_json::{Value, json};

impl Call<'_> {
    pub(super) fn get_repository(&self) -> Reply {
        let options = &self.shared.options;
        Reply::Json(
            200,
            json!({
                "type": "repository",
                "full_name": format!("{}/{}", options.workspace, options.slug),
                "scm": "git",
                "is_private": true,
                "size": options.size,
                "mainbranch": { "type": "branch", "name": "main" },
            }),
        )
    }

    pub(super) fn get_branch(&self, name: &str) -> Reply {
        let options = &self.shared.options;
        let repository = options.repository.as_deref();
        if repository.is_some_and(|path| BareRepository::open(path).head(name).is_none()) {
            return error(404, &format!("Branch \"{name}\" not found"));
        }
        Reply::Json(
            200,
            json!({
                "type": "branch",
                "name": name,
                "merge_strategies": ["merge_commit", "squash", "fast_forward"],
                "default_merge_strategy": options.merge_strategy,
            }),
        )
    }

    pub(super) fn list_default_reviewers(&self) -> Reply {
        let show = |(uuid, name): &(String, String)| {
            let user = json!({ "type": "user", "uuid": uuid, "display_name": name });
            json!({ "type": "default_reviewer", "reviewer_type": "repository", "user": user })
        };
        let values: Vec<Value> = lock(&self.shared.state).default_reviewers.iter().map(show).collect();
        self.page(&values)
    }
}
