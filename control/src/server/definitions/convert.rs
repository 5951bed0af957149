//! Conversion between the versions of a custom resource: by its `apiVersion` alone, or by a webhook.
//!
//! What is read from the store gets the defaults of the version that it was written in, is converted, and is pruned by the
//! version that is served; what is written is pruned and defaulted by the stored version. What must stay true: a webhook
//! changes of an object's metadata labels and annotations only.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wherry_api::custom::{Definition, Version};
use wherry_api::field::{ErrorList, Path};
use wherry_api::status::ApiError;
use wherry_api::version::{Convert, Converting};
use wherry_api::{meta, object};

use crate::outbound::{ClientConfig, Outbound};
use crate::server::body;
use crate::store::Revision;
use crate::uuid;

const REVIEW: &str = "apiextensions.k8s.io";
/// What Kubernetes gives a conversion.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of objects that a webhook is asked about at once: what is gathered of its answer is bounded, and may be longer.
const AT_ONCE: usize = body::LIMIT / 4;

/// A definition's conversion webhook.
#[derive(Debug)]
pub(super) struct Webhook {
    config: Result<ClientConfig, String>,
    /// Of ConversionReview.
    version: &'static str,
    outbound: Outbound,
}

impl Webhook {
    pub(super) fn of(definition: &Definition, outbound: &Outbound) -> Option<Arc<Self>> {
        let webhook = definition.webhook.as_ref()?;
        let speaks = webhook.get("conversionReviewVersions").and_then(Value::as_array);
        let first = speaks.into_iter().flatten().find_map(|v| match v.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        });
        let config = ClientConfig::parse(webhook.get("clientConfig").unwrap_or(&Value::Null));
        Some(Arc::new(Self {
            config: config.map_err(|error| error.to_string()),
            version: first.unwrap_or("v1"),
            outbound: outbound.clone(),
        }))
    }

    /// The objects in another version; the error is what Kubernetes says after `conversion webhook for … failed: `.
    async fn ask(&self, objects: &[Value], to: &str) -> Result<Vec<Value>, String> {
        let config = self.config.as_ref().map_err(Clone::clone)?;
        let uid = uuid::random();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("{REVIEW}/{}", self.version),
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let query = format!("timeout={}s", PATIENCE.as_secs());
        let reply = self.outbound.post(config, &query, review.to_string().into(), PATIENCE).await;
        let reply = reply.map_err(|error| error.to_string())?;
        if !reply.status.is_success() {
            return Err(format!("the server responded with the status code {}", reply.status.as_u16()));
        }
        let mut review = reply.json().ok_or("the response is not JSON")?;
        let (kind, version) = (object::kind(&review), object::api_version(&review));
        if (kind, version) != ("ConversionReview", format!("{REVIEW}/{}", self.version).as_str()) {
            return Err(format!(
                "expected webhook response of {REVIEW}/{}, Kind=ConversionReview, got {version}, Kind={kind}",
                self.version
            ));
        }
        let Some(response) = review.get_mut("response").filter(|r| r.is_object()) else {
            return Err("no response provided".into());
        };
        let answered = response.get("uid").and_then(Value::as_str).unwrap_or_default();
        if answered != uid {
            return Err(format!("expected response.uid={uid:?}, got {answered:?}"));
        }
        let result = |field: &str| response.pointer(&format!("/result/{field}")).and_then(Value::as_str);
        match (result("status").unwrap_or_default(), result("message").unwrap_or_default()) {
            ("Success", _) => {}
            (status, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
            (_, message) => return Err(message.to_owned()),
        }
        match response.get_mut("convertedObjects").map(Value::take) {
            Some(Value::Array(converted)) => Ok(converted),
            _ => Ok(Vec::new()),
        }
    }
}

/// Between what is stored and one served version.
#[derive(Debug)]
pub(super) struct Converter {
    definition: Arc<Definition>,
    to: Arc<Version>,
    /// The definition's last write: what was stored later was stored by it.
    since: Revision,
    webhook: Option<Arc<Webhook>>,
}

