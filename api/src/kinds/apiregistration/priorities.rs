//! Where groups and versions stand among others in discovery: Kubernetes' numbers for its own, and what custom and foreign
//! ones get.

/// A group's and a version's rank; higher is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    pub group: i32,
    pub version: i32,
}

/// The group of APIServices themselves. It has no APIService, cannot be given to another server, and comes first.
pub const GROUP: &str = "apiregistration.k8s.io";

/// Of groups that CustomResourceDefinitions define.
pub const CUSTOM: Priority = Priority { group: 1000, version: 100 };

const BUILT_IN: [(&str, &str, i32, i32); 21] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 20),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
];

/// The rank of a built-in group version; `None`: it is not one.
pub fn built_in(group: &str, version: &str) -> Option<Priority> {
    let found = BUILT_IN.iter().find(|(g, v, ..)| (*g, *v) == (group, version))?;
    Some(Priority { group: found.2, version: found.3 })
}

/// Splits an APIService's name, `VERSION.GROUP`.
pub fn of_name(name: &str) -> Option<(&str, &str)> {
    name.split_once('.').map(|(version, group)| (group, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_group_version_has_a_rank() {
        for kind in crate::kinds::all().iter().filter(|kind| kind.group != GROUP) {
            assert!(built_in(&kind.group, &kind.version).is_some(), "{}", kind.api_version());
        }
        assert_eq!(built_in(GROUP, "v1"), None);
        assert_eq!(of_name("v1.a.example"), Some(("a.example", "v1")));
        assert_eq!(of_name("v1."), Some(("", "v1")));
    }
}
