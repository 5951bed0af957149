//! What is asked of a running container: probes and lifecycle hooks, whose handlers are alike.

use serde_json::{Value, json};

use super::ports::validate_number_or_name;
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{fill, int, list, object, set, some, text};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HOOKS: [&str; 2] = ["postStart", "preStop"];
const WINDOWS_SIGNALS: &[&str] = &["SIGKILL", "SIGTERM"];
const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

pub(super) fn default(container: &mut Value) {
    for probe in PROBES {
        if let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) {
            for (field, value) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                if int(probe, &format!("/{field}")).unwrap_or_default() == 0 {
                    set(probe, field, value);
                }
            }
            default_handler(probe);
        }
    }
    for hook in HOOKS {
        if let Some(hook) = container.pointer_mut(&format!("/lifecycle/{hook}")) {
            default_handler(hook);
        }
    }
}

fn default_handler(handler: &mut Value) {
    if handler.get("httpGet").is_some_and(Value::is_object)
        && let Some(get) = object(handler, "httpGet")
    {
        fill(get, "path", "/");
        fill(get, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc").filter(|g| g.is_object())
        && grpc.get("service").is_none_or(Value::is_null)
    {
        set(grpc, "service", "");
    }
}

/// Judges probes and hooks of a container of the pod `spec` that lives on.
pub(super) fn validate(container: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let grace = int(spec, "/terminationGracePeriodSeconds");
    for hook in HOOKS {
        if let Some(handler) = some(container, &format!("/lifecycle/{hook}")) {
            validate_handler(handler, grace, &path.child("lifecycle").child(hook), errors);
        }
    }
    if let Some(signal) = some(container, "/lifecycle/stopSignal").and_then(Value::as_str) {
        validate_signal(signal, text(spec, "/os/name"), &path.child("lifecycle").child("stopSignal"), errors);
    }
    for kind in PROBES {
        let Some(probe) = some(container, &format!("/{kind}")) else { continue };
        let path = path.child(kind);
        validate_probe(probe, &path, errors);
        let grace = int(probe, "/terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            if let Some(grace) = grace {
                let path = path.child("terminationGracePeriodSeconds");
                errors.invalid(&path, &json!(grace), "must not be set for readinessProbes");
            }
        } else if let Some(threshold) = int(probe, "/successThreshold").filter(|t| *t != 1) {
            errors.invalid(&path.child("successThreshold"), &json!(threshold), "must be 1");
        }
    }
}

fn validate_signal(signal: &str, os: &str, path: &Path, errors: &mut ErrorList) {
    let known = match os {
        "windows" => WINDOWS_SIGNALS,
        "linux" => LINUX_SIGNALS,
        "" => return errors.forbidden(path, "may not be set for containers with empty `spec.os.name`"),
        _ => return,
    };
    if !known.contains(&signal) {
        errors.not_supported(path, signal, known);
    }
}

fn validate_probe(probe: &Value, path: &Path, errors: &mut ErrorList) {
    validate_handler(probe, None, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(value) = int(probe, &format!("/{field}")).filter(|v| *v < 0) {
            errors.invalid(&path.child(field), &json!(value), "must be greater than or equal to 0");
        }
    }
    if let Some(grace) = int(probe, "/terminationGracePeriodSeconds").filter(|g| *g <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), &json!(grace), "must be greater than 0");
    }
}

/// `grace`: how long a hook may sleep.
fn validate_handler(handler: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let mut count = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = some(handler, &format!("/{kind}")) else { continue };
        let path = path.child(kind);
        count += 1;
        if count > 1 {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        let port = action.get("port").unwrap_or(&Value::Null);
        match kind {
            "exec" if list(action, "/command").is_empty() => errors.required(&path.child("command"), ""),
            "httpGet" => validate_http(action, &path, errors),
            "tcpSocket" | "grpc" => validate_number_or_name(port, &path.child("port"), errors),
            "sleep" => {
                let seconds = int(action, "/seconds").unwrap_or_default();
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                    let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.invalid(&path, &json!(seconds), &why);
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn validate_http(get: &Value, path: &Path, errors: &mut ErrorList) {
    if text(get, "/path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    validate_number_or_name(get.get("port").unwrap_or(&Value::Null), &path.child("port"), errors);
    let scheme = text(get, "/scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in list(get, "/httpHeaders") {
        let name = text(header, "/name");
        let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !good {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex \
                       used for validation is '[-A-Za-z0-9]+')";
            errors.invalid(&path.child("httpHeaders"), &json!(name), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    fn with(field: &str, value: &Value) -> Vec<String> {
        complaints(&json!({"containers": [{"name": "a", "image": "x", field: value}]}))
    }

    #[test]
    fn a_probe_is_completed() {
        let mut container = json!({"livenessProbe": {"httpGet": {"port": 80}}});
        default(&mut container);
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
    }

    #[test]
    fn a_probe_asks_in_one_way() {
        assert_eq!(
            with("livenessProbe", &json!({})),
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type"]
        );
        assert_eq!(
            with("livenessProbe", &json!({"tcpSocket": {"port": 1}, "exec": {"command": ["x"]}})),
            ["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"]
        );
    }

    #[test]
    fn only_readiness_may_need_several_successes() {
        let probe = json!({"tcpSocket": {"port": 1}, "successThreshold": 2});
        assert!(with("readinessProbe", &probe).is_empty());
        assert_eq!(
            with("livenessProbe", &probe),
            ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"]
        );
    }

    #[test]
    fn a_hook_is_judged_like_a_probe() {
        assert_eq!(
            with("lifecycle", &json!({"preStop": {"httpGet": {"port": 0}}})),
            ["spec.containers[0].lifecycle.preStop.httpGet.port: Invalid value: 0: must be between 1 and 65535, \
                 inclusive"]
        );
    }

    #[test]
    fn a_hook_sleeps_within_the_grace() {
        let place = "spec.containers[0].lifecycle.preStop.sleep";
        for (grace, seconds) in [(30, -1), (30, 31), (5, 6)] {
            let hook = json!({"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}});
            let why = format!(
                "{place}: Invalid value: {seconds}: must be non-negative and less than terminationGracePeriodSeconds \
                 ({grace})"
            );
            assert_refused(json!({"terminationGracePeriodSeconds": grace}), &hook, &why);
        }
        assert!(with("lifecycle", &json!({"preStop": {"sleep": {"seconds": 30}}})).is_empty());
    }

    #[test]
    fn a_signal_is_one_of_the_systems() {
        let hook = |signal: &str| json!({"lifecycle": {"stopSignal": signal}});
        let place = "spec.containers[0].lifecycle.stopSignal";
        assert_refused(
            json!({}),
            &hook("SIGTERM"),
            &format!("{place}: Forbidden: may not be set for containers with empty `spec.os.name`"),
        );
        assert_refused(
            json!({"os": {"name": "windows"}}),
            &hook("SIGHUP"),
            &format!("{place}: Unsupported value: \"SIGHUP\": supported values: \"SIGKILL\", \"SIGTERM\""),
        );
        let spec = json!({"os": {"name": "linux"}, "containers": [{"name": "a", "image": "x", "lifecycle": {"stopSignal": "SIGUSR1"}}]});
        assert!(complaints(&spec).is_empty());
    }
}
