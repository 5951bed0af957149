//! What only containers on Windows have: accounts, and processes of the host.

use serde_json::{Value, json};

use super::CONTAINER_LISTS;
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{is_true, list, some};
use crate::meta::{names, push_all};

/// Bytes of a credential spec.
const SPEC_MAX: usize = 64 * 1024;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;
const HOST_PROCESS: &str = "/securityContext/windowsOptions/hostProcess";

/// Judges the `windowsOptions` of a security context.
pub(super) fn validate(context: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(options) = some(context, "/windowsOptions") else { return };
    let path = path.child("windowsOptions");
    let given = |field: &str| options.get(field).and_then(Value::as_str);
    if let Some(name) = given("gmsaCredentialSpecName") {
        push_all(errors, &path.child("gmsaCredentialSpecName"), name, names::dns1123_subdomain(name));
    }
    if let Some(spec) = given("gmsaCredentialSpec") {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, &json!(spec), "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > SPEC_MAX {
            errors.invalid(&path, &json!(spec), "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = given("runAsUserName") {
        for why in complaints_of_user(name) {
            errors.invalid(&path.child("runAsUserName"), &json!(name), why);
        }
    }
}

fn complaints_of_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.contains(|c: char| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match name.split_once('\\') {
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    if user.contains('\\') {
        return vec!["runAsUserName cannot contain more than one backslash"];
    }
    let said = [
        (
            domain.is_some_and(|domain| domain.len() >= DOMAIN_MAX),
            "runAsUserName's Domain length must be under 256 characters",
        ),
        (
            domain.is_some_and(|domain| !is_netbios(domain) && !is_dns(domain)),
            "runAsUserName's Domain doesn't match the NetBios nor the DNS format",
        ),
        (user.is_empty(), "runAsUserName's User cannot be empty"),
        (user.len() > USER_MAX, "runAsUserName's User length must not be longer than 104 characters"),
        (
            !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')),
            "runAsUserName's User cannot contain only periods or spaces",
        ),
        (
            user.contains(|c| "\"/:;|=,+*?<>@[]".contains(c)),
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
        ),
    ];
    said.into_iter().filter(|(wrong, _)| *wrong).map(|(_, why)| why).collect()
}

fn is_netbios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(|c| "/:*?\"<>|".contains(c))
}

fn is_dns(domain: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.split('.').all(label)
}

/// Containers that are processes of the host: all of a pod's, in the host's network, as the pod says.
pub(super) fn validate_host_processes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let said = |of: &Value| of.pointer(HOST_PROCESS).and_then(Value::as_bool);
    let pod = said(spec);
    let (mut all, mut processes) = (0, 0);
    for kind in CONTAINER_LISTS {
        for (index, container) in list(spec, &format!("/{kind}")).iter().enumerate() {
            all += 1;
            processes += usize::from(said(container).or(pod) == Some(true));
            if let (Some(pod), Some(own)) = (pod, said(container).filter(|own| pod.is_some_and(|pod| pod != *own))) {
                let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
                let path = HOST_PROCESS.split('/').skip(1).fold(path.child(kind).index(index), |path, p| path.child(p));
                errors.invalid(&path, &json!(own), &why);
            }
        }
    }
    if processes > 0 && processes != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, &json!(""), why);
    }
    if processes > 0 && !is_true(spec, "/hostNetwork") {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), &json!(false), why);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    #[test]
    fn a_user_has_a_name_that_windows_takes() {
        for good in ["ContainerUser", "NT AUTHORITY\\NETWORK SERVICE", "a.example\\b", "a-long-domain.example\\b"] {
            assert_eq!(complaints_of_user(good), Vec::<&str>::new(), "{good}");
        }
        for (name, why) in [
            ("", "runAsUserName cannot be an empty string"),
            ("a\tb", "runAsUserName cannot contain control characters"),
            ("a\\b\\c", "runAsUserName cannot contain more than one backslash"),
            (".a\\b", "runAsUserName's Domain doesn't match the NetBios nor the DNS format"),
            ("a\\", "runAsUserName's User cannot be empty"),
            (". .", "runAsUserName's User cannot contain only periods or spaces"),
            ("a@b", "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"),
        ] {
            assert_eq!(complaints_of_user(name), [why], "{name}");
        }
        assert_refused(
            json!({"securityContext": {"windowsOptions": {"gmsaCredentialSpec": ""}}}),
            &json!({}),
            "spec.securityContext.windowsOptions.gmsaCredentialSpec: Invalid value: \"\": gmsaCredentialSpec cannot be an \
             empty string",
        );
        assert_refused(
            json!({}),
            &json!({"securityContext": {"windowsOptions": {"runAsUserName": "a@b"}}}),
            "spec.containers[0].securityContext.windowsOptions.runAsUserName: Invalid value: \"a@b\": runAsUserName's User \
             cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
        );
    }

    #[test]
    fn processes_of_the_host_are_all_or_none() {
        let container = |name: &str, own: Value| json!({"name": name, "image": "x", "securityContext": {"windowsOptions": {"hostProcess": own}}});
        let whole = json!({"windowsOptions": {"hostProcess": true}});
        let spec = json!({"securityContext": whole, "containers": [container("a", json!(false)), container("b", json!(true))]});
        assert_eq!(
            complaints(&spec),
            [
                "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value \
                 must be identical if both are specified, was true",
                "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be \
                 HostProcess containers",
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers"
            ]
        );
        let good = json!({"hostNetwork": true, "securityContext": whole, "containers": [{"name": "a", "image": "x"}]});
        assert_eq!(complaints(&good), Vec::<String>::new());
    }
}
