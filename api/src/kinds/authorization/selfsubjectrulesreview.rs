//! SelfSubjectRulesReview: what may I do in this namespace (`kubectl auth can-i --list`).

use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;

use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<SelfSubjectRulesReview>().verbs(&["create"]).no_generation()
}
