//! Who a request comes from, and what it may do.
//!
//! Authentication (`authn`) turns a certificate or a token into a [`UserInfo`]; authorization (`authorize`) judges
//! [`Attributes`]. What must stay true: every request, in-process clients included, passes an [`Authorizer`]; nothing
//! else in the server knows a user's name.

pub(crate) mod accounts;
pub mod authn;
pub mod authorize;
pub mod certificates;
pub(crate) mod files;
#[cfg(test)]
pub(crate) mod fixture;
mod graph;
pub mod impersonate;
pub mod kubeconfig;
pub mod node;
pub mod oidc;
pub mod pki;
pub mod rbac;
pub(crate) mod references;
pub mod renewal;
mod rules;
pub mod signing;
pub mod tokens;

pub use self::rbac::Rules;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

/// The group of every request with valid credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of every request without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of nodes, and what their names begin with.
pub const NODES: &str = "system:nodes";
pub const NODE_PREFIX: &str = "system:node:";

/// An authenticated user, `authentication.k8s.io/v1` UserInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with valid credentials: `system:authenticated` is added to the groups.
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// The administrator of the admin kubeconfig.
    pub fn admin() -> Self {
        Self::authenticated("wherry-admin", &[MASTERS])
    }

    pub fn scheduler() -> Self {
        Self::authenticated("system:kube-scheduler", &[])
    }

    pub fn controller_manager() -> Self {
        Self::authenticated("system:kube-controller-manager", &[])
    }

    /// As whom the API server itself asks the servers that extend it.
    pub fn aggregator() -> Self {
        Self::authenticated("system:kube-aggregator", &[MASTERS])
    }

    pub fn node(name: &str) -> Self {
        Self::authenticated(format!("{NODE_PREFIX}{name}"), &[NODES])
    }

    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// As documents show it: without what it does not have.
    pub fn to_json(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            object::set_at(&mut info, "uid", self.uid.as_str());
        }
        if !self.extra.is_empty() {
            object::set_at(&mut info, "extra", json!(self.extra));
        }
        info
    }

    /// Whether this is a part of the cluster (or a service account) rather than a person.
    pub fn is_system(&self) -> bool {
        self.name.starts_with("system:")
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name, if this is a node. Nobody is the node without a name.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty());
        name.filter(|_| self.in_group(NODES))
    }
}

/// What a request wants to do, as Kubernetes' authorizers see it.
///
/// For an API resource `resource` is set and `path` empty; for anything else (`/version`, `/metrics`) the reverse, and
/// `verb` is the lower-case HTTP method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    pub group: String,
    pub version: String,
    /// The plural name.
    pub resource: String,
    /// `""` for the resource itself.
    pub subresource: String,
    /// `""`: all namespaces, or a cluster-scoped resource.
    pub namespace: String,
    /// `""` for collections, so also for a create.
    pub name: String,
    /// A non-resource path.
    pub path: String,
    /// The `fieldSelector` parameter of a list, watch or deletecollection.
    pub field_selector: Option<String>,
    /// The `labelSelector` parameter of the same.
    pub label_selector: Option<String>,
}

impl Attributes {
    /// Attributes of a non-resource request.
    pub fn non_resource(verb: impl Into<String>, path: impl Into<String>) -> Self {
        Self { verb: verb.into(), path: path.into(), ..Self::default() }
    }

    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// 403 for a user who may not do it.
    pub fn forbidden(&self, user: &UserInfo, reason: &str) -> ApiError {
        let why = self.forbidden_by(user, reason);
        if !self.is_resource() {
            return ApiError::new(403, "Forbidden", format!("forbidden: {why}"));
        }
        let resource = GroupResource { group: self.group.clone().into(), resource: self.resource.clone().into() };
        ApiError::withheld(&resource, &self.name, why)
    }