impl Converter {
    pub(super) fn new(
        definition: &Arc<Definition>,
        to: &Arc<Version>,
        since: Revision,
        webhook: Option<Arc<Webhook>>,
    ) -> Self {
        Self { definition: Arc::clone(definition), to: Arc::clone(to), since, webhook }
    }

    /// Objects of any version in `to` (`GROUP/VERSION`), in the same order.
    async fn convert(&self, mut objects: Vec<Value>, to: &str) -> Result<Vec<Value>, ApiError> {
        let other = |object: &&mut Value| object::api_version(object) != to;
        let Some(webhook) = &self.webhook else {
            for object in &mut objects {
                object::set_at(object, "apiVersion", to);
            }
            return Ok(objects);
        };
        let strangers: Vec<Value> = objects.iter_mut().filter(other).map(|object| object.clone()).collect();
        let Some(first) = strangers.first() else { return Ok(objects) };
        let what = format!("conversion webhook for {}, Kind={}", object::api_version(first), self.definition.kind);
        let refuse = |why: String| ApiError::new(500, "InternalError", format!("{what} {why}"));
        let mut converted = Vec::with_capacity(strangers.len());
        for part in parts(&strangers) {
            let answered = webhook.ask(part, to).await.map_err(|why| refuse(format!("failed: {why}")))?;
            if answered.len() != part.len() {
                return Err(refuse(format!("returned {} objects, expected {}", answered.len(), part.len())));
            }
            converted.extend(answered);
        }
        let mut converted = strangers.iter().zip(converted).enumerate().map(|(index, (before, after))| {
            checked(before, after, to)
                .map_err(|why| refuse(format!("returned invalid converted object at index {index}: {why}")))
        });
        for object in objects.iter_mut().filter(other) {
            if let Some(converted) = converted.next() {
                *object = converted?;
            }
        }
        Ok(objects)
    }
}

/// Objects in the parts that a webhook is asked about at once.
fn parts(objects: &[Value]) -> Vec<&[Value]> {
    let (mut parts, mut rest) = (Vec::new(), objects);
    while !rest.is_empty() {
        let mut size = 0;
        let fit = rest.iter().take_while(|object| {
            size += object.to_string().len();
            size <= AT_ONCE
        });
        // One that is larger goes alone.
        let (part, after) = rest.split_at(fit.count().clamp(1, rest.len()));
        parts.push(part);
        rest = after;
    }
    parts
}

/// A converted object with the metadata that a webhook must not change.
fn checked(before: &Value, mut after: Value, to: &str) -> Result<Value, String> {
    if object::api_version(&after) != to {
        return Err(format!("invalid groupVersion (must be {to}): {}", object::api_version(&after)));
    }
    if object::kind(&after) != object::kind(before) {
        return Err(format!("invalid kind (must be {}): {}", object::kind(before), object::kind(&after)));
    }
    if !after.get("metadata").is_some_and(Value::is_object) {
        return Err("invalid metadata of type null in input object".into());
    }
    for field in ["name", "namespace", "uid"] {
        let (was, is) = (object::meta_str(before, field), object::meta_str(&after, field));
        if was != is {
            return Err(format!("metadata.{field}: Invalid value: {is:?}: must be unchanged from {was:?}"));
        }
    }
    let free = |field: &str| matches!(field, "labels" | "annotations");
    let own = after.get("metadata").and_then(Value::as_object).into_iter().flatten();
    let own: Vec<_> = own.filter(|(field, _)| free(field)).map(|(f, v)| (f.clone(), v.clone())).collect();
    for (field, value) in &own {
        changed_metadata(field, value)?;
    }
    let kept = before.get("metadata").and_then(Value::as_object).into_iter().flatten();
    let kept = kept.filter(|(field, _)| !free(field)).map(|(f, v)| (f.clone(), v.clone()));
    let metadata: serde_json::Map<String, Value> = kept.chain(own).collect();
    object::set_at(&mut after, "metadata", Value::Object(metadata));
    Ok(after)
}

