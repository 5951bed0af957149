//! What an Ingress must say: rules or a default backend, hosts that are names, paths that mean one thing.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::CLASS_ANNOTATION;
use crate::field::{ErrorList, Path};
use crate::kinds::check::required_one_of;
use crate::kinds::core::addresses::validate_ip;
use crate::kinds::tree::{int, list, some, text};
use crate::meta::{names, push_all};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
/// Parts of a path that proxies read differently.
const AMBIGUOUS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const AMBIGUOUS_ENDS: [&str; 2] = ["/..", "/."];

pub(super) fn validate(ingress: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let (spec, path) = (ingress.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    let (rules, backend) = (list(spec, "/rules"), some(spec, "/defaultBackend"));
    if rules.is_empty() && backend.is_none() {
        errors.invalid(&path, &json!(rules), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = backend {
        validate_backend(backend, &path.child("defaultBackend"), errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        validate_host(text(rule, "/host"), &path.child("host"), errors);
        if let Some(http) = some(rule, "/http") {
            validate_http(http, &path.child("http"), errors);
        }
    }
    for (index, tls) in list(spec, "/tls").iter().enumerate() {
        validate_tls(tls, old, &path.child("tls").index(index), errors);
    }
    let class = text(spec, "/ingressClassName");
    if some(spec, "/ingressClassName").is_some() {
        push_all(errors, &path.child("ingressClassName"), class, names::dns1123_subdomain(class));
    }
    let annotation = ingress.pointer("/metadata/annotations").and_then(|a| a.get(CLASS_ANNOTATION));
    if let (None, Some(annotation), Some(_)) = (old, annotation, some(spec, "/ingressClassName"))
        && annotation != class
    {
        let path = Path::new("annotations").child(CLASS_ANNOTATION);
        errors.invalid(&path, annotation, "must match `ingressClassName` when both are specified");
    }
}

fn validate_host(host: &str, path: &Path, errors: &mut ErrorList) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, &json!(host), "must be a DNS name, not an IP address");
    }
    let complaints = if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns1123_subdomain(host) };
    push_all(errors, path, host, complaints);
}

fn validate_tls(tls: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    for (index, host) in list(tls, "/hosts").iter().filter_map(Value::as_str).enumerate() {
        let complaints =
            if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns1123_subdomain(host) };
        push_all(errors, &path.child("hosts").index(index), host, complaints);
    }
    let bad = |name: &str| if name.is_empty() { Vec::new() } else { names::dns1123_subdomain(name) };
    let had = |old: &Value| list(old, "/spec/tls").iter().any(|tls| !bad(text(tls, "/secretName")).is_empty());
    if !old.is_some_and(had) {
        let name = text(tls, "/secretName");
        push_all(errors, &path.child("secretName"), name, bad(name));
    }
}

fn validate_http(http: &Value, path: &Path, errors: &mut ErrorList) {
    let paths = list(http, "/paths");
    if paths.is_empty() {
        errors.required(&path.child("paths"), "");
    }
    for (index, entry) in paths.iter().enumerate() {
        let path = path.child("paths").index(index);
        if text(entry, "/pathType").is_empty() {
            errors.required(&path.child("pathType"), "pathType must be specified");
            continue;
        }
        required_one_of(entry, "pathType", &path, PATH_TYPES, errors);
        validate_path(text(entry, "/path"), text(entry, "/pathType"), &path.child("path"), errors);
        validate_backend(entry.get("backend").unwrap_or(&Value::Null), &path.child("backend"), errors);
    }
}

fn validate_path(url: &str, kind: &str, path: &Path, errors: &mut ErrorList) {
    let mut refuse = |why: &str| errors.invalid(path, &json!(url), why);
    let exact = matches!(kind, "Exact" | "Prefix");
    if !url.starts_with('/') && (exact || (kind == "ImplementationSpecific" && !url.is_empty())) {
        refuse("must be an absolute path");
    }
    if exact {
        AMBIGUOUS.iter().filter(|s| url.contains(**s)).for_each(|s| refuse(&format!("must not contain '{s}'")));
        AMBIGUOUS_ENDS.iter().filter(|s| url.ends_with(**s)).for_each(|s| refuse(&format!("cannot end with '{s}'")));
    }
}

