//! `x-kubernetes-validations`: rules of a schema in CEL, compiled for each node and run over objects.
//!
//! `self` is the node's value and `oldSelf` what it replaces, where that is known: fields by name, items of list maps by
//! their keys. A rule that speaks of `oldSelf` runs on updates only, unless `optionalOldSelf` is set; one that does not
//! passes where the node is unchanged.

use std::collections::BTreeMap;

use serde_json::Value;

use super::declare::{decl_of, field_path, property_decl};
use super::types::ListKind;
use super::{Budget, Decl, ESTIMATE_LIMIT, EvalError, PER_OBJECT, Program, SCHEMA_ESTIMATE_LIMIT, Type, Val};
use crate::field::{ErrorKind, ErrorList, FieldError, Path};
use crate::schema::structural::{Kind, ListType as SchemaListType, OldItems, Rule, Structural};

/// Bytes of a message that an expression makes.
const MAX_MESSAGE: usize = 5 * 1024;

/// The rules of a schema and of what is below it.
#[derive(Debug)]
pub struct Rules {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    rules: Vec<Compiled>,
    decl: Option<Decl>,
    object_like: bool,
    properties: BTreeMap<String, Node>,
    values: Option<Box<Node>>,
    items: Option<Box<Node>>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    program: Program,
    message: Option<Program>,
    uses_old: bool,
    /// `.spec.x` as a path below the node.
    field_path: String,
}

struct Compiler<'e> {
    errors: &'e mut ErrorList,
    total: u64,
}

impl Rules {
    /// Compiles all rules of a schema that [`crate::schema::structural::parse`] has found good. Errors have Kubernetes'
    /// paths (`….x-kubernetes-validations[0].rule`). `None`: there are no rules.
    pub fn compile(schema: &Structural, path: &Path, errors: &mut ErrorList) -> Option<Self> {
        let mut compiler = Compiler { errors, total: 0 };
        let decl = decl_of(schema, true)?;
        let root = compiler.node(schema, &decl, path, 1, None);
        if compiler.total > SCHEMA_ESTIMATE_LIMIT {
            let what = exceeded(
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema",
                compiler.total,
                SCHEMA_ESTIMATE_LIMIT,
            );
            compiler.errors.forbidden(path, &what);
        }
        root.map(|root| Self { root })
    }

    /// Judges the defaults of the schema that the rules were compiled from, as values that come to be and as ones that stay.
    pub fn judge_defaults(&self, schema: &Structural, path: &Path, errors: &mut ErrorList) {
        let mut run = Run { errors, budget: Budget::new(PER_OBJECT), warnings: Vec::new(), over: false };
        run.defaults(&self.root, schema, path);
    }

    /// Judges an object, which `old` is replaced by if there is one. Returns warnings about what is wrong but unchanged.
    pub fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut ErrorList) -> Vec<String> {
        let mut run = Run { errors, budget: Budget::new(PER_OBJECT), warnings: Vec::new(), over: false };
        run.node(&self.root, object, old, old == Some(object), &Path::default());
        run.warnings
    }
}

