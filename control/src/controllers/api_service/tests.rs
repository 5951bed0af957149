//! Which APIServices the server makes by itself, and when one is available.

use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wherry_api::kinds::apiregistration::priorities::CUSTOM;

use super::plan::{Action, Behind, Known, LABEL, Manage, Verdict, decide, judged, local, misses};

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn what_is_managed_on_start_is_touched_once_and_the_rest_always() {
    let present = |label: &str, version: i32| {
        let mut labels = json!({});
        if !label.is_empty() {
            labels[LABEL] = json!(label);
        }
        Some(typed(json!({"metadata": {"name": "v1.a.example", "labels": labels},
            "spec": {"group": "a.example", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": version}})))
    };
    let wanted = |manage| Some((manage, local("a.example", "v1", CUSTOM)));
    let known = |at_start, settled| Known { at_start, settled };
    let (start, always) = (wanted(Manage::OnStart), wanted(Manage::Always));
    for (what, wanted, present, known, action) in [
        ("nobody wants it", &None, None, known(false, false), Action::Leave),
        ("missing at the start", &start, None, known(false, false), Action::Create),
        ("removed later", &start, None, known(true, true), Action::Leave),
        ("missing", &always, None, known(true, true), Action::Create),
        ("somebody's own", &always, present("", 1), known(true, false), Action::Leave),
        ("made by another after the start", &start, present("onstart", 1), known(false, false), Action::Leave),
        ("changed before the start", &start, present("onstart", 1), known(true, false), Action::Mend),
        ("changed after the start", &start, present("onstart", 1), known(true, true), Action::Leave),
        ("changed", &always, present("true", 1), known(false, false), Action::Mend),
        ("as it should be", &always, present("true", 100), known(false, false), Action::Leave),
        ("of an older version", &None, present("onstart", 1), known(true, false), Action::Delete),
        ("of a definition that is gone", &None, present("true", 1), known(false, false), Action::Delete),
    ] {
        assert_eq!(decide(wanted.as_ref(), present.as_ref(), known), action, "{what}");
    }
}

#[test]
fn what_a_service_lacks_is_said_as_kubernetes_says_it() {
    let behind = Behind { namespace: "n".to_owned(), name: "s".to_owned(), port: 443 };
    let service = |port: i32| typed(json!({"spec": {"type": "ClusterIP", "ports": [{"name": "tls", "port": port}]}}));
    let slice = |name: &str, ready: bool| {
        vec![Arc::new(typed(json!({"addressType": "IPv4", "ports": [{"name": name, "port": 8443}],
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}}]})))]
    };
    for (service, slices, said) in [
        (None, vec![], Some(("ServiceNotFound", "service/s in \"n\" is not present"))),
        (Some(service(80)), vec![], Some(("ServicePortError", "service/s in \"n\" is not listening on port 443"))),
        (Some(service(443)), vec![], Some(("EndpointsNotFound", "cannot find endpointslices for service/s in \"n\""))),
        (
            Some(service(443)),
            slice("tls", false),
            Some((
                "MissingEndpoints",
                "endpointslices for service/s in \"n\" have no addresses with port name \"tls\"",
            )),
        ),
        (
            Some(service(443)),
            slice("other", true),
            Some((
                "MissingEndpoints",
                "endpointslices for service/s in \"n\" have no addresses with port name \"tls\"",
            )),
        ),
        (Some(service(443)), slice("tls", true), None),
        (Some(typed(json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}))), vec![], None),
    ] {
        let verdict = misses(&behind, service.as_ref(), &slices);
        assert_eq!(verdict.as_ref().map(|v| (v.reason, v.message.as_str())), said);
    }
}

#[test]
fn the_time_moves_with_the_status_only() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let first = judged(&typed(json!({})), Verdict::silent("one".to_owned()), at("2030-01-01T00:00:00Z"));
    let second = judged(&first, Verdict::silent("two".to_owned()), at("2030-01-01T00:01:00Z"));
    let time = |status: &k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIServiceStatus| {
        status.conditions.as_ref().unwrap()[0].last_transition_time.clone()
    };
    assert_eq!(time(&first), time(&second));
    assert_ne!(first, second, "the message is the newest");
    let third = judged(&second, Verdict::passed(), at("2030-01-01T00:02:00Z"));
    assert_ne!(time(&second), time(&third));
    assert_eq!(third.conditions.unwrap().len(), 1);
}
