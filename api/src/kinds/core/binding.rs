//! Binding: gives a pod its node. It is created and not stored.

use k8s_openapi::api::core::v1::Binding;

use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Binding>().verbs(&["create"]).no_generation()
}
