//! VolumeAttachment: the wish to have a volume attached to a node, and whether it is.

use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value, json};

use super::names;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::check::subdomain;
use crate::kinds::tree::{fill, is_true, object, some, split_status, text};
use crate::meta;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<VolumeAttachment>()
        .status()
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
        .strategy(VolumeAttachmentStrategy)
}

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
            _ => {}
        }
        subdomain(spec, "nodeName", &path, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            self.validate(new, errors);
        }
        meta::immutable(new.get("spec"), old.get("spec"), &Path::new("spec"), errors);
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
    }
}
