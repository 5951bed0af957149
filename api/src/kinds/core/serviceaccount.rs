//! ServiceAccount: who a pod is. Tokens are asked for at `/token`.

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::json;

use crate::kinds::cells::{self, column};
use crate::kinds::tree::list;
use crate::resource::Descriptor;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ServiceAccount>()
        .short(&["sa"])
        .returns_deleted()
        .named_of("token", ("authentication.k8s.io", "v1"), "TokenRequest", &["create"])
        .columns(vec![
            cells::name(),
            column("Secrets", "string", "Secrets that pods of this account may mount.", |o, _| {
                json!(list(o, "/secrets").len())
            }),
            cells::age(),
        ])
        .no_generation()
}
