//! PriorityLevelConfiguration: how many requests of a level are served at once, and how the others wait.

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use serde_json::{Value, json};

use super::{mandatory, status};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::tree::{fill, int, object, set, some, split_status, text};
use crate::resource::{Column, Descriptor, WRITABLE_METADATA};
use crate::strategy::{Part, Strategy};

const MAX_QUEUES: i64 = 10_000_000;
/// Bits of a hash that dealing a hand may use.
const HASH_BITS: u32 = 60;
const LIMITED: &str = "/spec/limited";
const QUEUING: &str = "/spec/limited/limitResponse/queuing";

pub fn descriptor() -> Descriptor {
    Descriptor::of::<PriorityLevelConfiguration>()
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(columns())
        .strategy(PriorityLevelConfigurationStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Type", "string", "Whether requests of this level are limited.", |o, _| json!(text(o, "/spec/type"))),
        column("NominalConcurrencyShares", "string", "The level's share of what is served at once.", |o, _| {
            shown(o, LIMITED, "nominalConcurrencyShares")
        }),
        column("Queues", "string", "How many queues there are.", |o, _| shown(o, QUEUING, "queues")),
        column("HandSize", "string", "How many queues a flow may use.", |o, _| shown(o, QUEUING, "handSize")),
        column("QueueLengthLimit", "string", "How many requests wait in a queue.", |o, _| {
            shown(o, QUEUING, "queueLengthLimit")
        }),
        cells::age(),
    ]
}

fn shown(level: &Value, parent: &str, field: &str) -> Value {
    int(level, &format!("{parent}/{field}")).map_or(json!(NONE), Value::from)
}

#[derive(Debug)]
struct PriorityLevelConfigurationStrategy;

impl Strategy for PriorityLevelConfigurationStrategy {
    fn default(&self, level: &mut Value) {
        let Some(spec) = object(level, "spec") else { return };
        if text(spec, "/type") == "Exempt"
            && let Some(exempt) = object(spec, "exempt")
        {
            fill(exempt, "nominalConcurrencyShares", 0);
            fill(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = spec.get_mut("limited").filter(|l| l.is_object()) {
            fill(limited, "nominalConcurrencyShares", 30);
            fill(limited, "lendablePercent", 0);
        }
        if let Some(queuing) = level.pointer_mut(QUEUING).filter(|q| q.is_object()) {
            for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                if int(queuing, &format!("/{field}")).is_none_or(|v| v == 0) {
                    set(queuing, field, value);
                }
            }
        }
    }

    fn validate(&self, level: &Value, errors: &mut ErrorList) {
        let (path, kind) = (Path::new("spec"), text(level, "/spec/type"));
        if (text(level, "/metadata/name") == "exempt") != (kind == "Exempt") {
            let why = "type must be 'Exempt' if and only if name is 'exempt'";
            errors.invalid(&path.child("type"), &json!(kind), why);
        }
        let (limited, exempt) = (some(level, LIMITED), some(level, "/spec/exempt"));
        match kind {
            "Exempt" => {
                if limited.is_some() {
                    errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
                }
                if let Some(exempt) = exempt {
                    shares(exempt, &path.child("exempt"), errors);
                }
            }
            "Limited" => {
                if exempt.is_some() {
                    errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
                }
                match limited {
                    None => errors.required(&path.child("limited"), "must not be empty when type is Limited"),
                    Some(limited) => validate_limited(limited, &path.child("limited"), errors),
                }
            }
            other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
        }
        mandatory::validate_level(level, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, _old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            self.validate(new, errors);
        }
        status::validate(new, errors);
    }
}

fn shares(of: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(shares) = int(of, "/nominalConcurrencyShares").filter(|s| *s < 0) {
        let why = "must be a non-negative integer";
        errors.invalid(&path.child("nominalConcurrencyShares"), &json!(shares), why);
    }
    if let Some(percent) = int(of, "/lendablePercent").filter(|p| !(0..=100).contains(p)) {
        errors.invalid(&path.child("lendablePercent"), &json!(percent), "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &Value, path: &Path, errors: &mut ErrorList) {
    shares(limited, path, errors);
    if let Some(percent) = int(limited, "/borrowingLimitPercent").filter(|p| *p < 0) {
        errors.invalid(
            &path.child("borrowingLimitPercent"),
            &json!(percent),
            "if specified, must be a non-negative integer",
        );
    }
    let path = path.child("limitResponse");
    let queuing = some(limited, "/limitResponse/queuing");
    match (text(limited, "/limitResponse/type"), queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => {
            errors.forbidden(&path.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            errors.required(&path.child("queuing"), "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queuing)) => validate_queuing(queuing, &path.child("queuing"), errors),
        (other, _) => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &Value, path: &Path, errors: &mut ErrorList) {
    let number = |field: &str| int(queuing, &format!("/{field}")).unwrap_or_default();
    let (queues, hand, length) = (number("queues"), number("handSize"), number("queueLengthLimit"));
    if length <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), &json!(length), "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), &json!(queues), "must be positive");
    } else if queues > MAX_QUEUES {
        let why = format!("must not be greater than {MAX_QUEUES}");
        errors.invalid(&path.child("queues"), &json!(queues), &why);
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&path, &json!(hand), "must be positive");
    } else if hand > queues {
        errors.invalid(&path, &json!(hand), &format!("should not be greater than queues ({queues})"));
    } else if entropy(queues, hand) > f64::from(HASH_BITS) {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&path, &json!(hand), &why);
    }
}

/// Bits of a hash that are used up by dealing `hand` of `queues`.
fn entropy(queues: i64, hand: i64) -> f64 {
    let exact = |number: i64| u32::try_from(number).map_or(f64::MAX, f64::from);
    (exact(queues).log2() * exact(hand)).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(name: &str, spec: Value) -> Vec<String> {
        let mut level = json!({"metadata": {"name": name}, "spec": spec});
        PriorityLevelConfigurationStrategy.default(&mut level);
        complaints(|errors| PriorityLevelConfigurationStrategy.validate(&level, errors))
    }

    #[test]
    fn a_level_is_limited_unless_it_is_the_exempt_one() {
        assert!(judge("exempt", json!({"type": "Exempt"})).is_empty());
        assert!(judge("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}})).is_empty());
        assert_eq!(
            judge("a", json!({"type": "Exempt"})),
            ["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"]
        );
        assert_eq!(
            judge("a", json!({"type": "Limited"})),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
    }

    #[test]
    fn a_hand_is_dealt_from_the_queues() {
        let with = |queuing: Value| {
            judge("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}))
        };
        assert!(with(json!({})).is_empty(), "64 queues, hands of 8");
        assert_eq!(with(json!({"queues": 4})).len(), 1, "a hand of 8 from 4");
        assert_eq!(with(json!({"queues": 1024, "handSize": 7})).len(), 1, "70 bits");
        assert_eq!(with(json!({"queues": -1})).len(), 2);
    }
}