fn exceeded(what: &str, cost: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a factor for people")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

impl Compiler<'_> {
    /// `times`: how many values of this node an object may have. `lost`: where the old value stops being known.
    fn node(&mut self, schema: &Structural, decl: &Decl, path: &Path, times: u64, lost: Option<&Path>) -> Option<Node> {
        let mut node = Node {
            decl: Some(decl.clone()),
            object_like: matches!(schema.kind, Some(Kind::Object | Kind::Array)),
            ..Node::default()
        };
        let at = path.child("x-kubernetes-validations");
        for (index, rule) in schema.rules.iter().enumerate() {
            node.rules.extend(self.rule(schema, rule, decl, &at.index(index), times, lost));
        }
        for (name, property) in &schema.properties {
            let Some(decl) = property_decl(decl, name, property) else { continue };
            let at = path.child("properties").key(name);
            if let Some(below) = self.node(property, &decl, &at, times, lost) {
                node.properties.insert(name.clone(), below);
            }
        }
        if let (Some(values), Some(below)) =
            (schema.values(), schema.values().and_then(|v| decl_of(v, v.embedded_resource)))
        {
            let at = path.child("additionalProperties");
            node.values = self.node(values, &below, &at, times.saturating_mul(decl.max.max(1)), lost).map(Box::new);
        }
        if let (Some(items), Some(below)) =
            (schema.items(), schema.items().and_then(|i| decl_of(i, i.embedded_resource)))
        {
            let lost = if schema.list_type == Some(SchemaListType::Map) { lost } else { lost.or(Some(path)) };
            let at = path.child("items");
            node.items = self.node(items, &below, &at, times.saturating_mul(decl.max.max(1)), lost).map(Box::new);
        }
        let empty =
            node.rules.is_empty() && node.properties.is_empty() && node.values.is_none() && node.items.is_none();
        (!empty).then_some(node)
    }

    fn rule(
        &mut self,
        schema: &Structural,
        rule: &Rule,
        decl: &Decl,
        path: &Path,
        times: u64,
        lost: Option<&Path>,
    ) -> Option<Compiled> {
        let optional = rule.optional_old_self == Some(true);
        let old = if optional { Type::optional(decl.clone()).into() } else { decl.clone() };
        let vars = [("self".to_owned(), decl.clone()), ("oldSelf".to_owned(), old)];
        let (rule_path, quoted) = (path.child("rule"), quoted(rule));
        let program = match Program::compile(&rule.rule, &vars) {
            Ok(program) if program.ty().fits(&Type::Bool) => program,
            Ok(_) => {
                self.errors.invalid(&rule_path, &quoted, "compilation failed: must evaluate to a bool");
                return None;
            }
            Err(error) => {
                self.errors.invalid(&rule_path, &quoted, &error.to_string());
                return None;
            }
        };
        self.bound(program.estimate().saturating_mul(times), "estimated rule cost", &rule_path);
        let uses_old = program.uses("oldSelf");
        match (uses_old, lost) {
            (true, Some(lost)) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
                self.errors.invalid(&rule_path, &rule.rule.clone().into(), &why);
            }
            (false, _) if rule.optional_old_self.is_some() => {
                let at = path.child("optionalOldSelf");
                self.errors.invalid(&at, &optional.into(), "may not be set if oldSelf is not used in rule");
            }
            _ => {}
        }
        let message = self.message(rule, &vars, path, times, &quoted);
        let field_path = if rule.field_path.is_empty() {
            String::new()
        } else if let Some(found) = field_path(&rule.field_path, schema) {
            found
        } else {
            self.errors.invalid(&path.child("fieldPath"), &rule.field_path.clone().into(), "must be a valid path");
            String::new()
        };
        Some(Compiled { rule: rule.clone(), program, message, uses_old, field_path })
    }

    fn message(
        &mut self,
        rule: &Rule,
        vars: &[(String, Decl)],
        path: &Path,
        times: u64,
        quoted: &Value,
    ) -> Option<Program> {
        if rule.message_expression.is_empty() {
            return None;
        }
        let at = path.child("messageExpression");
        match Program::compile(&rule.message_expression, vars) {
            Ok(program) if program.ty().fits(&Type::String) => {
                let cost = program.estimate().saturating_mul(times);
                self.bound(cost, "estimated messageExpression cost", &at);
                Some(program)
            }
            Ok(_) => {
                let why = "messageExpression compilation failed: must evaluate to a string";
                self.errors.invalid(&at, quoted, why);
                None
            }
            Err(error) => {
                self.errors.invalid(&at, quoted, &format!("messageExpression {error}"));
                None
            }
        }
    }

    fn bound(&mut self, cost: u64, what: &str, path: &Path) {
        self.total = self.total.saturating_add(cost);
        if cost > ESTIMATE_LIMIT {
            self.errors.forbidden(path, &exceeded(what, cost, ESTIMATE_LIMIT));
        }
    }
}

fn quoted(rule: &Rule) -> Value {
    let mut value = serde_json::json!({"rule": rule.rule});
    if let Value::Object(map) = &mut value {
        for (field, text) in [
            ("message", &rule.message),
            ("messageExpression", &rule.message_expression),
            ("reason", &rule.reason),
            ("fieldPath", &rule.field_path),
        ] {
            if !text.is_empty() {
                map.insert(field.to_owned(), text.clone().into());
            }
        }
    }
    value
}

struct Run<'e> {
    errors: &'e mut ErrorList,
    budget: Budget,
    warnings: Vec<String>,
    /// Nothing more is judged.
    over: bool,
}