/// What a webhook makes of labels and annotations keeps the rules of them.
fn changed_metadata(field: &str, value: &Value) -> Result<(), String> {
    let texts = value.as_object().is_some_and(|map| map.values().all(Value::is_string));
    if !texts && !value.is_null() {
        return Err(format!("invalid metadata in input object: metadata.{field} is no map of strings to strings"));
    }
    let (path, mut errors) = (Path::new("metadata").child(field), ErrorList::default());
    match field {
        "labels" => meta::labels(Some(value), &path, &mut errors),
        _ => meta::annotations(Some(value), &path, &mut errors),
    }
    errors.iter().next().map_or(Ok(()), |error| Err(error.to_string()))
}

impl Convert for Converter {
    fn definition(&self) -> &str {
        &self.definition.uid
    }

    fn is_current(&self, revision: u64) -> bool {
        revision > self.since && self.to.name == self.definition.storage
    }

    fn may_change_fields(&self) -> bool {
        self.webhook.is_some() || self.to.schema.structural().has_defaults()
    }

    fn from_stored(&self, mut objects: Vec<Value>) -> Converting<'_, Vec<Value>> {
        Box::pin(async move {
            for object in &mut objects {
                let version = object::api_version(object).rsplit('/').next().unwrap_or_default();
                if let Some(written) = self.definition.version(version) {
                    written.schema.prune(object);
                    // One that would become too large is shown with a part of them: it can be read, changed and deleted.
                    let _ = written.schema.structural().apply_defaults(object);
                }
            }
            let mut objects = self.convert(objects, &self.definition.api_version(&self.to.name)).await?;
            for object in &mut objects {
                self.to.schema.prune(object);
            }
            Ok(objects)
        })
    }

    fn to_stored(&self, object: Value) -> Converting<'_, Value> {
        Box::pin(async move {
            let storage = &self.definition.storage;
            let converted = self.convert(vec![object], &self.definition.api_version(storage)).await?;
            let mut object = converted.into_iter().next().ok_or_else(|| ApiError::internal("nothing was converted"))?;
            if let Some(version) = self.definition.version(storage) {
                version.schema.prune(&mut object);
                let grown = version.schema.structural().apply_defaults(&mut object);
                grown.map_err(|error| ApiError::new(413, "RequestEntityTooLarge", error.to_string()))?;
            }
            Ok(object)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_converted_in_parts_and_nothing_is_left_out() {
        let object = |bytes: usize| json!({"spec": "x".repeat(bytes)});
        let all = [object(AT_ONCE / 2), object(AT_ONCE / 3), object(AT_ONCE / 2), object(2 * AT_ONCE), object(1)];
        let sizes: Vec<usize> = parts(&all).into_iter().map(<[Value]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert!(parts(&[]).is_empty());
    }

    #[test]
    fn a_webhook_changes_labels_and_annotations_and_no_other_metadata() {
        let before =
            json!({"apiVersion": "a.b/v1", "kind": "K", "metadata": {"name": "n", "uid": "u", "finalizers": ["x/y"]}});
        let after = json!({"apiVersion": "a.b/v2", "kind": "K", "spec": 1,
            "metadata": {"name": "n", "uid": "u", "labels": {"a": "b"}, "finalizers": []}});
        let checked_object = checked(&before, after.clone(), "a.b/v2").unwrap();
        assert_eq!(
            checked_object["metadata"],
            json!({"name": "n", "uid": "u", "finalizers": ["x/y"], "labels": {"a": "b"}})
        );
        let mut renamed = after.clone();
        renamed["metadata"]["name"] = json!("m");
        assert!(checked(&before, renamed, "a.b/v2").unwrap_err().contains("metadata.name"));
        for (field, value) in [
            ("labels", json!([1, 2])),
            ("labels", json!({"a": 1})),
            ("labels", json!({"-bad key!": "b"})),
            ("annotations", json!("y")),
        ] {
            let mut odd = after.clone();
            object::set_at(&mut odd, &format!("metadata.{field}"), value);
            assert!(checked(&before, odd, "a.b/v2").unwrap_err().contains(field));
        }
        assert!(checked(&before, after, "a.b/v3").unwrap_err().starts_with("invalid groupVersion (must be a.b/v3)"));
    }
}
