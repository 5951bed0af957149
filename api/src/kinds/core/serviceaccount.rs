//! ServiceAccount: who a pod is. Tokens are asked for at `/token`.

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};

use crate::kinds::cells::{self, column};
use crate::kinds::deprecated;
use crate::kinds::tree::list;
use crate::resource::Descriptor;
use crate::strategy::Strategy;

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
        .strategy(ServiceAccountStrategy)
}

#[derive(Debug)]
struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn warnings(&self, account: &Value) -> Vec<String> {
        deprecated::of_service_account(account)
    }
}
