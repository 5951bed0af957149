//! What a namespace that is being deleted says about itself. No I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is left of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// `pods`, `deployments.apps`.
    pub resource: String,
    pub count: usize,
    /// How many objects wait for each finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

/// The outcome of one pass.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub left: Vec<Left>,
    pub discovery_error: Option<String>,
    pub delete_errors: Vec<String>,
}

impl Outcome {
    /// Whether the namespace is empty for certain.
    pub fn is_empty(&self) -> bool {
        self.discovery_error.is_none() && self.delete_errors.is_empty() && self.left.iter().all(|l| l.count == 0)
    }
}

/// The conditions with Kubernetes' types, reasons and messages; times move only when a status does.
pub fn conditions(outcome: &Outcome, present: &[NamespaceCondition], now: Timestamp) -> Vec<NamespaceCondition> {
    let said = [discovery(outcome), parsing(), content(outcome), remaining(outcome), finalizers(outcome)];
    let stamped = said.into_iter().map(|(kind, status, reason, message)| {
        let before = present.iter().find(|c| c.type_ == kind && c.status == status);
        NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        }
    });
    stamped.collect()
}

type Said = (&'static str, &'static str, &'static str, String);

fn discovery(outcome: &Outcome) -> Said {
    const KIND: &str = "NamespaceDeletionDiscoveryFailure";
    match &outcome.discovery_error {
        Some(error) => (KIND, "True", "DiscoveryFailed", error.clone()),
        None => (KIND, "False", "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
    }
}

/// The server's own lists always parse.
fn parsing() -> Said {
    let message = "All legacy kube types successfully parsed".to_owned();
    ("NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", message)
}

fn content(outcome: &Outcome) -> Said {
    const KIND: &str = "NamespaceDeletionContentFailure";
    if outcome.delete_errors.is_empty() {
        let message = "All content successfully deleted, may be waiting on finalization".to_owned();
        return (KIND, "False", "ContentDeleted", message);
    }
    let errors = outcome.delete_errors.join(", ");
    (
        KIND,
        "True",
        "ContentDeletionFailed",
        format!("Failed to delete all resource types, {} remaining: {errors}", outcome.delete_errors.len()),
    )
}

fn remaining(outcome: &Outcome) -> Said {
    const KIND: &str = "NamespaceContentRemaining";
    let mut left: Vec<String> = outcome
        .left
        .iter()
        .filter(|l| l.count > 0)
        .map(|l| format!("{} has {} resource instances", dotted(&l.resource), l.count))
        .collect();
    if left.is_empty() {
        return (KIND, "False", "ContentRemoved", "All content successfully removed".to_owned());
    }
    left.sort();
    (KIND, "True", "SomeResourcesRemain", format!("Some resources are remaining: {}", left.join(", ")))
}

/// Kubernetes writes the empty group's dot as well: `pods.`.
fn dotted(resource: &str) -> String {
    if resource.contains('.') { resource.to_owned() } else { format!("{resource}.") }
}

fn finalizers(outcome: &Outcome) -> Said {
    const KIND: &str = "NamespaceFinalizersRemaining";
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in outcome.left.iter().flat_map(|l| &l.finalizers) {
        *counts.entry(name).or_default() += count;
    }
    if counts.is_empty() {
        return (KIND, "False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned());
    }
    let list: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let message = format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
    (KIND, "True", "SomeFinalizersRemain", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn what_is_left_is_said_as_kubernetes_says_it() {
        let left =
            Left { resource: "pods".to_owned(), count: 2, finalizers: [("example.com/hold".to_owned(), 1)].into() };
        let outcome = Outcome { left: vec![left], ..Outcome::default() };
        let said = conditions(&outcome, &[], time("2030-01-01T00:00:00Z"));
        let message =
            |kind: &str| said.iter().find(|c| c.type_ == kind).and_then(|c| c.message.clone()).unwrap_or_default();
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        assert!(!outcome.is_empty());
    }

    #[test]
    fn times_move_only_with_the_status() {
        let first = conditions(&Outcome::default(), &[], time("2030-01-01T00:00:00Z"));
        assert_eq!(conditions(&Outcome::default(), &first, time("2030-01-01T00:01:00Z")), first);
    }
}