fn validate_backend(backend: &Value, path: &Path, errors: &mut ErrorList) {
    match (some(backend, "/resource"), some(backend, "/service")) {
        (Some(_), Some(_)) => errors.invalid(path, &json!(""), "cannot set both resource and service backends"),
        (None, None) => errors.invalid(path, &json!(""), "resource or service backend is required"),
        (Some(resource), None) => validate_reference(resource, &path.child("resource"), errors),
        (None, Some(service)) => validate_service(service, path, errors),
    }
}

fn validate_service(service: &Value, path: &Path, errors: &mut ErrorList) {
    let (name, port_path) = (text(service, "/name"), path.child("service").child("port"));
    let name_path = path.child("service").child("name");
    if name.is_empty() {
        errors.required(&name_path, "");
    } else {
        push_all(errors, &name_path, name, names::dns1035_label(name));
    }
    match (text(service, "/port/name"), int(service, "/port/number").unwrap_or_default()) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => {
            if let Some(why) = names::port_number(number) {
                errors.invalid(&port_path.child("number"), &json!(number), why);
            }
        }
        (name, 0) => push_all(errors, &port_path.child("name"), name, names::port_name(name)),
        _ => errors.invalid(path, &json!(""), "cannot set both port name & port number"),
    }
}

/// A reference to any object of the Ingress's namespace.
pub(in super::super) fn validate_reference(reference: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(group) = some(reference, "/apiGroup").and_then(Value::as_str) {
        push_all(errors, &path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    for field in ["kind", "name"] {
        match text(reference, &format!("/{field}")) {
            "" => errors.required(&path.child(field), &format!("{field} is required")),
            value => push_all(errors, &path.child(field), value, names::path_segment(value)),
        }
    }
}

pub(super) fn validate_status(ingress: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (index, point) in list(ingress, "/status/loadBalancer/ingress").iter().enumerate() {
        let path = path.index(index);
        let (ip, host) = (text(point, "/ip"), text(point, "/hostname"));
        if !ip.is_empty() {
            validate_ip(ip, &path.child("ip"), errors);
        }
        if !host.is_empty() {
            push_all(errors, &path.child("hostname"), host, names::dns1123_subdomain(host));
            if host.parse::<IpAddr>().is_ok() {
                errors.invalid(&path.child("hostname"), &json!(host), "must be a DNS name, not an IP address");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(path: &Value, host: &str) -> Vec<String> {
        let ingress = json!({"spec": {"rules": [{"host": host, "http": {"paths": [path]}}]}});
        complaints(|errors| validate(&ingress, None, errors))
    }

    fn path(kind: &str, path: &str) -> Value {
        json!({"pathType": kind, "path": path, "backend": {"service": {"name": "web", "port": {"number": 80}}}})
    }

    #[test]
    fn a_path_means_one_thing() {
        for (kind, text, count) in [
            ("Prefix", "/a", 0),
            ("Prefix", "a", 1),
            ("Exact", "/a//b", 1),
            ("Exact", "/a/..", 1),
            ("ImplementationSpecific", "", 0),
            ("ImplementationSpecific", "/a//b", 0),
            ("ImplementationSpecific", "a", 1),
            ("Regex", "/", 1),
        ] {
            assert_eq!(judge(&path(kind, text), "a.example").len(), count, "{kind} {text}");
        }
    }

    #[test]
    fn a_host_is_a_name() {
        for (host, count) in
            [("a.example", 0), ("*.example", 0), ("", 0), ("*", 1), ("a.*", 1), ("1.2.3.4", 1), ("A", 1)]
        {
            assert_eq!(judge(&path("Prefix", "/"), host).len(), count, "{host}");
        }
    }

    #[test]
    fn a_backend_is_a_service_with_a_port_or_a_resource() {
        let judge =
            |backend: Value| complaints(|errors| validate(&json!({"spec": {"defaultBackend": backend}}), None, errors));
        assert!(judge(json!({"service": {"name": "a", "port": {"name": "http"}}})).is_empty());
        assert!(judge(json!({"resource": {"kind": "Bucket", "name": "b", "apiGroup": "example.com"}})).is_empty());
        assert_eq!(
            judge(json!({"service": {"name": "a"}})),
            ["spec.defaultBackend: Required value: port name or number is required"]
        );
        assert_eq!(
            judge(json!({"resource": {}})),
            [
                "spec.defaultBackend.resource.kind: Required value: kind is required",
                "spec.defaultBackend.resource.name: Required value: name is required"
            ]
        );
        assert_eq!(
            judge(json!({})),
            ["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"]
        );
    }
}
