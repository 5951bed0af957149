//! Jobs as they are written, and what is said of them.

use super::*;

fn job(spec: &Value) -> Value {
    let mut job = json!({"metadata": {"name": "pi", "uid": "u-1"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        job["spec"][key] = value.clone();
    }
    JobStrategy.prepare_create(&mut job);
    JobStrategy.default(&mut job);
    job
}

fn complaints(spec: &Value) -> Vec<String> {
    let mut errors = ErrorList::default();
    JobStrategy.validate(&job(spec), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn update(part: Part, old: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut new = old.clone();
    change(&mut new);
    let mut errors = ErrorList::default();
    JobStrategy.validate_update(&new, old, part, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_job_selects_its_pods_by_its_uid() {
    let job = job(&json!({}));
    assert_eq!(job["spec"]["selector"], json!({"matchLabels": {UID_LABEL: "u-1"}}));
    let labels = json!({UID_LABEL: "u-1", LEGACY_UID_LABEL: "u-1", NAME_LABEL: "pi", LEGACY_NAME_LABEL: "pi"});
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(job["metadata"]["labels"], labels);
    assert_eq!(complaints(&json!({})), Vec::<String>::new());
    let template = json!({"metadata": {"labels": {"job-name": "other"}}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}});
    let said = complaints(&json!({ "template": template }));
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("spec.template.metadata.labels[job-name]: Invalid value:"), "{said:?}");
    assert!(said[0].ends_with(": must be 'pi'"), "{said:?}");
}

#[test]
fn defaults_follow_what_is_asked_for() {
    let spec_of = |spec: Value| job(&spec)["spec"].clone();
    let plain = spec_of(json!({}));
    assert_eq!(
        (&plain["completions"], &plain["parallelism"], &plain["backoffLimit"]),
        (&json!(1), &json!(1), &json!(6))
    );
    assert_eq!(plain["podReplacementPolicy"], "TerminatingOrFailed");
    assert_eq!(spec_of(json!({"parallelism": 2}))["completions"], Value::Null);
    assert_eq!(spec_of(json!({"backoffLimitPerIndex": 1}))["backoffLimit"], json!(i32::MAX));
    let rules = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]);
    let policy = spec_of(json!({"podFailurePolicy": {"rules": rules}}));
    assert_eq!(policy["podReplacementPolicy"], "Failed");
    assert_eq!(policy["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
}

#[test]
fn pods_of_a_job_end() {
    let template = |policy: &str| json!({"template": {"spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}}});
    assert_eq!(
        complaints(&template("Always")),
        ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
    );
    assert_eq!(complaints(&template("OnFailure")), Vec::<String>::new());
}

#[test]
fn indexes_need_a_number_of_completions() {
    assert_eq!(
        complaints(
            &json!({"completionMode": "Indexed", "parallelism": 1, "backoffLimitPerIndex": 1, "maxFailedIndexes": 1})
        ),
        ["spec.completions: Required value: when completion mode is Indexed"]
    );
    assert_eq!(
        complaints(&json!({"maxFailedIndexes": 1})),
        [
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"
        ]
    );
}

#[test]
fn failure_rules_are_complete() {
    let rules = json!([
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "containerName": "x", "values": [2, 0]}},
        {"action": "Ignore"}
    ]);
    assert_eq!(
        complaints(&json!({"podFailurePolicy": {"rules": rules}})),
        [
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be \
             set",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container \
             or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered",
            "spec.podFailurePolicy.rules[1]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
        ]
    );
}

#[test]
fn success_rules_name_indexes_that_exist() {
    let rules = json!([{"succeededIndexes": "0-9", "succeededCount": 5}, {}]);
    assert_eq!(
        complaints(&json!({"completionMode": "Indexed", "completions": 4, "successPolicy": {"rules": rules}})),
        [
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-9\": error parsing succeededIndexes: too \
             large index: \"9\"",
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 5: must be less than or equal to 4 (the number of \
             specified completions)",
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 5: must be less than or equal to 0 (the number of \
             indexes in the specified succeededIndexes field)",
            "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be \
             specified"
        ]
    );
}

#[test]
fn only_a_suspended_job_without_pods_may_be_sent_elsewhere() {
    let redirect = |job: &mut Value| job["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    assert_eq!(update(Part::Main, &job(&json!({"suspend": true})), redirect), Vec::<String>::new());
    let said = update(Part::Main, &job(&json!({})), redirect);
    assert!(said.len() == 1 && said[0].ends_with("field is immutable"), "{said:?}");
    let image = |job: &mut Value| job["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
    assert_eq!(update(Part::Main, &job(&json!({"suspend": true})), image).len(), 1);
    let mut ran = job(&json!({"suspend": true}));
    ran["status"] = json!({"startTime": "2026-01-01T00:00:00Z", "active": 1});
    assert_eq!(update(Part::Main, &ran, redirect).len(), 1);
    ran["status"]["active"] = json!(0);
    assert_eq!(update(Part::Main, &ran, redirect), Vec::<String>::new());
}

#[test]
fn a_suspended_job_without_pods_may_ask_for_other_amounts() {
    let resize = |job: &mut Value| {
        job["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
    };
    assert_eq!(update(Part::Main, &job(&json!({"suspend": true})), resize), Vec::<String>::new());
    let said = update(Part::Main, &job(&json!({})), resize);
    assert!(said.len() == 1 && said[0].ends_with("field is immutable"), "{said:?}");
}

#[test]
fn an_indexed_job_grows_in_tandem() {
    let old = job(&json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}));
    let grow = |job: &mut Value| (job["spec"]["completions"], job["spec"]["parallelism"]) = (json!(3), json!(3));
    assert_eq!(update(Part::Main, &old, grow), Vec::<String>::new());
    assert_eq!(
        update(Part::Main, &old, |job| job["spec"]["completions"] = json!(3)),
        ["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"]
    );
}

#[test]
fn a_status_tells_one_story() {
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let mut old = job(&json!({}));
    old["status"] = json!({"startTime": "2026-01-01T00:00:00Z", "failed": 2});
    assert_eq!(
        update(Part::Status, &old, |job| {
            job["status"]["failed"] = json!(1);
            job["status"]["active"] = json!(1);
            job["status"]["conditions"] = json!([condition("SuccessCriteriaMet"), condition("Complete")]);
        }),
        [
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.failed: Invalid value: 1: cannot decrease the failed counter"
        ]
    );
    assert_eq!(
        update(Part::Status, &old, |job| {
            job["status"]["completionTime"] = json!("2026-01-01T00:01:00Z");
            job["status"]["conditions"] = json!([condition("SuccessCriteriaMet"), condition("Complete")]);
        }),
        Vec::<String>::new()
    );
}

#[test]
fn an_update_is_judged_as_a_whole_job() {
    let long = |name: &str, spec: Value| {
        let mut job = json!({"metadata": {"name": name, "uid": "u-1"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        spec.as_object().into_iter().flatten().for_each(|(key, value)| job["spec"][key] = value.clone());
        JobStrategy.prepare_create(&mut job);
        JobStrategy.default(&mut job);
        job
    };
    let name = "x".repeat(61);
    let indexed = long(&name, json!({"completionMode": "Indexed", "completions": 9, "parallelism": 9}));
    let grow = |job: &mut Value| (job["spec"]["completions"], job["spec"]["parallelism"]) = (json!(11), json!(11));
    let why = format!("will not able to create pod with invalid DNS label: {name}-10");
    assert_eq!(update(Part::Main, &indexed, grow), [format!("metadata.name: Invalid value: \"{name}\": {why}")]);

    let own = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}});
    let manual = job(&json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": own}));
    let said = update(Part::Main, &manual, |job| job["spec"]["manualSelector"] = json!(false));
    assert!(
        said.contains(
            &"spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated".to_owned()
        ),
        "{said:?}"
    );
}

#[test]
fn a_manager_is_a_domain_and_a_path() {
    for (manager, said) in [
        ("acme.io/foo", None),
        ("acme.io/foo//bar", None),
        ("", Some("Required value")),
        ("acme.io", Some("Invalid value: \"acme.io\": must be a domain-prefixed path (such as \"acme.io/foo\")")),
        (
            "acme.io/f@o",
            Some(
                "Invalid value: \"f@o\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
            ),
        ),
    ] {
        let said: Vec<String> = said.into_iter().map(|why| format!("spec.managedBy: {why}")).collect();
        assert_eq!(complaints(&json!({ "managedBy": manager })), said, "{manager}");
    }
}

#[test]
fn what_is_wrong_with_a_status_already_hinders_no_other_change() {
    let met = json!([{"type": "SuccessCriteriaMet", "status": "True"}]);
    let indexed = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2});
    let suspended = |status: &str| json!([{"type": "Suspended", "status": status}]);
    let (noon, later) = ("2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z");
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let ended = json!({"completionTime": noon, "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]});
    for (spec, old, new, said) in [
        // It was scaled down: its controller has not seen it yet.
        (
            &indexed,
            json!({"completedIndexes": "0-4", "active": 1}),
            json!({"completedIndexes": "0-4", "active": 2}),
            None,
        ),
        (
            &indexed,
            json!({"completedIndexes": "0-4", "succeeded": 5}),
            json!({"completedIndexes": "0-1", "succeeded": 2}),
            None,
        ),
        (
            &indexed,
            json!({}),
            json!({"completedIndexes": "0-4"}),
            Some(
                "status.completedIndexes: Invalid value: \"0-4\": error parsing completedIndexes: too large index: \"4\"",
            ),
        ),
        (
            &json!({}),
            json!({"succeeded": 1}),
            json!({}),
            Some("status.succeeded: Invalid value: 0: cannot decrease the succeeded counter"),
        ),
        (&json!({}), json!({"ready": 2, "active": 1}), json!({"ready": 2, "active": 1, "conditions": met}), None),
        (
            &json!({}),
            json!({"startTime": noon, "conditions": suspended("True")}),
            json!({"startTime": later, "conditions": suspended("False")}),
            None,
        ),
        (
            &json!({}),
            json!({"startTime": noon}),
            json!({"startTime": later}),
            Some(
                "status.startTime: Invalid value: \"2026-01-01T13:00:00Z\": field is immutable for unsuspended job once set",
            ),
        ),
        (
            &json!({}),
            json!({"startTime": noon}),
            json!({}),
            Some("status.startTime: Invalid value: null: field is immutable for unsuspended job once set"),
        ),
        (&json!({"suspend": true}), json!({"startTime": noon}), json!({}), None),
        (&json!({"suspend": true, "completions": 0}), json!({}), ended.clone(), None),
        (
            &json!({"completions": 0}),
            json!({}),
            ended,
            Some("status.startTime: Required value: startTime is required for finished job"),
        ),
    ] {
        let mut was = job(spec);
        was["status"] = old.clone();
        let all = update(Part::Status, &was, |job| job["status"] = new.clone());
        assert_eq!(all, said.into_iter().collect::<Vec<_>>(), "{old} -> {new}");
    }
}
