//! Decisions over a real cache.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use super::*;
use crate::auth::fixture::Fixture;
use crate::auth::{AllowAll, Authorizer, Refusal};

fn object(kind: &str, namespace: &str, name: &str, rest: Value) -> Value {
    let mut object = rest;
    object["apiVersion"] = format!("{GROUP}/v1").into();
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": name, "namespace": namespace});
    object
}

fn rule(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [""], "resources": resources})
}

fn binding(kind: &str, namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    let role = json!({"apiGroup": GROUP, "kind": role.0, "name": role.1});
    object(kind, namespace, name, json!({"roleRef": role, "subjects": [subject]}))
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "name": name})
}

fn get(resource: &str, namespace: &str, name: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb: "get".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

#[tokio::test]
async fn a_binding_grants_its_role_where_it_is_until_either_is_gone() {
    let fixture = Fixture::new().await;
    let rbac = Rbac::new(fixture.cache.clone());
    let jane = UserInfo::authenticated("jane", &[]);
    assert_eq!(rbac.authorize(&jane, &get("pods", "web", "p")), Decision::Deny(String::new()));

    let bound = binding("RoleBinding", "web", "b", ("ClusterRole", "reader"), user("jane"));
    fixture.put_object(&bound).await;
    assert_eq!(
        rbac.authorize(&jane, &get("pods", "web", "p")),
        Decision::deny(r#"RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found"#)
    );
    fixture.put_object(&object("ClusterRole", "", "reader", json!({"rules": [rule(&["get"], &["pods"])]}))).await;
    assert_eq!(rbac.authorize(&jane, &get("pods", "web", "p")), Decision::Allow);
    assert_eq!(
        rbac.reason(&jane, &get("pods", "web", "p")).unwrap(),
        r#"RBAC: allowed by RoleBinding "b/web" of ClusterRole "reader" to User "jane""#
    );
    for other in
        [get("pods", "other", "p"), get("pods", "", ""), get("pods/log", "web", "p"), get("secrets", "web", "")]
    {
        assert!(!rbac.authorize(&jane, &other).allowed(), "{other:?}");
    }
    fixture.remove_object(&bound).await;
    assert!(!rbac.authorize(&jane, &get("pods", "web", "p")).allowed());
}

#[tokio::test]
async fn groups_and_service_accounts_are_subjects_too() {
    let fixture = Fixture::new().await;
    let rbac = Rbac::new(fixture.cache.clone());
    fixture.put_object(&object("ClusterRole", "", "all", json!({"rules": [rule(&["*"], &["*"])]}))).await;
    let group = json!({"kind": "Group", "name": "devs"});
    fixture.put_object(&binding("ClusterRoleBinding", "", "devs", ("ClusterRole", "all"), group)).await;
    let account = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "ci"});
    fixture.put_object(&binding("RoleBinding", "web", "robots", ("ClusterRole", "all"), account)).await;
    let dev = UserInfo::authenticated("d", &["devs"]);
    assert!(rbac.authorize(&dev, &get("pods/exec", "any", "p")).allowed());
    let robot = UserInfo::authenticated("system:serviceaccount:ci:robot", &[]);
    assert!(rbac.authorize(&robot, &get("pods", "web", "p")).allowed());
    assert!(!rbac.authorize(&robot, &get("pods", "ci", "p")).allowed());
    let same_name = UserInfo::authenticated("devs", &[]);
    assert!(!rbac.authorize(&same_name, &get("pods", "web", "p")).allowed());
}

#[test]
fn rules_match_as_kubernetes_matches_them() {
    let rule = |text: Value| serde_json::from_value::<PolicyRule>(text).unwrap();
    let scale = rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}));
    assert!(rule::allows(&scale, &get("pods/scale", "a", "b")));
    assert!(!rule::allows(&scale, &get("pods", "a", "b")));
    let named = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["b"]}));
    assert!(rule::allows(&named, &get("pods", "a", "b")));
    assert!(!rule::allows(&named, &get("pods", "a", "")));
    let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*"]}));
    for (path, allowed) in [("/api", true), ("/api/", true), ("/api/v1", true), ("/apis", false)] {
        assert_eq!(rule::allows(&urls, &Attributes::non_resource("get", path)), allowed, "{path}");
    }
    assert!(!rule::allows(&urls, &Attributes::non_resource("post", "/api")));
}

