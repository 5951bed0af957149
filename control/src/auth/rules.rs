//! Rules as data, in the shape of RBAC's PolicyRule: what every node may do.

use super::Attributes;

/// Allows some verbs on some resources. `"*"` means any; a resource with a subresource is written `pods/status`, and
/// `*` covers both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub verbs: &'static [&'static str],
    pub groups: &'static [&'static str],
    pub resources: &'static [&'static str],
}

/// Verbs that only read.
pub(crate) const READ: &[&str] = &["get", "list", "watch"];
/// Verbs that change one object.
pub(crate) const WRITE: &[&str] = &["create", "update", "patch", "delete"];

pub(crate) const fn rule(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
) -> Rule {
    Rule { verbs, groups, resources }
}

impl Rule {
    pub(crate) fn allows(&self, attributes: &Attributes) -> bool {
        attributes.is_resource()
            && any(self.verbs, &attributes.verb)
            && any(self.groups, &attributes.group)
            && self.covers_resource(attributes)
    }

    fn covers_resource(&self, attributes: &Attributes) -> bool {
        self.resources.iter().any(|resource| match resource.split_once('/') {
            _ if *resource == "*" => true,
            Some(("*", sub)) => sub == attributes.subresource,
            Some((name, sub)) => name == attributes.resource && sub == attributes.subresource,
            None => *resource == attributes.resource && attributes.subresource.is_empty(),
        })
    }
}

fn any(list: &[&str], value: &str) -> bool {
    list.iter().any(|entry| *entry == "*" || *entry == value)
}
