//! THE list of built-in kinds: adding one is one file in its group's folder and one line here.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
pub(crate) mod cells;
pub mod certificates;
mod check;
pub mod coordination;
pub mod core;
pub(crate) mod deprecated;
pub mod discovery;
pub mod events;
pub mod exchanged;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod storage;
pub(crate) mod tree;

use crate::resource::Descriptor;

/// Every built-in kind.
pub fn all() -> Vec<Descriptor> {
    vec![
        core::namespace::descriptor(),
        core::node::descriptor(),
        core::pod::descriptor(),
        core::binding::descriptor(),
        core::configmap::descriptor(),
        core::secret::descriptor(),
        core::serviceaccount::descriptor(),
        core::service::descriptor(),
        core::endpoints::descriptor(),
        core::event::descriptor(),
        core::podtemplate::descriptor(),
        core::replicationcontroller::descriptor(),
        core::limitrange::descriptor(),
        core::resourcequota::descriptor(),
        core::persistentvolume::descriptor(),
        core::persistentvolumeclaim::descriptor(),
        discovery::endpointslice::descriptor(),
        coordination::lease::descriptor(),
        apiextensions::customresourcedefinition::descriptor(),
        apps::replicaset::descriptor(),
        apps::deployment::descriptor(),
        apps::controllerrevision::descriptor(),
        apps::statefulset::descriptor(),
        apps::daemonset::descriptor(),
        autoscaling::v2::descriptor(),
        autoscaling::v1::descriptor(),
        batch::job::descriptor(),
        batch::cronjob::descriptor(),
        policy::poddisruptionbudget::descriptor(),
        authentication::selfsubjectreview::descriptor(),
        authentication::tokenreview::descriptor(),
        authorization::localsubjectaccessreview::descriptor(),
        authorization::selfsubjectaccessreview::descriptor(),
        authorization::selfsubjectrulesreview::descriptor(),
        authorization::subjectaccessreview::descriptor(),
        rbac::role::descriptor(),
        rbac::rolebinding::descriptor(),
        rbac::clusterrole::descriptor(),
        rbac::clusterrolebinding::descriptor(),
        scheduling::priorityclass::descriptor(),
        certificates::certificatesigningrequest::descriptor(),
        admissionregistration::mutatingwebhookconfiguration::descriptor(),
        admissionregistration::validatingwebhookconfiguration::descriptor(),
        admissionregistration::mutatingadmissionpolicy::descriptor(),
        admissionregistration::mutatingadmissionpolicybinding::descriptor(),
        admissionregistration::validatingadmissionpolicy::descriptor(),
        admissionregistration::validatingadmissionpolicybinding::descriptor(),
        apiregistration::apiservice::descriptor(),
        events::event::descriptor(),
        flowcontrol::flowschema::descriptor(),
        flowcontrol::prioritylevelconfiguration::descriptor(),
        networking::ingress::descriptor(),
        networking::ingressclass::descriptor(),
        networking::ipaddress::descriptor(),
        networking::networkpolicy::descriptor(),
        networking::servicecidr::descriptor(),
        node::runtimeclass::descriptor(),
        resource::deviceclass::descriptor(),
        resource::resourceclaim::descriptor(),
        resource::resourceclaimtemplate::descriptor(),
        resource::resourceslice::descriptor(),
        storage::csidriver::descriptor(),
        storage::csinode::descriptor(),
        storage::csistoragecapacity::descriptor(),
        storage::storageclass::descriptor(),
        storage::volumeattachment::descriptor(),
        storage::volumeattributesclass::descriptor(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::json;

    use super::*;
    use crate::field::ErrorList;
    use crate::resource::{Idle, WRITABLE_METADATA};
    use crate::strategy::Part;

    #[test]
    fn names_in_urls_and_on_the_command_line_are_distinct() {
        let (mut paths, mut names) = (HashSet::new(), HashMap::new());
        for kind in all() {
            assert!(paths.insert(format!("{}/{}/{}", kind.group, kind.version, kind.plural)), "{}", kind.plural);
            // Other versions of the same objects have the same names.
            for short in &kind.short_names {
                let other = names.insert(short.to_string(), kind.storage_resource());
                assert!(other.is_none_or(|other| other == kind.storage_resource()), "{}", kind.plural);
            }
        }
    }

    #[test]
    fn a_row_has_a_name_and_every_cell_is_a_scalar() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
        for kind in all().into_iter().filter(Descriptor::stored) {
            assert!(kind.columns.iter().any(|c| c.name == "Name"), "{}", kind.kind);
            for column in &kind.columns {
                let crate::resource::Cell::Of(cell) = column.cell else { continue };
                let shown = cell(&json!({"metadata": {"name": "x"}}), now);
                assert!(
                    shown.is_string() || shown.is_number() || shown.is_boolean(),
                    "{} {}: {shown}",
                    kind.kind,
                    column.name
                );
                assert!(!column.description.is_empty(), "{} {}", kind.kind, column.name);
            }
        }
    }

    #[test]
    fn what_is_stored_in_another_version_is_stored_in_one_that_is_served() {
        for kind in all() {
            let (group, version, name) = kind.storage_kind();
            let stored = all().into_iter().find(|d| d.group == group && d.version == version && d.kind == name);
            let stored = stored.unwrap_or_else(|| panic!("{} is stored as what is not served", kind.kind));
            assert!(stored.is_storage_version() && stored.plural == kind.storage_resource().resource, "{}", kind.kind);
            assert_eq!((stored.scope, stored.durability), (kind.scope, kind.durability), "{}", kind.kind);
        }
    }

    #[test]
    fn the_documentation_says_of_every_kind_what_acts_on_it() {
        let page = include_str!("../../../docs/conformance.md");
        let cells = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').nth(1));
        let documented: HashSet<&str> = cells.flat_map(|cell| cell.split(',')).map(str::trim).collect();
        for kind in all() {
            assert!(documented.contains(&*kind.kind), "{} is not in docs/conformance.md", kind.kind);
        }
    }

    /// A kind's row begins with "nothing" as long as its descriptor says so.
    #[test]
    fn what_nothing_acts_on_is_documented_and_warned_of() {
        let page = include_str!("../../../docs/conformance.md");
        let rows = page.lines().filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.nth(1)?, cells.next()?))
        });
        let acted: Vec<(&str, &str)> =
            rows.flat_map(|(kinds, by)| kinds.split(',').map(move |kind| (kind.trim(), by))).collect();
        for kind in all().into_iter().filter(Descriptor::stored) {
            let (_, by) = acted.iter().find(|(name, _)| *name == kind.kind).unwrap_or(&("", ""));
            let nothing = by.contains("nothing") && !by.contains("as in Kubernetes");
            let others = by.contains("controllers that users install") && kind.kind != "IngressClass";
            let expected = if nothing {
                Some(Idle::Yet)
            } else if others {
                Some(Idle::Alone)
            } else {
                None
            };
            assert_eq!(kind.idle, expected, "{}: {by}", kind.kind);
            assert_eq!(kind.idle_warning().is_some(), kind.idle.is_some());
        }
    }

    #[test]
    fn hooks_take_any_tree_and_defaults_are_the_same_the_second_time() {
        for kind in all() {
            for object in [
                json!({}),
                json!({"metadata": {"name": "x"}, "spec": {}, "status": {}}),
                json!({"spec": 1, "data": []}),
                json!(null),
            ] {
                let mut once = object.clone();
                kind.strategy.prepare_create(&mut once);
                kind.strategy.default(&mut once);
                let mut twice = once.clone();
                kind.strategy.default(&mut twice);
                assert_eq!(once, twice, "{}", kind.kind);
                let mut errors = ErrorList::default();
                kind.strategy.validate(&once, &mut errors);
                kind.strategy.warnings(&once);
                for part in [Part::Main, Part::Status] {
                    kind.strategy.prepare_update(&mut twice, &object, part);
                    kind.strategy.validate_update(&twice, &object, part, &mut errors);
                }
            }
        }
    }

    #[test]
    fn a_status_is_written_with_the_metadata_that_kubernetes_takes() {
        let keeping: Vec<_> = all().into_iter().filter(|kind| !kind.status_keeps.is_empty()).collect();
        let mut found: Vec<(&str, &[&str])> = keeping.iter().map(|kind| (&*kind.kind, kind.status_keeps)).collect();
        found.sort_unstable();
        assert!(keeping.iter().all(Descriptor::has_status));
        let whole = |kind| (kind, WRITABLE_METADATA);
        let wanted = [
            whole("APIService"),
            whole("CustomResourceDefinition"),
            ("Deployment", &["labels"]),
            whole("FlowSchema"),
            ("Pod", &["ownerReferences"]),
            whole("PriorityLevelConfiguration"),
            whole("ResourceClaim"),
            whole("ServiceCIDR"),
            whole("ValidatingAdmissionPolicy"),
            whole("VolumeAttachment"),
        ];
        assert_eq!(found, wanted);
    }
}