    /// What follows `… is forbidden: ` in the message to the client:
    /// `User "x" cannot list resource "pods" in API group "" in the namespace "y"`.
    pub fn forbidden_by(&self, user: &UserInfo, reason: &str) -> String {
        let mut text = if self.is_resource() {
            let slash = if self.subresource.is_empty() { "" } else { "/" };
            let place = match self.namespace.as_str() {
                "" => " at the cluster scope".to_owned(),
                namespace => format!(" in the namespace {namespace:?}"),
            };
            format!(
                "User {:?} cannot {} resource {:?} in API group {:?}{place}",
                user.name,
                self.verb,
                format!("{}{slash}{}", self.resource, self.subresource),
                self.group,
            )
        } else {
            format!("User {:?} cannot {} path {:?}", user.name, self.verb, self.path)
        };
        if !reason.is_empty() {
            text.push_str(": ");
            text.push_str(reason);
        }
        text
    }
}

/// The answer of an authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Why not, for the client; may be empty.
    Deny(String),
}

impl Decision {
    pub fn allowed(&self) -> bool {
        *self == Self::Allow
    }

    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(reason.into())
    }
}

/// Judges requests. Called twice for a write: with the attributes before the body is read, and with the decoded object
/// after it.
#[async_trait]
pub trait Authorizer: Send + Sync + fmt::Debug {
    /// Whether the user may make this request.
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision;

    /// Why a request that is allowed is; may be empty.
    async fn reason(&self, _user: &UserInfo, _attributes: &Attributes) -> String {
        String::new()
    }

    /// All that the user may do in a namespace, as far as it can be listed.
    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules::default()
    }

    /// Whether the user may write this object (what Kubernetes' NodeRestriction admission, its certificate plugins and
    /// its storage of roles decide): `new` is absent for a delete, `old` for a create.
    async fn admit(
        &self,
        _user: &UserInfo,
        _attributes: &Attributes,
        _new: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Why an object may not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 403 about the object, with this reason.
    Forbidden(String),
    /// Something else.
    Error(ApiError),
}

/// Lets everything pass; for tests of other parts of the pipeline.
#[cfg(test)]
#[derive(Debug)]
pub struct AllowAll;

#[cfg(test)]
#[async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _user: &UserInfo, _attributes: &Attributes) -> Decision {
        Decision::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_reads_as_kubernetes_says_it() {
        let user = UserInfo::authenticated("jane", &[]);
        let mut attributes = Attributes { verb: "list".into(), resource: "pods".into(), ..Attributes::default() };
        assert_eq!(
            attributes.forbidden_by(&user, ""),
            r#"User "jane" cannot list resource "pods" in API group "" at the cluster scope"#
        );
        attributes.namespace = "web".into();
        attributes.subresource = "log".into();
        assert_eq!(
            attributes.forbidden_by(&user, "no"),
            r#"User "jane" cannot list resource "pods/log" in API group "" in the namespace "web": no"#
        );
        assert_eq!(
            Attributes::non_resource("get", "/metrics").forbidden_by(&user, ""),
            r#"User "jane" cannot get path "/metrics""#
        );
    }

    #[test]
    fn a_refusal_names_the_resource_whoever_serves_it() {
        let user = UserInfo::authenticated("jane", &[]);
        let attributes = Attributes {
            verb: "get".into(),
            group: "x.dev".into(),
            resource: "things".into(),
            name: "a".into(),
            ..Attributes::default()
        };
        let refused = attributes.forbidden(&user, "");
        assert!(refused.message.starts_with(r#"things.x.dev "a" is forbidden: User "jane" cannot get"#), "{refused}");
        let details = &refused.details;
        assert_eq!((&*details.name, &*details.group, &*details.kind), ("a", "x.dev", "things"));
        let refused = Attributes::non_resource("get", "/metrics").forbidden(&user, "");
        assert_eq!(refused.message, r#"forbidden: User "jane" cannot get path "/metrics""#);
    }

    #[test]
    fn a_node_is_known_by_its_group_and_its_name() {
        assert_eq!(UserInfo::node("n1").node_name(), Some("n1"));
        assert_eq!(UserInfo::authenticated("system:node:n1", &[]).node_name(), None);
    }
}
