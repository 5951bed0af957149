//! SubjectAccessReview: may somebody do this.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;

use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<SubjectAccessReview>().verbs(&["create"]).no_generation()
}
