//! ServiceCIDR: a range that Services' addresses come from.

use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::{Value, json};

use super::cidr;
use crate::cel::net::Cidr;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::check::strings;
use crate::kinds::tree::split_status;
use crate::meta::IMMUTABLE;
use crate::resource::{Descriptor, WRITABLE_METADATA};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ServiceCIDR>()
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(vec![
            cells::name(),
            column("CIDRs", "string", "The ranges of addresses.", |o, _| json!(strings(o, "/spec/cidrs").join(","))),
            cells::age(),
        ])
        .no_generation()
        .strategy(ServiceCidrStrategy)
}

/// Whether a range is one of IPv4; `None` if it is no range.
fn family(range: &str) -> Option<bool> {
    Cidr::parse(range).map(|cidr| cidr.address.is_ipv4())
}

#[derive(Debug)]
struct ServiceCidrStrategy;

impl Strategy for ServiceCidrStrategy {
    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec").child("cidrs");
        let ranges = strings(object, "/spec/cidrs");
        match *ranges {
            [] => return errors.required(&path, "at least one CIDR required"),
            [_] => {}
            [first, second] => {
                let families = (family(first), family(second));
                if families.0.is_some() && families.0 == families.1 {
                    let why =
                        "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                    errors.invalid(&path, &json!(ranges), why);
                }
            }
            _ => return errors.invalid(&path, &json!(ranges), "may only hold up to 2 values"),
        }
        for (index, range) in ranges.iter().enumerate() {
            cidr::validate(range, &path.index(index), errors);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    /// A second family may be added; nothing else changes.
    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        // As in Kubernetes, whose own condition `Ready` has no reason.
        if part != Part::Main {
            return;
        }
        let path = Path::new("spec").child("cidrs");
        let (now, before) = (strings(new, "/spec/cidrs"), strings(old, "/spec/cidrs"));
        let grows = (before.len(), now.len()) == (1, 2);
        if now.len() != before.len() && !grows {
            return errors.invalid(&path, &json!(now), IMMUTABLE);
        }
        for (index, (now, before)) in now.iter().zip(&before).enumerate() {
            if now != before {
                errors.invalid(&path.index(index), &json!(now), IMMUTABLE);
            }
        }
        if grows {
            self.validate(new, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn object(ranges: &[&str]) -> Value {
        json!({"spec": {"cidrs": ranges}})
    }

    #[test]
    fn there_is_one_range_for_each_family() {
        for (ranges, count) in [
            (&["10.0.0.0/16"][..], 0),
            (&["10.0.0.0/16", "fd00::/112"], 0),
            (&["10.0.0.0/16", "10.1.0.0/16"], 1),
            (&[], 1),
            (&["10.0.0.1/16"], 1),
            (&["10.0.0.0/16", "fd00::/112", "fd01::/112"], 1),
        ] {
            let all = complaints(|errors| ServiceCidrStrategy.validate(&object(ranges), errors));
            assert_eq!(all.len(), count, "{ranges:?}: {all:?}");
        }
    }

    #[test]
    fn a_range_grows_to_two_families_and_changes_no_more() {
        let update = |old: &[&str], new: &[&str]| {
            complaints(|e| ServiceCidrStrategy.validate_update(&object(new), &object(old), Part::Main, e)).len()
        };
        assert_eq!(update(&["10.0.0.0/16"], &["10.0.0.0/16"]), 0);
        assert_eq!(update(&["10.0.0.0/16"], &["10.0.0.0/16", "fd00::/112"]), 0);
        assert_eq!(update(&["10.0.0.0/16"], &["10.1.0.0/16"]), 1);
        assert_eq!(update(&["10.0.0.0/16", "fd00::/112"], &["10.0.0.0/16"]), 1);
    }
}
