//! Policies in CEL that change what is written.
//!
//! An ApplyConfiguration is merged as a strategic merge patch (lists by their merge keys); for a custom resource, as a merge
//! patch. What must stay true: each mutation sees the object as defaulted after the one before; a policy that asks to be
//! reinvoked runs once more if a later one changed the object.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::cel::{Budget, PER_OBJECT};
use wherry_api::object;
use wherry_api::patch::PatchType;
use wherry_api::status::ApiError;

use super::super::reinvocation::Sort;
use super::super::{Plugin, Request};
use super::equivalent;
use super::mutating_webhook::{finish, keep_identity, shaped, why};
use super::policy::{self, Due};
use super::{Context, Objects, exempt, ignores_failure, list, text};

/// Kubernetes' `MutatingAdmissionPolicy`.
#[derive(Debug)]
pub(super) struct MutatingPolicies(pub(super) Context);

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        if exempt(request) {
            return Ok(());
        }
        let (policies, bindings) = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        if self.0.registered(bindings).is_empty() {
            return Ok(());
        }
        finish(request, object);
        let objects = Objects { new: Some(object), old: request.old };
        let due = policy::due(&self.0, request, objects, policies, bindings).await?;
        request.notes.reinvocation().enter(Sort::Policies, object);
        for due in &due {
            let id = due.id();
            if !request.notes.reinvocation().is_due(Sort::Policies, &id) {
                continue;
            }
            let changed = self.run(request, object, due).await?;
            let again = text(due.spec(), "reinvocationPolicy") == "IfNeeded";
            request.notes.reinvocation().asked(Sort::Policies, id, again, changed);
        }
        request.notes.reinvocation().leave(Sort::Policies, object);
        Ok(())
    }
}

impl MutatingPolicies {
    /// Runs the mutations of one policy; returns whether the object changed.
    async fn run(&self, request: &Request<'_>, object: &mut Value, due: &Due) -> Result<bool, ApiError> {
        let before = object.clone();
        let mut budget = Budget::new(PER_OBJECT);
        for mutation in list(due.spec(), "mutations") {
            let objects = Objects { new: Some(object), old: request.old };
            let view = equivalent::view(request, objects, due.view.seen()).await?;
            let shown = view.request(request);
            let mut made = match self.mutation(&shown, view.objects(objects), due, mutation, &mut budget) {
                Ok(Some(made)) => made,
                Ok(None) => return Ok(false),
                Err(_) if ignores_failure(due.spec()) => continue,
                Err(why) => return Err(policy::refusal(request, objects, &due.policy, &due.binding, &why, "Invalid")),
            };
            finish(&shown, &mut made);
            *object = view.back(request, made).await?;
            finish(request, object);
        }
        Ok(*object != before)
    }

    /// The object that one mutation makes; `None`: the policy's conditions do not hold.
    fn mutation(
        &self,
        request: &Request<'_>,
        objects: Objects<'_>,
        due: &Due,
        mutation: &Value,
        budget: &mut Budget,
    ) -> Result<Option<Value>, String> {
        let Some(environment) = due.environment(&self.0, request, objects)? else { return Ok(None) };
        let Some(current) = objects.new else { return Ok(None) };
        let json_patch = text(mutation, "patchType") == "JSONPatch";
        let field = if json_patch { "jsonPatch.expression" } else { "applyConfiguration.expression" };
        let source = object::text_at(mutation, field);
        let program = self.0.programs.get(&source, &environment.names()).map_err(|error| error.to_string())?;
        let value = environment.eval(&program, budget).map_err(|error| error.to_string())?;
        let changes = value.to_json().ok_or("the expression's value is not an object of the API")?;
        let kind = match (json_patch, wherry_api::schema::of(request.kind).fields().is_empty()) {
            (true, _) => PatchType::Json,
            (false, true) => PatchType::Merge,
            (false, false) => PatchType::Strategic,
        };
        let mut made = shaped(request, kind, current, &changes).map_err(|error| why(&error).to_owned())?;
        keep_identity(&mut made, current);
        Ok(Some(made))
    }
}
