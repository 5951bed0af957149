//! The variables of expressions in admission, and the programs that were compiled.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use wherry_api::cel::authorizer::{self, Check, Question};
use wherry_api::cel::{Budget, CompileError, EvalError, MATCH_CONDITIONS, Program, Type, Val, admission};
use wherry_api::object;
use wherry_api::resource::Descriptor;

use super::super::{Operation, Options, Request};
use super::{Context, Objects, list, matching, text};
use crate::auth::{Attributes, Authorizer, Decision, UserInfo, accounts};

/// Programs that are kept; when there are more, all are compiled anew as they are used.
const MOST: usize = 1024;

/// Compiled programs by their text and variables. Bound: [`MOST`].
#[derive(Debug, Default)]
pub(super) struct Programs(Mutex<HashMap<String, Result<Program, CompileError>>>);

impl Programs {
    /// The program of an expression that may use these variables of its policy, too.
    pub(super) fn get(&self, source: &str, variables: &[String]) -> Result<Program, CompileError> {
        let key = format!("{}\n{source}", variables.join(","));
        if let Some(known) = self.0.lock().get(&key) {
            return known.clone();
        }
        let compiled = Program::compile(source, &admission::declarations(variables, true));
        let mut programs = self.0.lock();
        if programs.len() >= MOST {
            programs.clear();
        }
        programs.insert(key, compiled.clone());
        compiled
    }
}

/// A question of an expression to the server's authorizer, on behalf of the request's user.
struct Asker {
    authorizer: Arc<dyn Authorizer>,
    user: UserInfo,
}

impl authorizer::Authorizer for Asker {
    fn decide(&self, question: &Question) -> authorizer::Decision {
        let user = match &question.service_account {
            Some((namespace, name)) => accounts::user(namespace, name),
            None => self.user.clone(),
        };
        let attributes = Attributes {
            verb: question.verb.clone(),
            group: question.group.clone(),
            version: "*".to_owned(),
            resource: question.resource.clone(),
            subresource: question.subresource.clone(),
            namespace: question.namespace.clone(),
            name: question.name.clone(),
            path: question.path.clone(),
            field_selector: question.field_selector.clone(),
            label_selector: question.label_selector.clone(),
        };
        // Every authorizer answers from memory; one that would wait has no answer here.
        match self.authorizer.authorize(&user, &attributes).now_or_never() {
            Some(Decision::Allow) => authorizer::Decision { allowed: true, ..Default::default() },
            Some(Decision::Deny(reason)) => authorizer::Decision { reason, ..Default::default() },
            None => {
                authorizer::Decision { error: "the authorizer does not answer at once".into(), ..Default::default() }
            }
        }
    }
}

