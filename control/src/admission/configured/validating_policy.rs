//! Policies in CEL that judge what is written.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::cel::{Budget, PER_OBJECT, Val};
use wherry_api::object;
use wherry_api::status::{ApiError, Cause};

use super::super::{Plugin, Request};
use super::environment::Environment;
use super::policy::{self, Due};
use super::{Context, Objects, exempt, ignores_failure, list, text};

/// Kubernetes' `ValidatingAdmissionPolicy`.
#[derive(Debug)]
pub(super) struct ValidatingPolicies(pub(super) Context);

/// A validation that did not hold.
struct Failure {
    index: usize,
    message: String,
    reason: String,
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        if exempt(request) {
            return Ok(());
        }
        let objects = Objects { new, old };
        let due =
            policy::due(&self.0, request, objects, "validatingadmissionpolicies", "validatingadmissionpolicybindings")
                .await?;
        let mut refused: Option<ApiError> = None;
        for due in due {
            let failures = self.judge(&due.view.request(request), due.view.objects(objects), &due);
            for failure in failures {
                let error = enforce(request, objects, &due, &failure);
                match (&mut refused, error) {
                    (Some(refused), Some(error)) => refused.details.causes.extend(error.details.causes),
                    (None, error) => refused = error,
                    (Some(_), None) => {}
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

impl ValidatingPolicies {
    fn judge(&self, request: &Request<'_>, objects: Objects<'_>, due: &Due) -> Vec<Failure> {
        let environment = match due.environment(&self.0, request, objects) {
            Ok(Some(environment)) => environment,
            Ok(None) => return Vec::new(),
            Err(message) => return vec![Failure { index: 0, message, reason: "Invalid".to_owned() }],
        };
        let mut budget = Budget::new(PER_OBJECT);
        let mut failures = Vec::new();
        for (index, validation) in list(due.spec(), "validations").iter().enumerate() {
            let source = text(validation, "expression");
            let message = match self.value(&environment, source, &mut budget) {
                Ok(Val::Bool(true)) => continue,
                Ok(_) => self.message(&environment, validation, &mut budget),
                Err(_) if ignores_failure(due.spec()) => continue,
                Err(error) => format!("expression '{source}' resulted in error: {error}"),
            };
            let reason = text(validation, "reason");
            let reason = if reason.is_empty() { "Invalid" } else { reason }.to_owned();
            failures.push(Failure { index, message, reason });
        }
        self.annotate(request, due, &environment, &mut budget);
        failures
    }

    fn value<'s>(
        &self,
        environment: &'s Environment<'_>,
        source: &str,
        budget: &mut Budget,
    ) -> Result<Val<'s>, String> {
        let program = self.0.programs.get(source, &environment.names()).map_err(|error| error.to_string())?;
        environment.eval(&program, budget).map_err(|error| error.to_string())
    }

    fn message(&self, environment: &Environment<'_>, validation: &Value, budget: &mut Budget) -> String {
        let expression = text(validation, "messageExpression");
        if !expression.is_empty()
            && let Ok(Val::String(made)) = self.value(environment, expression, budget)
        {
            let made = made.trim();
            if !made.is_empty() && made.len() <= 5 * 1024 && !made.contains('\n') {
                return made.to_owned();
            }
        }
        match text(validation, "message").trim() {
            "" => format!("failed expression: {}", text(validation, "expression").trim()),
            message => message.to_owned(),
        }
    }

    fn annotate(&self, request: &Request<'_>, due: &Due, environment: &Environment<'_>, budget: &mut Budget) {
        for annotation in list(due.spec(), "auditAnnotations") {
            let value = self.value(environment, text(annotation, "valueExpression"), budget);
            if let Ok(Val::String(value)) = value
                && !value.is_empty()
            {
                let key = format!("{}/{}", object::name(&due.policy), text(annotation, "key"));
                request.notes.audit(key, value.chars().take(10 * 1024).collect::<String>());
            }
        }
    }
}

/// Does what the binding says of a failure. Returns the refusal, if that is it.
fn enforce(request: &Request<'_>, objects: Objects<'_>, due: &Due, failure: &Failure) -> Option<ApiError> {
    let (policy, binding) = (object::name(&due.policy), object::name(&due.binding));
    let actions = object::at(&due.binding, "spec.validationActions").and_then(Value::as_array).cloned();
    let mut refused = None;
    for action in actions.unwrap_or_default() {
        match action.as_str().unwrap_or_default() {
            "Deny" => {
                let mut error =
                    policy::refusal(request, objects, &due.policy, &due.binding, &failure.message, &failure.reason);
                error.details.causes.push(Cause {
                    reason: String::new(),
                    message: format!(
                        "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}",
                        failure.message
                    ),
                    field: String::new(),
                });
                refused = Some(error);
            }
            "Warn" => request.notes.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                failure.message
            )),
            "Audit" => {
                let told = json!([{"message": failure.message, "policy": policy, "binding": binding,
                    "expressionIndex": failure.index.to_string(), "validationActions": due.binding.pointer("/spec/validationActions")}]);
                request.notes.audit("validation.policy.admission.k8s.io/validation_failure", told.to_string());
            }
            _ => {}
        }
    }
    refused
}
