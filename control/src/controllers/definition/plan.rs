//! What a definition's status should say. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition as Condition, CustomResourceDefinitionNames as Names,
    CustomResourceDefinitionStatus as Status,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The names that a definition has been given, which others of its group cannot have: kinds and resource names are told
/// apart by a leading `~`.
pub(super) fn names(definition: &CustomResourceDefinition) -> Vec<String> {
    let Some(names) = definition.status.as_ref().and_then(|status| status.accepted_names.as_ref()) else {
        return Vec::new();
    };
    let resources = [Some(&names.plural), names.singular.as_ref()].into_iter().flatten();
    let resources = resources.chain(names.short_names.iter().flatten()).filter(|name| !name.is_empty()).cloned();
    let kinds = [Some(&names.kind), names.list_kind.as_ref()].into_iter().flatten().filter(|name| !name.is_empty());
    resources.chain(kinds.map(|kind| format!("~{kind}"))).collect()
}

/// Whether requests for the kind are answered.
pub(super) fn is_served(status: &Status) -> bool {
    holds(status, "NamesAccepted")
}

fn holds(status: &Status, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

/// The status with the names that are free and the conditions that follow.
pub(super) fn accept(wanted: &Names, shown: &Status, taken: &BTreeSet<String>, now: Timestamp) -> Status {
    let mut status = shown.clone();
    let mut accepted = status.accepted_names.take().unwrap_or_default();
    let mut conflicts = Vec::new();
    let mut free = |name: &str, reason: &'static str| {
        let used = taken.contains(name);
        if used {
            conflicts.push((reason, format!("{:?} is already in use", name.trim_start_matches('~'))));
        }
        !used
    };
    if free(&wanted.plural, "PluralConflict") {
        accepted.plural.clone_from(&wanted.plural);
    }
    if wanted.singular.as_ref().is_none_or(|name| free(name, "SingularConflict")) {
        accepted.singular.clone_from(&wanted.singular);
    }
    // All of them are looked at, so that each conflict is told.
    let used = wanted.short_names.iter().flatten().filter(|name| !free(name, "ShortNamesConflict")).count();
    if used == 0 {
        accepted.short_names.clone_from(&wanted.short_names);
    }
    if free(&format!("~{}", wanted.kind), "KindConflict") {
        accepted.kind.clone_from(&wanted.kind);
    }
    if wanted.list_kind.as_ref().is_none_or(|name| free(&format!("~{name}"), "ListKindConflict")) {
        accepted.list_kind.clone_from(&wanted.list_kind);
    }
    accepted.categories.clone_from(&wanted.categories);
    status.accepted_names = Some(accepted);
    let was_accepted = is_served(&status);
    match conflicts.into_iter().next() {
        Some((reason, message)) => {
            set(&mut status, "NamesAccepted", "False", reason, &message, now);
            if !holds(&status, "Established") {
                set(&mut status, "Established", "False", "NotAccepted", "not all names are accepted", now);
            }
        }
        None => {
            set(&mut status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
            let (held, reason) = if was_accepted { ("True", "InitialNamesAccepted") } else { ("False", "Installing") };
            if !holds(&status, "Established") {
                set(&mut status, "Established", held, reason, "the initial names have been accepted", now);
            }
        }
    }
    status
}

/// How far a deletion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Removing,
    Removed,
}

pub(super) fn ending(shown: &Status, step: Ending, now: Timestamp) -> Status {
    let mut status = shown.clone();
    let (held, reason, message) = match step {
        Ending::Removing => ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
        Ending::Removed => ("False", "InstanceDeletionCompleted", "removed all instances"),
    };
    set(&mut status, "Terminating", held, reason, message, now);
    status
}

/// Sets a condition; its time moves when its status does.
fn set(status: &mut Status, kind: &str, held: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().position(|c| c.type_ == kind);
    let since = before.and_then(|at| conditions.get(at)).filter(|c| c.status == held);
    let condition = Condition {
        type_: kind.to_owned(),
        status: held.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        ..Condition::default()
    };
    match before.and_then(|at| conditions.get_mut(at)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Names {
        Names {
            plural: "boats".into(),
            singular: Some("boat".into()),
            kind: "Boat".into(),
            list_kind: Some("BoatList".into()),
            short_names: Some(vec!["bo".into()]),
            categories: None,
        }
    }

    fn condition(status: &Status, kind: &str) -> (String, String) {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
        (found.status.clone(), found.reason.clone().unwrap())
    }

    #[test]
    fn names_are_accepted_first_and_the_definition_is_established_after() {
        let now = Timestamp::UNIX_EPOCH;
        let first = accept(&wanted(), &Status::default(), &BTreeSet::new(), now);
        assert_eq!(condition(&first, "NamesAccepted"), ("True".into(), "NoConflicts".into()));
        assert_eq!(condition(&first, "Established"), ("False".into(), "Installing".into()));
        let second = accept(&wanted(), &first, &BTreeSet::new(), now);
        assert_eq!(condition(&second, "Established"), ("True".into(), "InitialNamesAccepted".into()));
        assert_eq!(accept(&wanted(), &second, &BTreeSet::new(), now), second);
    }

    #[test]
    fn a_name_of_another_definition_is_not_given() {
        let taken = BTreeSet::from(["bo".to_owned(), "Boat".to_owned()]);
        let status = accept(&wanted(), &Status::default(), &taken, Timestamp::UNIX_EPOCH);
        assert_eq!(condition(&status, "NamesAccepted"), ("False".into(), "ShortNamesConflict".into()));
        assert_eq!(condition(&status, "Established"), ("False".into(), "NotAccepted".into()));
        let accepted = status.accepted_names.unwrap();
        assert_eq!((accepted.kind.as_str(), accepted.short_names), ("Boat", None));
    }
}
