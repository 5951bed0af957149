//! `wherry describe`: everything about objects that a person asks for: what they are, whose, how they are, and what
//! happened to them.
//!
//! Any kind is laid out by its fields; shapes that many have in common, containers and pods' templates are told in words, and what
//! belongs to an object is told in tables. What must stay true: a Secret's values are not shown.

mod endpoints;
mod events;
mod node;
mod pod;
mod related;
mod words;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use wherry_api::object;
use wherry_api::table::since;

use self::events::events;
use self::related::{related, section};
use crate::client::{Client, Connection, JSON, Resource};
use crate::layout::{below, indented, pairs, scalar};
use crate::output::{self, Failures};
use crate::selection::Selection;
use crate::table::Table;

/// kubectl keeps the last manifest here: it says nothing that the object does not.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Characters of an annotation that are shown.
const ANNOTATION: usize = 140;

/// Show everything about objects: fields, owner, conditions, containers, events.
#[derive(Debug, Args)]
pub struct Describe {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    selection: Selection,
}

impl Describe {
    pub async fn run(self) -> anyhow::Result<()> {
        let selection = self.selection;
        let targets = selection.targets()?;
        let client = self.connection.open().await?;
        let mut failures = Failures::default();
        let (mut shown, mut anywhere) = (false, selection.all_namespaces);
        for target in targets {
            for found in selection.find(&client, &target, JSON, &mut failures).await {
                anywhere |= !found.resource.namespaced;
                for object in found.objects() {
                    if shown {
                        output::line("\n");
                    }
                    shown = true;
                    describe(&client, &found.resource, object).await.iter().for_each(output::line);
                }
            }
        }
        if !shown && failures.is_empty() {
            output::note(client.nothing_found(anywhere));
        }
        failures.finish()
    }
}

async fn describe(client: &Client, resource: &Resource, object: &Value) -> Vec<String> {
    let now = Timestamp::now();
    let mut rows = head(resource, object, now);
    let mut rest = object.clone();
    let mut containers = Vec::new();
    if resource.is("", "pods") {
        containers = pod::containers(&mut rest, now);
        pod::drop_defaults(&mut rest);
    } else if resource.is("", "secrets") {
        hide_values(&mut rest);
    } else if resource.is("", "nodes") {
        node::tidy(&mut rest);
        rows.extend(node::heartbeat(client, object, now).await.map(|at| ("Heartbeat".to_owned(), at)));
    }
    let template = pod::take_template(&mut rest).map(|template| pod::template(template, now));
    let conditions = rest.pointer_mut("/status/conditions").map(Value::take).unwrap_or_default();
    words::shorten(&mut rest);
    let known = ["apiVersion", "kind", "metadata"];
    let mut deep = Vec::new();
    for (name, value) in rest.as_object().into_iter().flatten().filter(|(name, _)| !known.contains(&name.as_str())) {
        match scalar(value) {
            Some(text) if !value.is_null() => rows.push((titled(name), text)),
            _ => {
                let below = below(value);
                if !below.is_empty() {
                    deep.push(format!("{}:", titled(name)));
                    deep.extend(indented(below));
                }
            }
        }
    }
    let mut lines = pairs(&rows);
    lines.extend(containers);
    lines.extend(deep);
    lines.extend(template.into_iter().flatten());
    lines.extend(condition_table(&conditions, now));
    lines.extend(related(client, resource, object, now).await);
    lines.extend(section("Events", events(client, resource, object, now).await));
    lines
}

