//! The chain of authorizers: the first that allows, decides; the denials are what the client reads.
//!
//! Administrators may do everything; nodes what concerns their own pods; everybody what roles say. Writes of roles,
//! bindings and certificate requests are judged by their contents too.

use async_trait::async_trait;
use serde_json::Value;

use super::node::NodeAuthorizer;
use super::rbac::{Rbac, Rules, escalation};
use super::{Attributes, Authorizer, Decision, MASTERS, Refusal, UserInfo, certificates};

/// The server's authorizer.
#[derive(Debug)]
pub struct Chain {
    nodes: NodeAuthorizer,
    rbac: Rbac,
}

impl Chain {
    pub fn new(nodes: NodeAuthorizer, rbac: Rbac) -> Self {
        Self { nodes, rbac }
    }
}

#[async_trait]
impl Authorizer for Chain {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow;
        }
        let node = match user.node_name() {
            Some(node) => self.nodes.authorize(node, attributes),
            None => Decision::Deny(String::new()),
        };
        match (node, self.rbac.authorize(user, attributes)) {
            (Decision::Allow, _) | (_, Decision::Allow) => Decision::Allow,
            (Decision::Deny(one), Decision::Deny(two)) => {
                let reasons: Vec<String> = [one, two].into_iter().filter(|reason| !reason.is_empty()).collect();
                Decision::Deny(reasons.join("\n"))
            }
        }
    }

    async fn reason(&self, user: &UserInfo, attributes: &Attributes) -> String {
        self.rbac.reason(user, attributes).unwrap_or_default()
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut rules = self.rbac.rules_for(user, namespace);
        if user.node_name().is_some() {
            rules.errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        rules
    }

    async fn admit(
        &self,
        user: &UserInfo,
        attributes: &Attributes,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Refusal> {
        if let Some(node) = user.node_name().filter(|_| !user.in_group(MASTERS))
            && let Decision::Deny(reason) = self.nodes.admit(node, attributes, new, old)
        {
            return Err(Refusal::Forbidden(reason));
        }
        certificates::check(self, user, attributes, new, old).await?;
        escalation::check(&self.rbac, self, user, attributes, new, old).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::fixture::Fixture;
    use crate::auth::rbac::defaults;
    use crate::auth::tokens;

    /// `verb group/resource[/subresource] namespace/name [fieldSelector]`; the core group is empty. `METHOD PATH` is no
    /// resource's.
    fn request(text: &str) -> Attributes {
        let parts: Vec<&str> = text.split(' ').collect();
        if parts[0].chars().all(char::is_uppercase) {
            return Attributes::non_resource(parts[0].to_lowercase(), parts[1]);
        }
        let mut resource = parts[1].split('/');
        let (namespace, name) = parts.get(2).and_then(|p| p.split_once('/')).unwrap_or_default();
        Attributes {
            verb: parts[0].to_owned(),
            group: resource.next().unwrap().to_owned(),
            version: "v1".to_owned(),
            resource: resource.next().unwrap().to_owned(),
            subresource: resource.next().unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            field_selector: parts.get(3).map(|s| (*s).to_owned()),
            ..Attributes::default()
        }
    }

    async fn chain() -> (Fixture, Chain) {
        let fixture = Fixture::new().await;
        for object in defaults::all() {
            fixture.put_object(&object).await;
        }
        for (name, node) in [("mine", "n1"), ("other", "n2")] {
            let spec = json!({
                "nodeName": node, "serviceAccountName": format!("{name}-account"),
                "volumes": [{"name": "v", "secret": {"secretName": format!("{name}-secret")}}, {"name": "t", "projected":
                    {"sources": [{"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"audience": "vault"}}]}}],
                "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": format!("{name}-map")}}]}],
            });
            fixture.put("Pod", "web", name, spec).await;
        }
        let nodes = NodeAuthorizer::new(fixture.cache.clone(), fixture.registry.clone());
        let rbac = Rbac::new(fixture.cache.clone());
        (fixture, Chain::new(nodes, rbac))
    }

    async fn check(chain: &Chain, user: &UserInfo, allowed: bool, requests: &[&str]) {
        for text in requests {
            let decision = chain.authorize(user, &request(text)).await;
            assert_eq!(decision.allowed(), allowed, "{}: {text}", user.name);
        }
    }

    #[tokio::test]
    async fn administrators_may_do_everything() {
        let (_fixture, chain) = chain().await;
        check(&chain, &UserInfo::admin(), true, &["delete /secrets web/x", "GET /metrics", "impersonate /users /jane"])
            .await;
    }

    #[tokio::test]
    async fn strangers_read_what_is_public_and_nothing_else() {
        let (_fixture, chain) = chain().await;
        let user = UserInfo::anonymous();
        check(&chain, &user, true, &["GET /livez", "GET /readyz", "GET /healthz", "GET /version", "GET /version/"])
            .await;
        check(
            &chain,
            &user,
            false,
            &[
                "GET /api",
                "GET /apis/apps/v1",
                "GET /metrics",
                "GET /livez/ping",
                "POST /version",
                "list /pods web/",
                "create authorization.k8s.io/selfsubjectaccessreviews",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn service_accounts_read_discovery_and_ask_about_themselves() {
        let (_fixture, chain) = chain().await;
        let user = UserInfo::authenticated("system:serviceaccount:web:robot", &["system:serviceaccounts"]);
        check(
            &chain,
            &user,
            true,
            &[
                "GET /api",
                "GET /apis/apps/v1",
                "GET /openapi/v3",
                "create authorization.k8s.io/selfsubjectaccessreviews",
                "create authentication.k8s.io/selfsubjectreviews",
            ],
        )
        .await;
        check(
            &chain,
            &user,
            false,
            &[
                "list /pods web/",
                "get /secrets web/x",
                "GET /apisx",
                "GET /metrics",
                "get images.wherry.dev/images web/a",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn a_node_reads_and_writes_what_concerns_it() {
        let (_fixture, chain) = chain().await;
        check(
            &chain,
            &UserInfo::node("n1"),
            true,
            &[
                "list /services /",
                "watch discovery.k8s.io/endpointslices /",
                "watch /pods / spec.nodeName=n1",
                "list /pods web/ spec.nodeName=n1,status.phase!=Failed",
                "get /pods web/mine",
                "patch /pods/status web/mine",
                "delete /pods web/mine",
                "get /secrets web/mine-secret",
                "watch /secrets web/ metadata.name=mine-secret",
                "get /configmaps web/mine-map",
                "get /serviceaccounts web/mine-account",
                "create /serviceaccounts/token web/mine-account",
                "create /nodes",
                "get /nodes /n2",
                "patch /nodes/status /n1",
                "update /nodes /n1",
                "create coordination.k8s.io/leases kube-node-lease/",
                "update coordination.k8s.io/leases kube-node-lease/n1",
                "create /events web/",
                "get images.wherry.dev/images web/app",
                "create certificates.k8s.io/certificatesigningrequests",
                "update storage.k8s.io/csinodes /n1",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn a_node_has_no_part_in_what_is_another_nodes() {
        let (_fixture, chain) = chain().await;
        check(
            &chain,
            &UserInfo::node("n1"),
            false,
            &[
                "list /pods /",
                "watch /pods / spec.nodeName=n2",
                "list /pods / spec.nodeName!=n1",
                "get /pods web/other",
                "patch /pods/status web/other",
                "delete /pods web/other",
                "update /pods web/mine",
                "get /secrets web/other-secret",
                "get /secrets other/mine-secret",
                "get /persistentvolumeclaims web/any",
                "get /persistentvolumes /any",
                "update storage.k8s.io/csinodes /n2",
                "get storage.k8s.io/volumeattachments /any",
                "get resource.k8s.io/resourceclaims web/any",
                "list resource.k8s.io/resourceslices /",
                "list /secrets web/",
                "update /secrets web/mine-secret",
                "get /configmaps web/other-map",
                "create /serviceaccounts/token web/other-account",
                "delete /nodes /n1",
                "patch /nodes/status /n2",
                "get coordination.k8s.io/leases kube-node-lease/n2",
                "create coordination.k8s.io/leases kube-system/",
                "create images.wherry.dev/images web/app",
                "list apps/deployments /",
                "delete /events web/e",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn the_scheduler_binds_and_the_controllers_make_but_neither_grants() {
        let (_fixture, chain) = chain().await;
        check(
            &chain,
            &UserInfo::scheduler(),
            true,
            &["watch /pods /", "create /pods/binding web/p", "patch /pods/status web/p", "create /events web/"],
        )
        .await;
        check(&chain, &UserInfo::scheduler(), false, &["get /secrets web/x", "create /pods web/", "delete /nodes /n"])
            .await;
        check(
            &chain,
            &UserInfo::controller_manager(),
            true,
            &[
                "create /pods web/",
                "patch apps/deployments/status web/d",
                "delete any.example/things web/t",
                "list /secrets /",
            ],
        )
        .await;
        check(
            &chain,
            &UserInfo::controller_manager(),
            false,
            &["create rbac.authorization.k8s.io/clusterrolebindings", "impersonate /users /jane", "GET /metrics"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_node_writes_only_objects_that_are_its_own() {
        let (_fixture, chain) = chain().await;
        let node = UserInfo::node("n1");
        let object = |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {label: "x"}}});
        let lease = "create coordination.k8s.io/leases kube-node-lease/";
        let claim = "update /persistentvolumeclaims/status web/c";
        let mirror = |spec: Value| {
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true});
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [owner]},
                "spec": spec})
        };
        let token = |uid: &str| json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "mine", "uid": uid}}});
        let token_for = |audiences: &[&str]| {
            let mut request = token("mine-uid");
            request["spec"]["audiences"] = json!(audiences);
            request
        };
        for (text, new, old, allowed) in [
            ("create /nodes", object("n1", "kubernetes.io/hostname"), None, true),
            ("create /nodes", object("n1", "rack"), None, true),
            ("create /nodes", object("n2", "rack"), None, false),
            ("create /nodes", object("n1", "node-role.kubernetes.io/control-plane"), None, false),
            ("update /nodes /n1", object("n1", "node-restriction.kubernetes.io/pci"), None, false),
            (
                "update /nodes /n1",
                json!({"metadata": {"name": "n1"}}),
                Some(json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "k"}]}})),
                false,
            ),
            (lease, object("n1", "a"), None, true),
            (lease, object("n2", "a"), None, false),
            ("update /pods/status web/other", json!({}), Some(json!({"spec": {"nodeName": "n2"}})), false),
            ("update /pods/status web/mine", json!({}), Some(json!({"spec": {"nodeName": "n1"}})), true),
            (
                "update /pods/status web/mine",
                json!({"metadata": {"labels": {"a": "b"}}}),
                Some(json!({"spec": {"nodeName": "n1"}})),
                false,
            ),
            (
                "update /pods/status web/mine",
                json!({"status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "another"}]}}),
                Some(json!({"spec": {"nodeName": "n1"}})),
                false,
            ),
            (
                claim,
                json!({"status": {"capacity": {"storage": "2Gi"}}}),
                Some(json!({"status": {"phase": "Bound"}})),
                false,
            ),
            (
                claim,
                json!({"metadata": {"resourceVersion": "1"}, "status": {"capacity": {"storage": "2Gi"}, "phase": "Bound"}}),
                Some(json!({"metadata": {"resourceVersion": "1"}, "status": {"phase": "Bound"}})),
                true,
            ),
            (claim, json!({"metadata": {}}), Some(json!({"metadata": {"finalizers": ["f"]}})), false),
            (claim, object("c", "a"), Some(json!({"metadata": {"name": "c"}})), false),
            ("create /pods/eviction web/mine", json!({}), None, true),
            ("create /pods/eviction web/other", json!({}), None, false),
            ("create /pods/binding web/mine", json!({"target": {"name": "n1"}}), None, false),
            ("create /pods web/", json!({"spec": {"nodeName": "n1"}}), None, false),
            ("create /pods web/", mirror(json!({"nodeName": "n1"})), None, true),
            ("create /pods web/", mirror(json!({"nodeName": "n2"})), None, false),
            ("create /pods web/", mirror(json!({"nodeName": "n1", "serviceAccountName": "default"})), None, false),
            ("create /pods web/", mirror(json!({"nodeName": "n1", "imagePullSecrets": [{"name": "s"}]})), None, false),
            ("create /serviceaccounts/token web/mine-account", token("mine-uid"), None, true),
            ("create /serviceaccounts/token web/mine-account", token_for(&[tokens::ISSUER]), None, true),
            ("create /serviceaccounts/token web/mine-account", token_for(&["vault"]), None, true),
            ("create /serviceaccounts/token web/mine-account", token_for(&["bank"]), None, false),
            ("create /serviceaccounts/token web/mine-account", token_for(&["vault", tokens::ISSUER]), None, false),
            ("create /serviceaccounts/token web/mine-account", token("old-uid"), None, false),
            ("create /serviceaccounts/token web/mine-account", json!({"spec": {}}), None, false),
        ] {
            let decision = chain.admit(&node, &request(text), Some(&new), old.as_ref()).await;
            assert_eq!(decision.is_ok(), allowed, "{text}: {new}: {decision:?}");
        }
    }
}
