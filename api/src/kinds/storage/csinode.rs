//! CSINode: the volume drivers of a node.

use std::collections::HashSet;

use k8s_openapi::api::storage::v1::CSINode;
use serde_json::{Value, json};

use super::names;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::check::strings;
use crate::kinds::tree::{int, list, remove, text};
use crate::meta::{self, push_all, same};
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const MAX_NODE_ID: usize = 192;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<CSINode>()
        .idle(Idle::Yet)
        .columns(vec![
            cells::name(),
            column(
                "Drivers",
                "integer",
                "Drivers indicates the number of CSI drivers registered on the node",
                |o, _| json!(list(o, "/spec/drivers").len()),
            ),
            cells::age(),
        ])
        .no_generation()
        .conditional()
        .strategy(CsiNodeStrategy)
}

#[derive(Debug)]
struct CsiNodeStrategy;

impl Strategy for CsiNodeStrategy {
    fn validate(&self, node: &Value, errors: &mut ErrorList) {
        let drivers = list(node, "/spec/drivers");
        let mut seen = HashSet::new();
        for (index, driver) in drivers.iter().enumerate() {
            let path = Path::new("spec").child("drivers").index(index);
            validate_driver(driver, &path, errors);
            let name = text(driver, "/name");
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
        }
    }

    /// A driver that is there keeps what it said of itself, but for how many volumes it takes.
    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        self.validate(new, errors);
        for driver in list(new, "/spec/drivers") {
            let named = |d: &&Value| text(d, "/name") == text(driver, "/name");
            let Some(before) = list(old, "/spec/drivers").iter().find(named) else { continue };
            let (mut now, mut before) = (driver.clone(), before.clone());
            remove(&mut now, "allocatable");
            remove(&mut before, "allocatable");
            if !same(Some(&now), Some(&before)) {
                errors.invalid(&Path::new("spec").child("drivers"), &now, meta::IMMUTABLE);
            }
        }
    }
}

fn validate_driver(driver: &Value, path: &Path, errors: &mut ErrorList) {
    names::driver(text(driver, "/name"), &path.child("name"), errors);
    let id = text(driver, "/nodeID");
    if id.is_empty() {
        errors.required(&path.child("nodeID"), "");
    } else if id.len() > MAX_NODE_ID {
        errors.invalid(&path.child("nodeID"), &json!(id), &format!("must be {MAX_NODE_ID} characters or less"));
    }
    if let Some(count) = int(driver, "/allocatable/count").filter(|c| *c < 0) {
        let why = "must be greater than or equal to 0";
        errors.invalid(&path.child("allocatable").child("count"), &json!(count), why);
    }
    let keys = strings(driver, "/topologyKeys");
    let mut seen = HashSet::new();
    for key in keys {
        if key.is_empty() {
            errors.required(path, "");
        }
        if !seen.insert(key) {
            errors.duplicate(path, &json!(key));
        }
        push_all(errors, path, key, meta::names::qualified_name(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn node(driver: &Value) -> Value {
        json!({"spec": {"drivers": [crate::patch::merge::apply(&json!({"name": "a.example", "nodeID": "n"}), driver)]}})
    }

    #[test]
    fn a_driver_knows_its_node() {
        let judge = |change: Value| complaints(|errors| CsiNodeStrategy.validate(&node(&change), errors)).len();
        assert_eq!(judge(json!({"topologyKeys": ["zone"], "allocatable": {"count": 3}})), 0);
        let long = json!({"nodeID": "n".repeat(MAX_NODE_ID + 1)});
        for bad in
            [json!({"nodeID": ""}), long, json!({"allocatable": {"count": -1}}), json!({"topologyKeys": ["a", "a"]})]
        {
            assert_eq!(judge(bad.clone()), 1, "{bad}");
        }
    }

    #[test]
    fn only_its_capacity_changes() {
        let old = node(&json!({}));
        let judge =
            |change: Value| complaints(|e| CsiNodeStrategy.validate_update(&node(&change), &old, Part::Main, e)).len();
        assert_eq!(judge(json!({"allocatable": {"count": 9}})), 0);
        assert_eq!(judge(json!({"nodeID": "other"})), 1);
    }
}