impl Run<'_> {
    fn node(&mut self, node: &Node, value: &Value, old: Option<&Value>, unchanged: bool, path: &Path) {
        if self.over || value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for compiled in &node.rules {
            if self.over {
                return;
            }
            self.rule(node, compiled, value, old, unchanged || old == Some(value), path);
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let (below, at) = match (node.properties.get(key), &node.values) {
                        (Some(below), _) => (below, path.child(key)),
                        (None, Some(below)) => (&**below, path.key(key)),
                        _ => continue,
                    };
                    let old = old.and_then(|old| old.get(key));
                    self.node(below, value, old, unchanged || old == Some(value), &at);
                }
            }
            Value::Array(list) => {
                let Some(items) = &node.items else { return };
                let schema = node.decl.as_ref().map(list_map).unwrap_or_default();
                let olds = OldItems::of(&schema, old);
                for (index, item) in list.iter().enumerate() {
                    let old = olds.find(&schema, item);
                    self.node(items, item, old, unchanged || old == Some(item), &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn defaults(&mut self, node: &Node, schema: &Structural, path: &Path) {
        if let Some(default) = &schema.default {
            let (at, before) = (path.child("default"), self.errors.iter().count());
            self.node(node, default, None, false, &at);
            if self.errors.iter().count() == before {
                self.node(node, default, Some(default), true, &at);
            }
        }
        for (name, below) in &node.properties {
            if let Some(property) = schema.properties.get(name) {
                self.defaults(below, property, &path.child("properties").key(name));
            }
        }
        if let (Some(below), Some(values)) = (&node.values, schema.values()) {
            self.defaults(below, values, &path.child("additionalProperties"));
        }
        if let (Some(below), Some(items)) = (&node.items, schema.items()) {
            self.defaults(below, items, &path.child("items"));
        }
    }

    fn rule(
        &mut self,
        node: &Node,
        compiled: &Compiled,
        value: &Value,
        old: Option<&Value>,
        unchanged: bool,
        path: &Path,
    ) {
        let optional = compiled.rule.optional_old_self == Some(true);
        if compiled.uses_old && old.is_none() && !optional {
            return;
        }
        let Some(decl) = &node.decl else { return };
        let this = Val::of(value, &decl.ty);
        let before = old.map(|old| Val::of(old, &decl.ty));
        let before = if optional { Some(Val::optional(before)) } else { before };
        let lookup = |name: &str, _: &mut Budget| match name {
            "self" => Some(Ok(this.clone())),
            "oldSelf" => before.clone().map(Ok),
            _ => None,
        };
        let name = named(&compiled.rule);
        match compiled.program.eval(&lookup, &mut self.budget) {
            Ok(Val::Bool(true)) => return,
            Ok(_) => {}
            Err(EvalError::Cost) => {
                self.over = true;
                let what = if self.budget.is_spent() {
                    "validation failed due to running out of cost budget, no further validation rules will be run"
                        .to_owned()
                } else {
                    format!(
                        "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {name}",
                        EvalError::Cost
                    )
                };
                return self.fail(path, &type_of(decl), &what);
            }
            Err(error @ EvalError::Overload) => {
                let what = format!(
                    "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
                );
                return self.fail(path, &type_of(decl), &what);
            }
            Err(error) => return self.fail(path, &type_of(decl), &format!("{error} evaluating rule: {name}")),
        }
        let detail = self.message(compiled, &lookup);
        let mut at = path.clone();
        if !compiled.field_path.is_empty() {
            at = path.child(&compiled.field_path);
        }
        let error = verdict(&compiled.rule, at, value, node.object_like, &detail);
        if !compiled.uses_old && unchanged {
            self.warnings.push(error.to_string());
        } else {
            self.errors.push(error);
        }
    }

    fn fail(&mut self, path: &Path, kind: &str, what: &str) {
        self.errors.invalid(path, &kind.into(), what);
    }

    fn message(&mut self, compiled: &Compiled, lookup: &super::Lookup<'_, '_>) -> String {
        let made = compiled.message.as_ref().and_then(|program| match program.eval(lookup, &mut self.budget) {
            Ok(Val::String(text)) => {
                let text = text.trim();
                (!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n')).then(|| text.to_owned())
            }
            _ => None,
        });
        made.unwrap_or_else(|| match compiled.rule.message.trim() {
            "" => format!("failed rule: {}", compiled.rule.rule.trim()),
            message => message.to_owned(),
        })
    }
}

fn type_of(decl: &Decl) -> String {
    match &decl.ty {
        Type::Int => "integer".to_owned(),
        Type::Bool => "boolean".to_owned(),
        Type::Double => "number".to_owned(),
        Type::List(_) => "array".to_owned(),
        Type::Map(_) | Type::Object(_) => "object".to_owned(),
        _ => "string".to_owned(),
    }
}

fn named(rule: &Rule) -> String {
    let text = if rule.message.is_empty() { &rule.rule } else { &rule.message };
    text.trim().to_owned()
}

fn verdict(rule: &Rule, path: Path, value: &Value, object_like: bool, detail: &str) -> FieldError {
    let invalid = || {
        if object_like { format!("Invalid value: {detail}") } else { format!("Invalid value: {value}: {detail}") }
    };
    let (kind, message) = match rule.reason.as_str() {
        "FieldValueForbidden" => (ErrorKind::Forbidden, format!("Forbidden: {detail}")),
        "FieldValueRequired" => (ErrorKind::Required, format!("Required value: {detail}")),
        "FieldValueDuplicate" => (ErrorKind::Duplicate, format!("Duplicate value: {value}")),
        _ => (ErrorKind::Invalid, invalid()),
    };
    FieldError { kind, path, message }
}

/// As much of a list's schema as says which of its items are the same.
fn list_map(decl: &Decl) -> Structural {
    let Type::List(list) = &decl.ty else { return Structural::default() };
    let ListKind::Map(keys) = &list.kind else { return Structural::default() };
    Structural { list_type: Some(SchemaListType::Map), list_map_keys: keys.clone(), ..Structural::default() }
}
