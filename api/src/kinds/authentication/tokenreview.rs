//! TokenReview: whose token is this, and is it good.

use k8s_openapi::api::authentication::v1::TokenReview;

use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<TokenReview>().verbs(&["create"]).no_generation()
}
