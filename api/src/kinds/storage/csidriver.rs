//! CSIDriver: what a volume driver of this cluster can do.

use std::collections::HashSet;

use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::{Value, json};

use super::names;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::check::{one_of, strings};
use crate::kinds::tree::{fill, int, is_true, list, object, remove, set, some, text};
use crate::meta::{self, same};
use crate::object::name;
use crate::resource::{Column, Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const FS_GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const MODES: &[&str] = &["Persistent", "Ephemeral"];
const ALPHA: &str = "preventPodSchedulingIfMissing";
/// Seconds between two updates of what a node can hold.
const MIN_PERIOD: i64 = 10;
/// Seconds that a token may be good for.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<CSIDriver>()
        .idle(Idle::Yet)
        .columns(columns())
        .no_generation()
        .conditional()
        .strategy(CsiDriverStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("AttachRequired", "boolean", "Whether volumes need an attach operation.", |o, _| {
            json!(is_true(o, "/spec/attachRequired"))
        }),
        column("PodInfoOnMount", "boolean", "Whether the driver needs to know the pod.", |o, _| {
            json!(is_true(o, "/spec/podInfoOnMount"))
        }),
        column("StorageCapacity", "boolean", "Whether the driver publishes its capacity.", |o, _| {
            json!(is_true(o, "/spec/storageCapacity"))
        }),
        column("TokenRequests", "string", "Audiences of the tokens that the driver needs.", |o, _| {
            let audiences: Vec<&str> = list(o, "/spec/tokenRequests").iter().map(|t| text(t, "/audience")).collect();
            json!(if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") })
        }),
        column("RequiresRepublish", "boolean", "Whether mounted volumes are published again and again.", |o, _| {
            json!(is_true(o, "/spec/requiresRepublish"))
        }),
        column("Modes", "string", "Kinds of volumes that the driver serves.", |o, _| {
            let modes = strings(o, "/spec/volumeLifecycleModes");
            json!(if modes.is_empty() { NONE.to_owned() } else { modes.join(",") })
        }),
        cells::age(),
    ]
}

#[derive(Debug)]
struct CsiDriverStrategy;

impl Strategy for CsiDriverStrategy {
    fn prepare_create(&self, driver: &mut Value) {
        drop_alpha(driver, &Value::Null);
    }

    fn default(&self, driver: &mut Value) {
        let Some(spec) = object(driver, "spec") else { return };
        fill(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill(spec, field, false);
        }
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if list(spec, "/volumeLifecycleModes").is_empty() {
            set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    fn validate(&self, driver: &Value, errors: &mut ErrorList) {
        let (spec, path) = (driver.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
        // The path is Kubernetes' own.
        names::driver(name(driver), &Path::new("name"), errors);
        one_of(spec, "fsGroupPolicy", &path, FS_GROUP_POLICIES, errors);
        tokens(list(spec, "/tokenRequests"), &path.child("tokenRequests"), errors);
        if let Some(asked) =
            some(spec, "/serviceAccountTokenInSecrets").filter(|_| list(spec, "/tokenRequests").is_empty())
        {
            let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.invalid(&path.child("serviceAccountTokenInSecrets"), asked, why);
        }
        for mode in strings(spec, "/volumeLifecycleModes") {
            if !MODES.contains(&mode) {
                errors.not_supported(&path.child("volumeLifecycleModes"), mode, MODES);
            }
        }
        if let Some(period) = int(spec, "/nodeAllocatableUpdatePeriodSeconds").filter(|period| *period < MIN_PERIOD) {
            let why = format!("must be greater than or equal to {MIN_PERIOD} seconds");
            errors.invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), &json!(period), &why);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _part: Part) {
        drop_alpha(new, old);
        let counted = ["tokenRequests", "requiresRepublish", "seLinuxMount"];
        let changed =
            counted.iter().any(|f| !same(new.pointer(&format!("/spec/{f}")), old.pointer(&format!("/spec/{f}"))));
        if changed && let Some(metadata) = object(new, "metadata") {
            set(metadata, "generation", int(old, "/metadata/generation").unwrap_or_default().saturating_add(1));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        errors.judge_change(new, old, |driver, errors| self.validate(driver, errors));
        // The first is spelt as Kubernetes spells it.
        for (field, told) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            let pointer = format!("/spec/{field}");
            meta::immutable(new.pointer(&pointer), old.pointer(&pointer), &Path::new("spec").child(told), errors);
        }
    }
}

/// A field that Kubernetes does not keep without asking for it.
fn drop_alpha(driver: &mut Value, old: &Value) {
    if let Some(spec) = object(driver, "spec").filter(|_| some(old, &format!("/spec/{ALPHA}")).is_none()) {
        remove(spec, ALPHA);
    }
}

fn tokens(requests: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, request) in requests.iter().enumerate() {
        let (path, audience) = (path.index(index), text(request, "/audience"));
        if !seen.insert(audience) {
            errors.duplicate(&path.child("audience"), &json!(audience));
            continue;
        }
        let Some(seconds) = int(request, "/expirationSeconds") else { continue };
        let path = path.child("expirationSeconds");
        if seconds < *TOKEN_SECONDS.start() {
            errors.invalid(&path, &json!(seconds), "may not specify a duration less than 10 minutes");
        } else if seconds > *TOKEN_SECONDS.end() {
            errors.invalid(&path, &json!(seconds), "may not specify a duration larger than 2^32 seconds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn driver(spec: &Value) -> Value {
        let mut driver = json!({"metadata": {"name": "csi.example.com"}, "spec": spec});
        CsiDriverStrategy.default(&mut driver);
        driver
    }

    #[test]
    fn tokens_have_audiences_of_their_own_and_last() {
        let judge = |tokens: Value| {
            let driver = driver(&json!({ "tokenRequests": tokens }));
            complaints(|errors| CsiDriverStrategy.validate(&driver, errors)).len()
        };
        assert_eq!(judge(json!([{"audience": "a"}, {"audience": "b", "expirationSeconds": 600}])), 0);
        assert_eq!(judge(json!([{"audience": "a"}, {"audience": "a", "expirationSeconds": 599}])), 1);
        assert_eq!(judge(json!([{"audience": "a", "expirationSeconds": 599}])), 1);
    }

    #[test]
    fn how_volumes_are_attached_never_changes_and_what_nodes_follow_is_counted() {
        let old = driver(&json!({}));
        let mut new = driver(&json!({"attachRequired": false, "requiresRepublish": true}));
        CsiDriverStrategy.prepare_update(&mut new, &old, Part::Main);
        assert_eq!(new["metadata"]["generation"], 1);
        assert_eq!(
            complaints(|e| CsiDriverStrategy.validate_update(&new, &old, Part::Main, e)),
            ["spec.attachedRequired: Invalid value: false: field is immutable"]
        );
    }
    #[test]
    fn a_driver_has_a_name_that_volumes_can_use() {
        let mut driver = driver(&json!({}));
        driver["metadata"]["name"] = json!("x".repeat(64));
        assert_eq!(
            complaints(|errors| CsiDriverStrategy.validate(&driver, errors)),
            ["name: Too long: may not be more than 63 bytes"]
        );
        assert!(complaints(|e| CsiDriverStrategy.validate_update(&driver, &driver, Part::Main, e)).is_empty());
    }

    #[test]
    fn where_tokens_are_is_said_of_tokens_that_there_are() {
        let judge = |spec: Value| complaints(|errors| CsiDriverStrategy.validate(&driver(&spec), errors));
        let tokens = json!([{"audience": "a"}]);
        assert!(judge(json!({"serviceAccountTokenInSecrets": true, "tokenRequests": tokens})).is_empty());
        for asked in [true, false] {
            let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            assert_eq!(
                judge(json!({ "serviceAccountTokenInSecrets": asked })),
                [format!("spec.serviceAccountTokenInSecrets: Invalid value: {asked}: {why}")]
            );
        }
    }

    #[test]
    fn what_is_alpha_is_kept_only_where_it_was() {
        let given = driver(&json!({ ALPHA: true }));
        let kept = |old: Option<&Value>| {
            let mut new = given.clone();
            match old {
                Some(old) => CsiDriverStrategy.prepare_update(&mut new, old, Part::Main),
                None => CsiDriverStrategy.prepare_create(&mut new),
            }
            new["spec"].get(ALPHA).is_some()
        };
        assert_eq!([kept(None), kept(Some(&driver(&json!({})))), kept(Some(&given))], [false, false, true]);
    }
}
