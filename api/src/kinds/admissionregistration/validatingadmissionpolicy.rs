//! ValidatingAdmissionPolicy: expressions that what is written must satisfy.

use std::collections::HashSet;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

use super::expressions::{Scope, Wanted};
use super::policy;
use crate::field::{ErrorList, Path};
use crate::kinds::check::{self, one_of};
use crate::kinds::tree::{list, split_status, text};
use crate::meta::{names, push_all};
use crate::resource::{Descriptor, WRITABLE_METADATA};
use crate::strategy::{Part, Strategy};

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION: usize = 5 * 1024;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ValidatingAdmissionPolicy>()
        .categories(&["api-extensions"])
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(policy::columns("Validations", |o, _| json!(list(o, "/spec/validations").len())))
        .conditional()
        .strategy(ValidatingAdmissionPolicyStrategy)
}

#[derive(Debug)]
struct ValidatingAdmissionPolicyStrategy;

impl Strategy for ValidatingAdmissionPolicyStrategy {
    fn default(&self, object: &mut Value) {
        policy::default(object);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        policy::validate(object, errors);
        let (validations, annotations) = (list(object, "/spec/validations"), list(object, "/spec/auditAnnotations"));
        let spec = Path::new("spec");
        if validations.is_empty() && annotations.is_empty() {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.required(&spec.child("validations"), why);
            errors.required(&spec.child("auditAnnotations"), why);
        }
        let scope = Scope::policy(object.get("spec").unwrap_or(&Value::Null));
        for (index, validation) in validations.iter().enumerate() {
            validate_validation(validation, &scope, &spec.child("validations").index(index), errors);
        }
        validate_annotations(object, &scope, &spec.child("auditAnnotations"), errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, _old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            return self.validate(new, errors);
        }
        let path = Path::new("status");
        for (index, warning) in list(new, "/status/typeChecking/expressionWarnings").iter().enumerate() {
            let path = path.child("typeChecking").child("expressionWarnings").index(index);
            for field in ["warning", "fieldRef"] {
                if text(warning, &format!("/{field}")).trim().is_empty() {
                    errors.required(&path.child(field), "");
                }
            }
        }
        check::conditions(new.get("status").unwrap_or(&Value::Null), &path, errors);
    }
}

fn validate_validation(validation: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let blank = |field: &str| {
        let value = text(validation, &format!("/{field}"));
        !value.is_empty() && value.trim().is_empty()
    };
    if text(validation, "/expression").trim().is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
    }
    for (field, wanted) in [("expression", Wanted::Bool), ("messageExpression", Wanted::Text)] {
        scope.expression(text(validation, &format!("/{field}")), wanted, &path.child(field), errors);
    }
    if blank("messageExpression") {
        let value = validation.get("messageExpression").unwrap_or(&Value::Null);
        errors.invalid(&path.child("messageExpression"), value, "must be non-empty if specified");
    }
    let message = validation.get("message").unwrap_or(&Value::Null);
    if blank("message") {
        errors.invalid(&path.child("message"), message, "message must be non-empty if specified");
    } else if text(validation, "/message").trim().contains(['\n', '\r']) {
        errors.invalid(&path.child("message"), message, "message must not contain line breaks");
    }
    one_of(validation, "reason", path, REASONS, errors);
}

fn validate_annotations(policy: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let annotations = list(policy, "/spec/auditAnnotations");
    if annotations.len() > MAX_ANNOTATIONS {
        let why = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.invalid(path, &json!(annotations), &why);
    }
    let name = text(policy, "/metadata/name");
    let mut seen = HashSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let path = path.index(index);
        let (key, expression) = (text(annotation, "/key"), text(annotation, "/valueExpression").trim());
        let full = format!("{name}/{key}");
        push_all(errors, &path.child("key"), &full, names::qualified_name(&full));
        if expression.is_empty() {
            errors.required(&path.child("valueExpression"), "valueExpression is not specified");
        } else if expression.len() > MAX_ANNOTATION_EXPRESSION {
            let why = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
            errors.required(&path.child("valueExpression"), &why);
        } else {
            scope.expression(expression, Wanted::TextOrNull, &path.child("valueExpression"), errors);
        }
        if !seen.insert(key) {
            errors.duplicate(&path.child("key"), &json!(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(rest: &Value) -> Vec<String> {
        let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        let mut policy =
            json!({"metadata": {"name": "p.example"}, "spec": {"matchConstraints": {"resourceRules": [rule]}}});
        policy["spec"] = crate::patch::merge::apply(&policy["spec"], rest);
        ValidatingAdmissionPolicyStrategy.default(&mut policy);
        complaints(|errors| ValidatingAdmissionPolicyStrategy.validate(&policy, errors))
    }

    #[test]
    fn a_policy_validates_or_annotates() {
        assert_eq!(judge(&json!({})).len(), 2);
        assert!(judge(&json!({"validations": [{"expression": "true", "reason": "Invalid"}]})).is_empty());
        assert!(judge(&json!({"auditAnnotations": [{"key": "k", "valueExpression": "'x'"}]})).is_empty());
    }

    #[test]
    fn what_a_validation_says_is_one_line() {
        assert_eq!(
            judge(
                &json!({"validations": [{"expression": " ", "message": "a\nb", "messageExpression": " ", "reason": "Why"}]})
            ),
            [
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
                "spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks",
                "spec.validations[0].reason: Unsupported value: \"Why\": supported values: \"Forbidden\", \"Invalid\", \
                 \"RequestEntityTooLarge\"",
            ]
        );
    }
}
