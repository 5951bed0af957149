//! The events of an object, as a table.

use jiff::Timestamp;
use serde_json::Value;
use wherry_api::object;
use wherry_api::table::since;

use crate::client::{Client, Resource};
use crate::table::Table;

/// What happened to an object, the last thing last.
pub async fn events(client: &Client, resource: &Resource, object: &Value, now: Timestamp) -> anyhow::Result<Table> {
    let (kind, name) = (&resource.api.kind, object::name(object));
    let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let namespace = object::namespace(object);
    let place = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    let query: String = url::form_urlencoded::byte_serialize(selector.as_bytes()).collect();
    let path = format!("/api/v1{place}/events?fieldSelector={query}");
    let list = client.read(&path).await?;
    let uid = object::uid(object);
    // A node's events are by its name.
    let about = |event: &&Value| [uid, name, ""].contains(&object::text_at(event, "involvedObject.uid").as_str());
    let mut events: Vec<&Value> =
        list.get("items").and_then(Value::as_array).into_iter().flatten().filter(about).collect();
    events.sort_by_key(|event| last(event));
    Ok(Table::new(
        &["TYPE", "REASON", "AGE", "FROM", "MESSAGE"],
        events.into_iter().map(|event| row(event, now)).collect(),
    ))
}

fn time(event: &Value, fields: &[&str]) -> Option<Timestamp> {
    fields.iter().find_map(|field| object::parse_time(&object::text_at(event, field)))
}

fn first(event: &Value) -> Option<Timestamp> {
    time(event, &["firstTimestamp", "eventTime", "metadata.creationTimestamp"])
}

fn last(event: &Value) -> Option<Timestamp> {
    time(event, &["series.lastObservedTime", "lastTimestamp", "eventTime", "metadata.creationTimestamp"])
}

fn row(event: &Value, now: Timestamp) -> Vec<String> {
    let count = ["/series/count", "/count"].iter().find_map(|path| event.pointer(path).and_then(Value::as_i64));
    let age = since(last(event), now);
    let age = match count {
        Some(count) if count > 1 => format!("{age} (x{count} over {})", since(first(event), now)),
        _ => age,
    };
    let text = |field: &str| object::text_at(event, field);
    let from = [text("source.component"), text("reportingComponent")].into_iter().find(|from| !from.is_empty());
    let message = text("message").trim().replace('\n', " ");
    vec![text("type"), text("reason"), age, from.unwrap_or_default(), message]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_tells_how_often_and_since_when() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let old = json!({"type": "Warning", "reason": "BackOff", "message": "again", "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:30Z", "source": {"component": "node"}});
        assert_eq!(row(&old, now), ["Warning", "BackOff", "30s (x3 over 60m)", "node", "again"]);
        let new = json!({"type": "Normal", "reason": "Done", "message": "it is", "eventTime": "2026-01-01T00:59:00.000000Z",
            "reportingComponent": "example.com/c"});
        assert_eq!(row(&new, now), ["Normal", "Done", "60s", "example.com/c", "it is"]);
    }
}