/// What expressions see of one request.
pub(super) struct Environment<'a> {
    pub(super) objects: Objects<'a>,
    request: Value,
    params: Value,
    namespace: Value,
    check: Check,
    requested: Check,
    variables: Vec<(String, Result<Program, CompileError>)>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(context: &Context, request: &Request<'a>, objects: Objects<'a>) -> Self {
        let asker: Arc<dyn authorizer::Authorizer> =
            Arc::new(Asker { authorizer: Arc::clone(&context.authorizer), user: request.user.clone() });
        let question = Question {
            group: request.resource.group.to_string(),
            resource: request.resource.plural.to_string(),
            subresource: request.subresource.to_owned(),
            namespace: request.namespace.to_owned(),
            name: matching::name(request, objects).to_owned(),
            ..Question::default()
        };
        Self {
            objects,
            request: request_value(request, objects),
            params: Value::Null,
            namespace: context.namespace(request.namespace).unwrap_or(Value::Null),
            check: Check::start(Arc::clone(&asker)),
            requested: Check::of(asker, question),
            variables: Vec::new(),
        }
    }

    /// With the variables of a policy (`spec.variables`), each of which sees those before it.
    pub(super) fn with_variables(mut self, programs: &Programs, spec: &Value) -> Self {
        let mut names: Vec<String> = Vec::new();
        for variable in list(spec, "variables") {
            let program = programs.get(text(variable, "expression"), &names);
            let name = text(variable, "name").to_owned();
            names.push(name.clone());
            self.variables.push((name, program));
        }
        self
    }

    pub(super) fn with_params(mut self, params: Value) -> Self {
        self.params = params;
        self
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.variables.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Evaluates an expression; variables are evaluated when they are named.
    pub(super) fn eval<'s>(&'s self, program: &Program, budget: &mut Budget) -> Result<Val<'s>, EvalError> {
        program.eval(&|name, budget| self.lookup(name, budget), budget)
    }

    fn lookup<'s>(&'s self, name: &str, budget: &mut Budget) -> Option<Result<Val<'s>, EvalError>> {
        if let Some(own) = name.strip_prefix("variables.") {
            let (_, program) = self.variables.iter().find(|(known, _)| known == own)?;
            return Some(match program {
                Ok(program) => program.eval_within(&|name, budget| self.lookup(name, budget), budget),
                Err(error) => Err(EvalError::Other(error.to_string())),
            });
        }
        let json = |value: Option<&'s Value>| value.map_or(Val::Null, |value| Val::of(value, &Type::Dyn));
        Some(Ok(match name {
            "object" => json(self.objects.new),
            "oldObject" => json(self.objects.old),
            "request" => json(Some(&self.request)),
            "params" => json(Some(&self.params)),
            "namespaceObject" => json(Some(&self.namespace)),
            "authorizer" => Val::Authorizer(Arc::new(self.check.clone())),
            "authorizer.requestResource" => Val::Authorizer(Arc::new(self.requested.clone())),
            _ => return None,
        }))
    }
}

/// `request` in expressions: an AdmissionRequest without its objects.
pub(super) fn request_value(request: &Request<'_>, objects: Objects<'_>) -> Value {
    let kind = |of: &Descriptor| json!({"group": of.group, "version": of.version, "kind": of.kind});
    let place = |of: &Descriptor| json!({"group": of.group, "version": of.version, "resource": of.plural});
    let (shown, requested) = (request.resource, request.requested);
    let requested_kind = if request.is_whole() { requested } else { request.kind };
    let user = request.user;
    json!({
        "kind": kind(request.kind), "resource": place(shown), "subResource": request.subresource,
        "requestKind": kind(requested_kind), "requestResource": place(requested), "requestSubResource": request.subresource,
        "name": matching::name(request, objects), "namespace": request.namespace,
        "operation": request.operation.name(), "dryRun": request.dry_run, "options": options(request),
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
    })
}

/// The options of the operation, which of a patch are those of the create or the update that it is; a connection has none.
fn options(request: &Request<'_>) -> Value {
    let kind = match request.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = match request.options {
        Options::Delete(given) => given.clone(),
        Options::Write { field_manager, field_validation } => {
            let given = [("fieldManager", field_manager), ("fieldValidation", field_validation)];
            given.into_iter().filter(|(_, text)| !text.is_empty()).map(|(field, text)| (field, json!(text))).collect()
        }
    };
    object::set_at(&mut options, "kind", kind);
    object::set_at(&mut options, "apiVersion", "meta.k8s.io/v1");
    if request.dry_run {
        object::set_at(&mut options, "dryRun", json!(["All"]));
    }
    options
}

/// Whether all conditions of a webhook or policy hold. Error: one could not be evaluated, and none was false.
pub(super) fn conditions_hold(context: &Context, environment: &Environment<'_>, owner: &Value) -> Result<bool, String> {
    let mut budget = Budget::new(MATCH_CONDITIONS);
    let mut errors = Vec::new();
    for condition in list(owner, "matchConditions") {
        let program = context.programs.get(text(condition, "expression"), &environment.names());
        let value = program.map_err(|e| e.to_string()).and_then(|program| {
            let holds = environment.eval(&program, &mut budget).map_err(|e| e.to_string())?;
            match holds {
                Val::Bool(holds) => Ok(holds),
                _ => Err("must evaluate to bool".to_owned()),
            }
        });
        match value {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => errors.push(format!("{}: {error}", text(condition, "name"))),
        }
    }
    if errors.is_empty() { Ok(true) } else { Err(errors.join(", ")) }
}
