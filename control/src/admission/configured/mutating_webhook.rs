//! Webhooks that change what is written, one after the other, by the names of their configurations.
//!
//! What must stay true: each sees the object as defaulted after the one before; one that asks to be reinvoked is asked
//! once more if a later one changed the object.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::decode::{self, Decoded, FieldValidation};
use wherry_api::object;
use wherry_api::patch::{self, PatchType};
use wherry_api::status::ApiError;

use super::super::reinvocation::Sort;
use super::super::{Operation, Plugin, Request, Step};
use super::equivalent::Views;
use super::{Context, Objects, exempt, list, text, webhook};

/// Audit annotations that tell what webhooks did.
const MUTATED: &str = "mutation.webhook.admission.k8s.io";

/// Kubernetes' `MutatingAdmissionWebhook`.
#[derive(Debug)]
pub(super) struct MutatingWebhooks(pub(super) Context);

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        if exempt(request) {
            return Ok(());
        }
        let webhooks = self.webhooks();
        if webhooks.is_empty() {
            return Ok(());
        }
        finish(request, object);
        request.notes.reinvocation().enter(Sort::Webhooks, object);
        for (index, (configuration, webhook)) in webhooks.iter().enumerate() {
            let id = format!("{configuration}/{}", text(webhook, "name"));
            if !request.notes.reinvocation().is_due(Sort::Webhooks, &id) {
                continue;
            }
            let Some(changed) = self.one(request, object, webhook).await? else { continue };
            let key = format!("{MUTATED}/round_{}_index_{index}", request.notes.reinvocation().round());
            let told = json!({"configuration": configuration, "webhook": text(webhook, "name"), "mutated": changed});
            request.notes.audit(key, told.to_string());
            let again = text(webhook, "reinvocationPolicy") == "IfNeeded";
            request.notes.reinvocation().asked(Sort::Webhooks, id, again, changed);
        }
        request.notes.reinvocation().leave(Sort::Webhooks, object);
        Ok(())
    }

    /// A deletion has nothing to change, but is told.
    async fn validate(&self, request: &Request<'_>, _new: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        if request.operation != Operation::Delete || exempt(request) {
            return Ok(());
        }
        let (objects, mut views) = (Objects { new: None, old }, Views::default());
        for (_, webhook) in self.webhooks() {
            if let Some(view) = webhook::concerns(&self.0, request, objects, &webhook, &mut views).await? {
                webhook::call(&self.0, &view.request(request), view.objects(objects), &webhook, Step::Admit).await?;
            }
        }
        Ok(())
    }
}

impl MutatingWebhooks {
    /// Each with the name of its configuration.
    fn webhooks(&self) -> Vec<(String, Value)> {
        let all = self.0.registered("mutatingwebhookconfigurations");
        let of = |configuration: &Value| {
            let name = object::name(configuration).to_owned();
            list(configuration, "webhooks")
                .iter()
                .map(move |webhook| (name.clone(), webhook.clone()))
                .collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }

    /// Asks one webhook. `None`: it was not asked; else whether it changed the object.
    async fn one(&self, request: &Request<'_>, object: &mut Value, webhook: &Value) -> Result<Option<bool>, ApiError> {
        let objects = Objects { new: Some(object), old: request.old };
        let concerns = webhook::concerns(&self.0, request, objects, webhook, &mut Views::default()).await?;
        let Some(view) = concerns else { return Ok(None) };
        let (shown, objects) = (view.request(request), view.objects(objects));
        let name = text(webhook, "name");
        let answer = webhook::call(&self.0, &shown, objects, webhook, Step::Admit).await?;
        let Some(changes) = answer.and_then(|answer| answer.patch) else { return Ok(Some(false)) };
        let changes = serde_json::from_slice(&changes)
            .map_err(|error| ApiError::internal(format!("the patch of webhook {name:?} is not JSON: {error}")))?;
        let Some(current) = objects.new else { return Ok(Some(false)) };
        let mut patched = shaped(&shown, PatchType::Json, current, &changes).map_err(|error| {
            ApiError::internal(format!("failed to apply the patch of webhook {name:?}: {}", why(&error)))
        })?;
        keep_identity(&mut patched, current);
        finish(&shown, &mut patched);
        let mut patched = view.back(request, patched).await?;
        finish(request, &mut patched);
        let changed = patched != *object;
        *object = patched;
        Ok(Some(changed))
    }
}

/// The object after a change. It still is one of its kind: what the kind does not know goes, what does not fit is an error,
/// or an object would be stored that nobody can read.
pub(super) fn shaped(
    request: &Request<'_>,
    kind: PatchType,
    object: &Value,
    changes: &Value,
) -> Result<Value, ApiError> {
    let made = patch::apply(kind, request.kind, object, changes)?;
    let made = Decoded { object: made, warnings: Vec::new() };
    Ok(decode::patched(request.kind, made, changes, FieldValidation::Ignore)?.object)
}

/// What went wrong with a patch.
pub(super) fn why(error: &ApiError) -> &str {
    error.details.causes.first().map_or(&error.message, |cause| &cause.message)
}

/// What no admission changes.
pub(super) fn keep_identity(new: &mut Value, old: &Value) {
    if old.get("metadata").is_some() {
        object::copy_meta(new, old, &["name", "namespace", "uid", "creationTimestamp"]);
    }
}

/// Makes an object whole again after a change: its type and defaults.
pub(super) fn finish(request: &Request<'_>, object: &mut Value) {
    if request.subresource.is_empty() || !request.is_whole() {
        object::set_type(object, request.kind);
        request.kind.strategy.default(object);
    }
}
