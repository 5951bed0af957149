//! SelfSubjectReview: who am I (`kubectl auth whoami`).

use k8s_openapi::api::authentication::v1::SelfSubjectReview;

use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<SelfSubjectReview>().verbs(&["create"]).no_generation()
}
