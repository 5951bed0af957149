//! Ingress: HTTP from outside to Services, by host and path. Controllers in pods act on it, as in Kubernetes.

use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::kinds::cells::{self, NONE, column, with_more};
use crate::kinds::tree::{list, set, some, split_status, text};
use crate::resource::{Column, Descriptor, Idle};
use crate::strategy::{Part, Strategy};

mod validation;

pub(super) use validation::validate_reference;

/// The annotation that named a class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// How many hosts a table shows.
const SHOWN: usize = 3;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Ingress>().idle(Idle::Alone).short(&["ing"]).status().columns(columns()).strategy(IngressStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Class", "string", "The name of the IngressClass resource that should be used.", |o, _| {
            let class = text(o, "/spec/ingressClassName");
            json!(if class.is_empty() { NONE } else { class })
        }),
        column(
            "Hosts",
            "string",
            "Hosts that incoming requests are matched against before the ingress rule",
            |o, _| json!(hosts(o)),
        ),
        column("Address", "string", "Address is a list containing ingress points for the load-balancer", |o, _| {
            json!(addresses(o))
        }),
        column("Ports", "string", "Ports of TLS configurations that open", |o, _| {
            json!(if list(o, "/spec/tls").is_empty() { "80" } else { "80, 443" })
        }),
        cells::age(),
    ]
}

fn hosts(ingress: &Value) -> String {
    let hosts: Vec<String> =
        list(ingress, "/spec/rules").iter().map(|r| text(r, "/host").to_owned()).filter(|h| !h.is_empty()).collect();
    if hosts.is_empty() { "*".to_owned() } else { with_more(hosts.get(..SHOWN).unwrap_or(&hosts), hosts.len()) }
}

fn addresses(ingress: &Value) -> String {
    let points = list(ingress, "/status/loadBalancer/ingress").iter();
    let mut all: Vec<&str> = points
        .map(|p| Some(text(p, "/ip")).filter(|ip| !ip.is_empty()).unwrap_or_else(|| text(p, "/hostname")))
        .collect();
    all.retain(|a| !a.is_empty());
    all.sort_unstable();
    all.dedup();
    all.join(",")
}

#[derive(Debug)]
struct IngressStrategy;

impl Strategy for IngressStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        validation::validate(object, None, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        match part {
            Part::Main => validation::validate(new, Some(old), errors),
            _ => validation::validate_status(new, errors),
        }
    }

    fn new_warnings(&self, object: &Value) -> Vec<String> {
        let annotated = object.pointer("/metadata/annotations").and_then(|a| a.get(CLASS_ANNOTATION)).is_some()
            && some(object, "/spec/ingressClassName").is_none();
        let text = format!("annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead");
        annotated.then_some(text).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_hosts_and_addresses() {
        let rule = |host: &str| json!({"host": host});
        let ingress = json!({"spec": {"rules": [rule("a"), rule("b"), rule("c"), rule("d")]},
            "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "b.example"}, {"ip": "1.1.1.1"}]}}});
        assert_eq!(hosts(&ingress), "a,b,c + 1 more...");
        assert_eq!(addresses(&ingress), "1.1.1.1,2.2.2.2,b.example");
        assert_eq!(hosts(&json!({})), "*");
    }

    #[test]
    fn who_creates_with_the_old_annotation_is_warned() {
        let ingress = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "x"}}});
        assert_eq!(IngressStrategy.new_warnings(&ingress).len(), 1);
        assert!(IngressStrategy.warnings(&ingress).is_empty(), "an update says nothing");
        assert!(IngressStrategy.new_warnings(&json!({})).is_empty());
        let mut settled = ingress.clone();
        settled["spec"] = json!({"ingressClassName": "x"});
        assert!(IngressStrategy.new_warnings(&settled).is_empty(), "the field is there, too");
    }
}
