//! IPAddress: that an address of a Service range is taken, and by whom.

use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::tree::{some, text};
use crate::meta::{self, names, push_all};
use crate::resource::Descriptor;
use crate::strategy::{NameRule, Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<IPAddress>()
        .short(&["ip"])
        .columns(vec![
            cells::name(),
            column("ParentRef", "string", "The resource that an IPAddress is attached to.", |o, _| {
                json!(some(o, "/spec/parentRef").map_or(NONE.to_owned(), parent))
            }),
            cells::age(),
        ])
        .selectable(&[
            "spec.parentRef.group",
            "spec.parentRef.resource",
            "spec.parentRef.namespace",
            "spec.parentRef.name",
        ])
        .no_generation()
        .strategy(IpAddressStrategy)
}

/// `services/default/web`.
fn parent(reference: &Value) -> String {
    let part = |field: &str| text(reference, &format!("/{field}"));
    let mut shown = match part("group") {
        "" => part("resource").to_lowercase(),
        group => format!("{}.{group}", part("resource")).to_lowercase(),
    };
    for piece in [part("namespace"), part("name")].into_iter().filter(|p| !p.is_empty()) {
        shown = format!("{shown}/{piece}");
    }
    shown
}

#[derive(Debug)]
struct IpAddressStrategy;

impl Strategy for IpAddressStrategy {
    fn validate(&self, address: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec").child("parentRef");
        let Some(parent) = some(address, "/spec/parentRef") else { return errors.required(&path, "") };
        let group = text(parent, "/group");
        if !group.is_empty() {
            push_all(errors, &path.child("group"), group, names::dns1123_subdomain(group));
        }
        for (field, required) in [("resource", true), ("name", true), ("namespace", false)] {
            match text(parent, &format!("/{field}")) {
                "" if required => errors.required(&path.child(field), ""),
                value => push_all(errors, &path.child(field), value, names::path_segment(value)),
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        let path = Path::new("spec").child("parentRef");
        meta::immutable(new.pointer("/spec/parentRef"), old.pointer("/spec/parentRef"), &path, errors);
    }

    fn name_rule(&self) -> NameRule {
        NameRule::IpAddress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn an_address_belongs_to_somebody_for_ever() {
        let judge = |spec: Value| complaints(|errors| IpAddressStrategy.validate(&json!({ "spec": spec }), errors));
        assert_eq!(judge(json!({})), ["spec.parentRef: Required value"]);
        let of = |name: &str| json!({"parentRef": {"resource": "services", "namespace": "default", "name": name}});
        assert!(judge(of("web")).is_empty());
        let (old, new) = (json!({"spec": of("a")}), json!({"spec": of("b")}));
        let all = complaints(|errors| IpAddressStrategy.validate_update(&new, &old, Part::Main, errors));
        assert_eq!(all.len(), 1);
        assert_eq!(parent(&of("web")["parentRef"]), "services/default/web");
    }
}
