//! VolumeAttachment: the wish to have a volume attached to a node, and whether it is.

use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Map, Value, json};

use super::names;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{fill, int, is_true, object, some, split_status, text};
use crate::meta::{self, names as names_of_objects, push_all};
use crate::resource::{Descriptor, Idle, WRITABLE_METADATA};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<VolumeAttachment>()
        .idle(Idle::Yet)
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(vec![
            cells::name(),
            column("Attacher", "string", "The volume driver that must handle this request.", |o, _| {
                json!(text(o, "/spec/attacher"))
            })
            .format("name"),
            column("PV", "string", "The volume to attach.", |o, _| json!(text(o, "/spec/source/persistentVolumeName"))),
            column("Node", "string", "The node that the volume should be attached to.", |o, _| {
                json!(text(o, "/spec/nodeName"))
            }),
            column("Attached", "boolean", "Whether the volume is attached.", |o, _| {
                json!(is_true(o, "/status/attached"))
            }),
            cells::age(),
        ])
        .no_generation()
        .conditional()
        .strategy(VolumeAttachmentStrategy)
}

/// Bytes of what a driver tells about an attachment, and of why it failed.
const MAX_METADATA: usize = 256 * 1024;
const MAX_MESSAGE: usize = 1024;

#[derive(Debug)]
struct VolumeAttachmentStrategy;

impl Strategy for VolumeAttachmentStrategy {
    fn default(&self, attachment: &mut Value) {
        if let Some(status) = object(attachment, "status") {
            fill(status, "attached", false);
        }
    }

    fn validate(&self, attachment: &Value, errors: &mut ErrorList) {
        let (spec, path) = (attachment.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
        names::driver(text(spec, "/attacher"), &path.child("attacher"), errors);
        let source = path.child("source");
        match (some(spec, "/source/inlineVolumeSpec"), some(spec, "/source/persistentVolumeName")) {
            (None, None) => {
                errors.required(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (Some(_), Some(_)) => {
                errors.forbidden(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (None, Some(name)) if name.as_str() == Some("") => {
                errors.required(&source.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
            }
            (None, Some(name)) => {
                let name = name.as_str().unwrap_or_default();
                push_all(
                    errors,
                    &source.child("persistentVolumeName"),
                    name,
                    names_of_objects::dns1123_subdomain(name),
                );
            }
            _ => {}
        }
        let node = text(spec, "/nodeName");
        push_all(errors, &path.child("nodeName"), node, names_of_objects::dns1123_subdomain(node));
        status(attachment, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            self.validate(new, errors);
        } else {
            status(new, errors);
        }
        meta::immutable(new.get("spec"), old.get("spec"), &Path::new("spec"), errors);
    }
}

fn status(attachment: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    let metadata = attachment.pointer("/status/attachmentMetadata").and_then(Value::as_object);
    let bytes = |map: &Map<String, Value>| map.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if metadata.map_or(0, bytes) > MAX_METADATA {
        errors.too_long(&path.child("attachmentMetadata"), MAX_METADATA);
    }
    for field in ["attachError", "detachError"] {
        let Some(error) = some(attachment, &format!("/status/{field}")) else { continue };
        let path = path.child(field);
        if text(error, "/message").len() > MAX_MESSAGE {
            // Kubernetes tells the other limit.
            errors.too_long(&path.child("message"), MAX_METADATA);
        }
        if let Some(code) = int(error, "/errorCode").filter(|code| *code < 0) {
            let why = format!("must be between 0 and {}, inclusive", i32::MAX);
            errors.invalid(&path.child("errorCode"), &json!(code), &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn one_volume_is_attached_to_one_node() {
        let judge = |source: Value| {
            let attachment = json!({"spec": {"attacher": "a.example", "nodeName": "n", "source": source}});
            complaints(|errors| VolumeAttachmentStrategy.validate(&attachment, errors)).len()
        };
        assert_eq!(judge(json!({"persistentVolumeName": "pv"})), 0);
        assert_eq!(judge(json!({"persistentVolumeName": "pv", "inlineVolumeSpec": {}})), 1);
        assert_eq!(judge(json!({})), 1);
        assert_eq!(judge(json!({"persistentVolumeName": ""})), 1);
        assert_eq!(judge(json!({"persistentVolumeName": "A_b"})), 1);
    }

    #[test]
    fn a_driver_tells_no_more_than_fits() {
        let judge = |told: Value| complaints(|errors| status(&json!({ "status": told }), errors)).len();
        let large = "x".repeat(MAX_METADATA);
        assert_eq!(judge(json!({"attached": true, "attachmentMetadata": {"a": "b"}})), 0);
        assert_eq!(judge(json!({"attachmentMetadata": {"a": large}})), 1);
        assert_eq!(judge(json!({"attachError": {"message": "x".repeat(MAX_MESSAGE + 1), "errorCode": -1}})), 2);
    }
}
