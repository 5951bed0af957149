//! Conflicts, in Kubernetes' words: one cause per field and owner.

use std::collections::BTreeMap;

use super::fields::FieldSet;
use super::managers::{Manager, Operation};
use crate::status::{ApiError, Cause};

/// Bytes of paths that are told of one manager: more than that nobody reads, and each may be as long as the object.
const MAX_PATHS: usize = 256 * 1024;

/// What others own of what an applier would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conflicts(pub(super) BTreeMap<Manager, FieldSet>);

impl Conflicts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// 409, reason `Conflict`.
    pub(super) fn into_error(self) -> ApiError {
        let all: Vec<(String, Vec<String>)> =
            self.0.iter().map(|(manager, fields)| (name(manager), fields.first_paths(MAX_PATHS))).collect();
        let count = self.0.values().map(FieldSet::count).sum();
        let mut error = ApiError::new(409, "Conflict", message(&all, count));
        for (manager, paths) in all {
            error.details.causes.extend(paths.into_iter().map(|field| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {manager}"),
                field,
            }));
        }
        error
    }
}

fn message(all: &[(String, Vec<String>)], count: usize) -> String {
    if let ([(manager, paths)], 1) = (all, count) {
        return format!("Apply failed with 1 conflict: conflict with {manager}: {}", paths.concat());
    }
    let lines = all.iter().map(|(manager, paths)| format!("conflicts with {manager}:\n- {}", paths.join("\n- ")));
    format!("Apply failed with {count} conflicts: {}", lines.collect::<Vec<_>>().join("\n"))
}

/// `"kubectl-client-side-apply" using apps/v1`.
fn name(manager: &Manager) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text = format!("{text} with subresource {:?}", manager.subresource);
    }
    match manager.operation {
        Operation::Apply => text,
        Operation::Update => format!("{text} using {}", manager.version),
    }
}
