//! ServiceAccount: who a pod is. Tokens are asked for at `/token`.

use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};

use crate::kinds::cells::{self, column};
use crate::kinds::deprecated;
use crate::kinds::tree::{list, list_mut, text};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

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
    fn prepare_create(&self, account: &mut Value) {
        name_secrets(account);
    }

    fn prepare_update(&self, account: &mut Value, _old: &Value, _part: Part) {
        name_secrets(account);
    }

    fn warnings(&self, account: &Value) -> Vec<String> {
        deprecated::of_service_account(account)
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        // Who did not put it there is not told of it.
        if self.warnings(old).is_empty() { self.warnings(new) } else { Vec::new() }
    }
}

/// Secrets are those of the account's own namespace: nothing but their names is kept.
fn name_secrets(account: &mut Value) {
    for secret in list_mut(account, "secrets") {
        let name = text(secret, "/name").to_owned();
        *secret = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_by_its_name() {
        let given = json!({"metadata": {"name": "a"}, "secrets": [{"kind": "Secret", "namespace": "other", "name": "s",
            "uid": "1"}, {"name": "t"}]});
        let kept = json!([{"name": "s"}, {"name": "t"}]);
        let (mut created, mut updated) = (given.clone(), given.clone());
        ServiceAccountStrategy.prepare_create(&mut created);
        ServiceAccountStrategy.prepare_update(&mut updated, &given, Part::Main);
        assert_eq!((&created["secrets"], &updated["secrets"]), (&kept, &kept));
    }
}