/// What every object has.
fn head(resource: &Resource, object: &Value, now: Timestamp) -> Vec<(String, String)> {
    let line = |(name, value): (&str, &str)| cut(&format!("{name}={value}"));
    let labels: Vec<String> = object::labels(object).map(line).collect();
    let annotations = object::annotations(object).filter(|(name, _)| *name != LAST_APPLIED);
    let annotations: Vec<String> = annotations.map(line).collect();
    let owners: Vec<String> = object::owner_references(object).iter().map(owner).collect();
    let created = object::creation_timestamp(object).map(|at| format!("{at} ({} ago)", since(Some(at), now)));
    let of_pod = |field| if resource.is("", "pods") { object::text_at(object, field) } else { String::new() };
    let rows = [
        ("Name", object::name(object).to_owned()),
        ("Namespace", object::namespace(object).to_owned()),
        ("Kind", format!("{} ({})", resource.api.kind, resource.api.api_version)),
        ("Created", created.unwrap_or_default()),
        ("Deleting", object::deletion_timestamp(object).map(|at| format!("to be gone by {at}")).unwrap_or_default()),
        ("Node", of_pod("spec.nodeName")),
        ("IP", of_pod("status.podIP")),
        ("Phase", of_pod("status.phase")),
        ("Pods", counts(resource, object)),
        ("Labels", labels.join("\n")),
        ("Annotations", annotations.join("\n")),
        ("Owner", owners.join("\n")),
        ("Finalizers", object::finalizers(object).join("\n")),
    ];
    rows.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A number that says how a workload is: what it is called, and where it is.
type Count = (&'static str, &'static str);
const DESIRED: Count = ("desired", "spec.replicas");
const TOTAL: Count = ("total", "status.replicas");
const UPDATED: Count = ("updated", "status.updatedReplicas");
const READY: Count = ("ready", "status.readyReplicas");
const AVAILABLE: Count = ("available", "status.availableReplicas");
const COUNTS: [(&str, &str, &[Count]); 6] = [
    ("apps", "deployments", &[DESIRED, TOTAL, UPDATED, READY, AVAILABLE]),
    ("apps", "statefulsets", &[DESIRED, TOTAL, UPDATED, READY, AVAILABLE]),
    ("apps", "replicasets", &[DESIRED, TOTAL, READY, AVAILABLE]),
    ("", "replicationcontrollers", &[DESIRED, TOTAL, READY, AVAILABLE]),
    (
        "apps",
        "daemonsets",
        &[
            ("desired", "status.desiredNumberScheduled"),
            ("total", "status.currentNumberScheduled"),
            ("updated", "status.updatedNumberScheduled"),
            ("ready", "status.numberReady"),
            ("available", "status.numberAvailable"),
        ],
    ),
    ("batch", "jobs", &[("active", "status.active"), ("succeeded", "status.succeeded"), ("failed", "status.failed")]),
];

/// `3 desired, 3 total, 2 updated, …`; empty for a kind that has no pods.
fn counts(resource: &Resource, object: &Value) -> String {
    let counts =
        COUNTS.iter().find(|(group, plural, _)| resource.is(group, plural)).map_or(&[][..], |(.., counts)| counts);
    let one = |(word, path): &(&str, &str)| {
        format!("{} {word}", object::at(object, path).and_then(Value::as_i64).unwrap_or_default())
    };
    counts.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// An owner reference: `ReplicaSet/hello-7d4b`, and whether it controls.
fn owner(reference: &object::OwnerReference) -> String {
    let controls = if reference.is_controller() { " (controller)" } else { "" };
    format!("{}/{}{controls}", reference.kind, reference.name)
}

/// A text on one line of bearable length.
fn cut(text: &str) -> String {
    let text = text.replace('\n', " ");
    if text.chars().count() <= ANNOTATION {
        return text;
    }
    text.chars().take(ANNOTATION).chain("…".chars()).collect()
}

/// A field's name as a heading.
fn titled(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Puts sizes in the place of a Secret's values.
fn hide_values(secret: &mut Value) {
    for value in secret.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten().map(|(_, value)| value) {
        let padding = value.as_str().map_or(0, |text| text.len() - text.trim_end_matches('=').len());
        let size = value.as_str().map_or(0, |text| text.len() / 4 * 3).saturating_sub(padding);
        *value = output::counted(size, "byte").into();
    }
}

fn condition_table(conditions: &Value, now: Timestamp) -> Vec<String> {
    let row = |condition: &Value| {
        let text = |field: &str| object::text_at(condition, field);
        let at = text("lastTransitionTime");
        let age = if at.is_empty() { String::new() } else { since(object::parse_time(&at), now) };
        vec![text("type"), text("status"), age, text("reason"), text("message").replace('\n', " ")]
    };
    let rows: Vec<Vec<String>> = conditions.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let table = Table::new(&["TYPE", "STATUS", "FOR", "REASON", "MESSAGE"], rows);
    std::iter::once("Conditions:".to_owned()).chain(indented(table.lines(true))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secrets_values_are_sizes() {
        let mut secret = json!({"data": {"a": "aGVsbG8=", "b": "", "c": "YQ=="}});
        hide_values(&mut secret);
        assert_eq!(secret["data"], json!({"a": "5 bytes", "b": "0 bytes", "c": "1 byte"}));
    }

    #[test]
    fn conditions_are_a_table_with_ages() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let conditions = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "Fine", "message": "two\nlines"}]);
        let lines = condition_table(&conditions, now);
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["TYPE", "STATUS", "FOR", "REASON", "MESSAGE"]);
        assert_eq!(lines[2], "  Ready   True     10m   Fine     two lines");
        assert!(condition_table(&Value::Null, now).is_empty());
    }
}
