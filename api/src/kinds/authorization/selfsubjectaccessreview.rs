//! SelfSubjectAccessReview: may I do this (`kubectl auth can-i`).

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<SelfSubjectAccessReview>().verbs(&["create"]).no_generation()
}
