//! Baseline: no Windows container that runs on the host itself.

use serde_json::Value;

use super::{Pod, Violation, setters};

const FIELD: &str = "/windowsOptions/hostProcess";

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let yes = Some(&Value::Bool(true));
    let bad = pod.containers_where(|c| c.security(FIELD) == yes);
    let who = setters(pod.security(FIELD) == yes, &bad)?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod};
    use super::*;

    #[test]
    fn no_process_is_the_hosts() {
        let host = json!({"windowsOptions": {"hostProcess": true}});
        let mut both = pod(std::slice::from_ref(&host));
        both["securityContext"] = host;
        assert_cases(
            judge,
            &[
                (pod(&[json!({"windowsOptions": {"hostProcess": false}})]), None),
                (
                    both,
                    Some(
                        "hostProcess (pod and container \"a\" must not set \
                         securityContext.windowsOptions.hostProcess=true)",
                    ),
                ),
            ],
        );
    }
}
