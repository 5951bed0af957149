//! Pod: containers that share a node, an address and a fate.

mod columns;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::resource::Descriptor;
use crate::strategy::Strategy;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Pod>()
        .short(&["po"])
        .categories(&["all"])
        .status()
        .named("log", "Pod", &["get"])
        .named("binding", "Binding", &["create"])
        .named_of("eviction", ("policy", "v1"), "Eviction", &["create"])
        .columns(columns::columns())
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ])
        .strategy(PodStrategy)
}

#[derive(Debug)]
struct PodStrategy;

impl Strategy for PodStrategy {
    fn prepare_create(&self, object: &mut Value) {
        crate::kinds::tree::set(object, "status", json!({"phase": "Pending"}));
    }
}
