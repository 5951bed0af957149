//! The chain of authorizers: the first that allows, decides; the last denial is what the client reads.
//!
//! Administrators may do everything; nodes what concerns their own pods; the scheduler and the controllers what their
//! tables say; everybody else reads discovery and asks about themselves. Role-based rules will join the chain here.

use async_trait::async_trait;
use serde_json::Value;

use super::node::NodeAuthorizer;
use super::rules::{self, Rule};
use super::{Attributes, Authorizer, Decision, MASTERS, UserInfo};

/// The server's authorizer.
#[derive(Debug)]
pub struct Chain {
    nodes: NodeAuthorizer,
}

impl Chain {
    pub fn new(nodes: NodeAuthorizer) -> Self {
        Self { nodes }
    }
}

#[async_trait]
impl Authorizer for Chain {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) || everybody(user, attributes) || component(user, attributes) {
            return Decision::Allow;
        }
        match user.node_name() {
            Some(node) => self.nodes.authorize(node, attributes).await,
            None => Decision::Deny(String::new()),
        }
    }

    async fn admit(
        &self,
        user: &UserInfo,
        attributes: &Attributes,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Decision {
        match user.node_name() {
            Some(node) if !user.in_group(MASTERS) => self.nodes.admit(node, attributes, new, old),
            _ => Decision::Allow,
        }
    }
}

fn everybody(user: &UserInfo, attributes: &Attributes) -> bool {
    rules::public_path(attributes)
        || (user.in_group(super::AUTHENTICATED)
            && (rules::discovery_path(attributes) || any(rules::EVERYBODY, attributes)))
}

fn component(user: &UserInfo, attributes: &Attributes) -> bool {
    match user.name.as_str() {
        "system:kube-scheduler" => any(rules::SCHEDULER, attributes),
        "system:kube-controller-manager" => any(rules::CONTROLLERS, attributes),
        _ => false,
    }
}

fn any(rules: &[Rule], attributes: &Attributes) -> bool {
    rules.iter().any(|rule| rule.allows(attributes))
}
