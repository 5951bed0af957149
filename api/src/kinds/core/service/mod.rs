//! Service: one address for many pods.

use k8s_openapi::api::core::v1::Service;

use crate::resource::Descriptor;

mod columns;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Service>()
        .short(&["svc"])
        .categories(&["all"])
        .create_on_update()
        .status()
        .columns(columns::columns())
        .selectable(&["spec.clusterIP", "spec.type"])
        .no_generation()
}
