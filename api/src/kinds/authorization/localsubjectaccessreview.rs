//! LocalSubjectAccessReview: may somebody do this in this namespace.

use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;

use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<LocalSubjectAccessReview>().verbs(&["create"]).no_generation()
}