async fn escalates(
    rbac: &Rbac,
    who: &UserInfo,
    kind: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    #[derive(Debug)]
    struct Nobody;
    #[async_trait::async_trait]
    impl Authorizer for Nobody {
        async fn authorize(&self, _: &UserInfo, _: &Attributes) -> Decision {
            Decision::Deny(String::new())
        }
    }
    let attributes = Attributes {
        verb: "create".into(),
        group: GROUP.into(),
        resource: kind.into(),
        namespace: wherry_api::object::namespace(object).into(),
        ..Attributes::default()
    };
    let allowed = escalation::check(rbac, &AllowAll, who, &attributes, Some(object), old).await;
    assert_eq!(allowed, Ok(()), "who may escalate and bind, may");
    escalation::check(rbac, &Nobody, who, &attributes, Some(object), old).await
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let fixture = Fixture::new().await;
    let rbac = Rbac::new(fixture.cache.clone());
    let jane = UserInfo::authenticated("jane", &[]);
    let held = object("Role", "web", "held", json!({"rules": [rule(&["get", "list"], &["pods"])]}));
    fixture.put_object(&held).await;
    fixture.put_object(&binding("RoleBinding", "web", "b", ("Role", "held"), user("jane"))).await;

    let less = object("Role", "web", "r", json!({"rules": [rule(&["get"], &["pods"])]}));
    assert_eq!(escalates(&rbac, &jane, "roles", &less, None).await, Ok(()));
    let more = object("Role", "web", "r", json!({"rules": [rule(&["get", "watch", "delete"], &["pods", "secrets"])]}));
    let message = "user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not \
                   currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"delete\"]}\n\
                   {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"watch\" \"delete\"]}";
    assert_eq!(escalates(&rbac, &jane, "roles", &more, None).await, Err(Refusal::Forbidden(message.to_owned())));
    assert_eq!(escalates(&rbac, &UserInfo::admin(), "roles", &more, None).await, Ok(()));
    let elsewhere = object("Role", "other", "r", json!({"rules": [rule(&["get"], &["pods"])]}));
    assert!(escalates(&rbac, &jane, "roles", &elsewhere, None).await.is_err());

    let bind_held = binding("RoleBinding", "web", "n", ("Role", "held"), user("joe"));
    assert_eq!(escalates(&rbac, &jane, "rolebindings", &bind_held, None).await, Ok(()));
    let missing = binding("RoleBinding", "web", "n", ("Role", "none"), user("joe"));
    assert!(matches!(
        escalates(&rbac, &jane, "rolebindings", &missing, None).await,
        Err(Refusal::Error(error)) if error.code == 404
    ));
    let aggregated = object("ClusterRole", "", "a", json!({"aggregationRule": {"clusterRoleSelectors": []}}));
    assert_eq!(
        escalates(&rbac, &jane, "clusterroles", &aggregated, None).await,
        Err(Refusal::Forbidden("must have cluster-admin privileges to use an aggregationRule".to_owned()))
    );
    let names: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
    let huge = json!({"rules": [{"verbs": names, "apiGroups": names, "resources": names}]});
    let huge = escalates(&rbac, &jane, "roles", &object("Role", "web", "r", huge), None).await;
    let Err(Refusal::Forbidden(why)) = huge else { panic!("eight million permissions were compared") };
    assert!(why.contains("too many to compare"), "{why}");
    let often = json!({"rules": [rule(&["get"], &["pods"; 20_000])]});
    fixture.put_object(&object("Role", "web", "often", often)).await;
    fixture.put_object(&binding("RoleBinding", "web", "o", ("Role", "often"), user("jane"))).await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = object("Role", "web", "r", json!({"rules": [rule(&names[..100], &names[..100])]}));
    let Err(Refusal::Forbidden(why)) = escalates(&rbac, &jane, "roles", &many, None).await else { panic!() };
    assert!(why.contains("too many permissions to compare"), "{why}");
    assert_eq!(escalates(&rbac, &jane, "roles", &less, None).await, Ok(()));
    let mut collected = more.clone();
    collected["metadata"]["finalizers"] = json!(["a/b"]);
    assert_eq!(escalates(&rbac, &jane, "roles", &collected, Some(&more)).await, Ok(()));
}
