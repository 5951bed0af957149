//! Every route by who may not use it: each kind with each verb and subresource, and each path that is no resource's.
//!
//! Routes come from the registry, so a new kind is covered when it is listed. Who may what is written here again, in words of
//! its own: a change of the roles shows.

use std::sync::Arc;

use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use wherry_api::resource::Descriptor;

use super::{Api, collection, sample};
use crate::auth::authorize::Chain;
use crate::auth::node::NodeAuthorizer;
use crate::auth::rbac::Rbac;
use crate::auth::{MASTERS, UserInfo};
use crate::server::subresources;

const NAME: &str = "test-one";
const READ: [&str; 3] = ["get", "list", "watch"];

/// One request that a server has an answer to.
struct Route {
    verb: &'static str,
    group: String,
    /// With its subresource after a slash; empty for a path that is no resource's.
    resource: String,
    /// Whether it is about the namespace `default`, and not about all of the cluster.
    in_namespace: bool,
    method: Method,
    path: String,
    body: Value,
}

fn method(verb: &str) -> Method {
    match verb {
        "create" => Method::POST,
        "update" => Method::PUT,
        "patch" => Method::PATCH,
        "delete" | "deletecollection" => Method::DELETE,
        _ => Method::GET,
    }
}

fn routes_of(resource: &Descriptor) -> Vec<Route> {
    let all = collection(resource);
    let one = format!("{all}/{NAME}");
    let route = |verb: &'static str, subresource: &str, path: String, body: Value| Route {
        verb,
        group: resource.group.to_string(),
        resource: format!("{}{}{subresource}", resource.plural, if subresource.is_empty() { "" } else { "/" }),
        in_namespace: path.contains("/namespaces/default/"),
        method: method(verb),
        path,
        body,
    };
    let patch = || json!({"metadata": {"labels": {"intruder": "yes"}}});
    let mut routes = Vec::new();
    for verb in resource.verbs.iter().copied() {
        let (path, body) = match verb {
            "create" => (all.clone(), sample(resource, "intruder")),
            "list" | "deletecollection" => (all.clone(), Value::Null),
            "watch" => (format!("{all}?watch=true&timeoutSeconds=1"), Value::Null),
            "update" => (one.clone(), sample(resource, NAME)),
            "patch" => (one.clone(), patch()),
            _ => (one.clone(), Value::Null),
        };
        if resource.namespaced() && matches!(verb, "list" | "watch") {
            routes.push(route(verb, "", path.replace("/namespaces/default", ""), Value::Null));
        }
        routes.push(route(verb, "", path, body));
    }
    for subresource in &resource.subresources {
        for verb in subresources::verbs(subresource).iter().copied() {
            let path = format!("{one}/{}", subresource.name());
            let body = if verb == "patch" { patch() } else { json!({"metadata": {"name": NAME}}) };
            routes.push(route(verb, subresource.name(), path, body));
        }
    }
    routes
}

fn routes(api: &Api) -> Vec<Route> {
    let mut routes: Vec<Route> = api.server.registry().iter().flat_map(|resource| routes_of(resource)).collect();
    for path in PATHS {
        for (verb, method) in [("get", Method::GET), ("post", Method::POST)] {
            routes.push(Route {
                verb,
                group: String::new(),
                resource: String::new(),
                in_namespace: false,
                method,
                path: path.to_owned(),
                body: Value::Null,
            });
        }
    }
    routes
}

const PATHS: [&str; 18] = [
    "/",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/livez/ping",
    "/metrics",
    "/backup",
    "/nonsense",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
];
const PUBLIC: [&str; 4] = ["/version", "/healthz", "/livez", "/readyz"];
const DISCOVERY: [&str; 7] = ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/openapi/v2", "/openapi/v3"];
const ISSUER: [&str; 2] = ["/.well-known/openid-configuration", "/openid/v1/jwks"];
/// What everybody with credentials asks about themselves.
const SELF: &str = "selfsubjectaccessreviews selfsubjectrulesreviews selfsubjectreviews";

/// Resources of a namespace that the role `view` shows.
const VIEW: &[(&str, &str)] = &[
    (
        "",
        "bindings configmaps endpoints events limitranges persistentvolumeclaims persistentvolumeclaims/status pods pods/log \
         pods/status replicationcontrollers replicationcontrollers/scale replicationcontrollers/status resourcequotas \
         resourcequotas/status serviceaccounts services services/status",
    ),
    (
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
         replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    ("batch", "cronjobs cronjobs/status jobs jobs/status"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    ("resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
];
/// What `edit` shows besides.
const EDIT_READS: &[(&str, &str)] = &[
    ("", "secrets pods/attach pods/exec pods/portforward pods/proxy services/proxy"),
    ("coordination.k8s.io", "leases"),
];
/// What `edit` writes.
const EDIT_WRITES: &[(&str, &str)] = &[
    (
        "",
        "configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy \
         replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    ("apps", "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs jobs"),
    ("coordination.k8s.io", "leases"),
    ("networking.k8s.io", "ingresses networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("resource.k8s.io", "resourceclaims resourceclaimtemplates"),
];
/// What any node reads.
const NODE_READS: &[(&str, &str)] = &[
    ("", "services endpoints namespaces nodes"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "networkpolicies"),
    ("node.k8s.io", "runtimeclasses"),
    ("storage.k8s.io", "csidrivers storageclasses"),
];
/// What a node may begin to create: the object decides.
const NODE_CREATES: &[(&str, &str)] = &[
    ("", "events nodes pods"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("events.k8s.io", "events"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csinodes"),
];

fn listed(table: &[(&str, &str)], route: &Route) -> bool {
    table.iter().any(|(group, names)| *group == route.group && names.split_whitespace().any(|n| n == route.resource))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anonymous,
    Robot,
    Node,
    Viewer,
    Editor,
}

impl Who {
    const ALL: [Self; 5] = [Self::Anonymous, Self::Robot, Self::Node, Self::Viewer, Self::Editor];

    fn user(self) -> UserInfo {
        match self {
            Self::Anonymous => UserInfo::anonymous(),
            Self::Robot => {
                let groups = ["system:serviceaccounts", "system:serviceaccounts:default"];
                UserInfo::authenticated("system:serviceaccount:default:robot", &groups)
            }
            Self::Node => UserInfo::node("n1"),
            Self::Viewer => UserInfo::authenticated("viewer", &[]),
            Self::Editor => UserInfo::authenticated("editor", &[]),
        }
    }

    fn may(self, route: &Route) -> bool {
        if route.resource.is_empty() {
            let any = |paths: &[&str]| paths.contains(&route.path.as_str());
            let reads =
                any(&PUBLIC) || (self != Self::Anonymous && any(&DISCOVERY)) || (self == Self::Robot && any(&ISSUER));
            return route.verb == "get" && reads;
        }
        let itself = route.verb == "create" && SELF.split_whitespace().any(|name| name == route.resource);
        let reads = READ.contains(&route.verb);
        match self {
            Self::Anonymous => false,
            Self::Robot => itself,
            Self::Viewer => itself || (route.in_namespace && reads && listed(VIEW, route)),
            Self::Editor => {
                let here = if reads {
                    listed(VIEW, route) || listed(EDIT_READS, route)
                } else {
                    listed(EDIT_WRITES, route)
                        || (route.verb == "create"
                            && matches!(route.resource.as_str(), "pods/eviction" | "serviceaccounts/token"))
                };
                itself || (route.in_namespace && here)
            }
            Self::Node => {
                itself
                    || (reads && listed(NODE_READS, route))
                    || (route.verb == "create" && listed(NODE_CREATES, route))
                    || (matches!(route.verb, "update" | "patch") && route.resource == "events")
            }
        }
    }
}

/// A server with real authorization and an object of each kind.
async fn guarded() -> Api {
    let api = Api::with(|cache, registry| {
        let nodes = NodeAuthorizer::new(cache.clone(), registry.clone());
        Arc::new(Chain::new(nodes, Rbac::new(cache.clone())))
    })
    .await;
    api.server.bootstrap_roles().await.unwrap();
    let kinds: Vec<_> = api.server.registry().iter().filter(|r| r.stored()).cloned().collect();
    for resource in kinds {
        let made = api.post(&collection(&resource), &sample(&resource, NAME)).await;
        // A kind that is served in two groups has its object already.
        assert!(matches!(made.code, 201 | 409), "{}: {}", resource.kind, made.message());
    }
    for (user, role) in [("viewer", "view"), ("editor", "edit")] {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        api.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await.expect(201);
    }
    api
}

#[tokio::test]
async fn whoever_may_not_is_refused_on_every_route_and_nothing_happens() {
    let api = guarded().await;
    let routes = routes(&api);
    let (mut refused, mut allowed, mut wrong) = (0, 0, Vec::new());
    for who in Who::ALL {
        let user = who.user();
        assert!(!user.in_group(MASTERS));
        let before = api.server.store().revision();
        for route in &routes {
            let may = who.may(route);
            // What somebody may change is not tried here.
            if may && route.method != Method::GET {
                allowed += 1;
                continue;
            }
            let media = if route.verb == "patch" { "application/merge-patch+json" } else { "application/json" };
            let request = http::Request::builder().method(&route.method).uri(&route.path).header(CONTENT_TYPE, media);
            let body = if route.body.is_null() { String::new() } else { route.body.to_string() };
            let (code, message) = api.status_as(request, body, &user).await;
            let is_refused = matches!(code, 401 | 403);
            if may == is_refused {
                wrong.push(format!("{who:?} {} {} → {code} {message}", route.method, route.path));
            }
            if may { allowed += 1 } else { refused += 1 }
        }
        assert_eq!(api.server.store().revision(), before, "{who:?} has changed something");
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
    let size = routes.len();
    #[expect(clippy::print_stdout, reason = "the table's size is what people ask for")]
    {
        println!("{size} routes × {} users: {refused} refused, {allowed} allowed", Who::ALL.len());
    }
    assert!(refused > 3 * allowed && size > 500, "{size} {refused} {allowed}");
}
