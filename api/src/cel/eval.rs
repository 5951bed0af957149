//! The evaluator: walks an expression with its variables, and counts what it does.
//!
//! What must stay true: every node, every element of a list and every ten bytes of a text that are touched are charged to
//! the [`Budget`] before the work is done, and so is the room of every value that is made; nothing panics, whatever the
//! expression and the objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use super::check::{NAMESPACES, TYPES};
use super::forms::{Form, variable};
use super::functions::{self, lists};
use super::value::{ELEMENT, ENTRY, Key, Map, Text, Val};
use super::{Budget, EvalError};

type Result<T> = std::result::Result<T, EvalError>;

/// A variable that is known, or made when it is first asked for.
pub type Lookup<'s, 'a> = dyn Fn(&str, &mut Budget) -> Option<Result<Val<'a>>> + 's;

/// One evaluation.
pub(super) struct Evaluator<'s, 'a> {
    pub lookup: &'s Lookup<'s, 'a>,
    pub budget: &'s mut Budget,
    /// Of comprehensions.
    locals: Vec<(String, Val<'a>)>,
}

impl<'s, 'a> Evaluator<'s, 'a> {
    pub fn new(lookup: &'s Lookup<'s, 'a>, budget: &'s mut Budget) -> Self {
        Self { lookup, budget, locals: Vec::new() }
    }

    pub fn eval(&mut self, expr: &IdedExpr) -> Result<Val<'a>> {
        match &expr.expr {
            Expr::Literal(literal) => {
                let value = constant(literal);
                self.budget.make(value.made())?;
                Ok(value)
            }
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => {
                self.budget.charge(1)?;
                if let Some(value) = self.dotted(select) {
                    return value;
                }
                let operand = self.eval(&select.operand)?;
                let part = select_field(&operand, &select.field)?;
                self.taken(part)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(&list.elements, &list.optional_indices),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(message) => self.map(&message.entries),
            Expr::Comprehension(_) | Expr::Unspecified => Err(EvalError::other("unsupported expression")),
        }
    }

    /// A variable whose name has a dot (`variables.x`).
    fn dotted(&mut self, select: &SelectExpr) -> Option<Result<Val<'a>>> {
        let Expr::Ident(root) = &select.operand.expr else { return None };
        if self.is_local(root) {
            return None;
        }
        (self.lookup)(&format!("{root}.{}", select.field), self.budget)
    }

    /// A part of a value; the bytes that a text stands for are decoded each time.
    fn taken(&mut self, part: Val<'a>) -> Result<Val<'a>> {
        let decoded = part.decoded();
        if decoded > 0 {
            self.budget.charge(super::signatures::text(u64::try_from(decoded).unwrap_or(u64::MAX)))?;
            self.budget.make(decoded)?;
        }
        Ok(part)
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|(known, _)| known == name)
    }

    fn ident(&mut self, name: &str) -> Result<Val<'a>> {
        self.budget.charge(1)?;
        let name = name.trim_start_matches('.');
        if let Some((_, value)) = self.locals.iter().rev().find(|(known, _)| known == name) {
            return Ok(value.clone());
        }
        if let Some(value) = (self.lookup)(name, self.budget) {
            return value;
        }
        if TYPES.contains(&name) {
            return Ok(Val::Type(name.into()));
        }
        Err(EvalError::other(format!("no such attribute(s): {name}")))
    }

    fn list(&mut self, elements: &[IdedExpr], optional: &[usize]) -> Result<Val<'a>> {
        self.budget.charge(10)?;
        self.budget.make(elements.len().saturating_mul(ELEMENT))?;
        let mut items = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            match self.eval(element)? {
                Val::Optional(value) if optional.contains(&index) => items.extend(value.map(|v| (*v).clone())),
                value => items.push(value),
            }
        }
        Ok(items.into())
    }

    fn map(&mut self, entries: &[::cel::common::ast::IdedEntryExpr]) -> Result<Val<'a>> {
        self.budget.charge(30)?;
        let mut map = BTreeMap::new();
        for entry in entries {
            let (key, value, optional) = match &entry.expr {
                EntryExpr::MapEntry(entry) => (self.eval(&entry.key)?, self.eval(&entry.value)?, entry.optional),
                EntryExpr::StructField(field) => {
                    let name = super::escape::unescape(&field.field).unwrap_or_else(|| field.field.clone());
                    (Val::from(name), self.eval(&field.value)?, field.optional)
                }
            };
            let key = Key::of(&key).ok_or_else(|| EvalError::other("unsupported key type"))?;
            self.budget.make(ENTRY.saturating_add(key.length()))?;
            let value = match value {
                Val::Optional(None) if optional => continue,
                Val::Optional(Some(value)) if optional => (*value).clone(),
                value => value,
            };
            if map.insert(key, value).is_some() {
                return Err(EvalError::other("insert failed: duplicate key"));
            }
        }
        Ok(Val::Map(Map::Made(Arc::new(map))))
    }

    fn call(&mut self, call: &CallExpr) -> Result<Val<'a>> {
        if let Some(target) = &call.target {
            if let Expr::Ident(namespace) = &target.expr
                && NAMESPACES.contains(&namespace.as_str())
                && !self.is_local(namespace)
                && (self.lookup)(namespace, self.budget).is_none()
            {
                return self.namespaced(namespace, call);
            }
            if let Some(form) = Form::of(call) {
                let range = self.eval(target)?;
                return self.form(&call.func_name, form, &range);
            }
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("has", [arg]) if call.target.is_none() => self.has(arg),
            ("_&&_", [a, b]) => self.logic(a, b, false),
            ("_||_", [a, b]) => self.logic(a, b, true),
            ("_?_:_", [condition, a, b]) => match self.eval(condition)? {
                Val::Bool(true) => self.eval(a),
                Val::Bool(false) => self.eval(b),
                _ => Err(EvalError::overload()),
            },
            ("_?._", [a, b]) => {
                self.budget.charge(1)?;
                let (operand, Expr::Literal(LiteralValue::String(name))) = (self.eval(a)?, &b.expr) else {
                    return Err(EvalError::overload());
                };
                let part = optional_part(&operand, |value| select_field(value, name.inner()))?;
                self.taken(part)
            }
            (name @ ("_[_]" | "_[?_]"), [a, b]) => {
                self.budget.charge(1)?;
                let (operand, index) = (self.eval(a)?, self.eval(b)?);
                self.budget.charge(functions::handling(&index))?;
                let part = match operand {
                    operand @ Val::Optional(_) => optional_part(&operand, |value| functions::index(value, &index)),
                    operand if name == "_[?_]" => optional_part(&operand, |value| functions::index(value, &index)),
                    operand => functions::index(&operand, &index),
                };
                self.taken(part?)
            }
            (name @ ("or" | "orValue"), [other]) => match (&call.target, name) {
                (None, _) => Err(EvalError::overload()),
                // What is not needed may fail.
                (Some(target), name) => match (self.eval(target)?, name) {
                    (Val::Optional(None), _) => self.eval(other),
                    (Val::Optional(Some(value)), "orValue") => Ok((*value).clone()),
                    (some @ Val::Optional(_), _) => Ok(some),
                    _ => Err(EvalError::overload()),
                },
            },
            (name, args) => {
                let all: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(args).collect();
                self.function(name, call.target.is_some(), &all)
            }
        }
    }

    fn namespaced(&mut self, namespace: &str, call: &CallExpr) -> Result<Val<'a>> {
        if let ("cel", "bind", [name, value, body]) = (namespace, call.func_name.as_str(), call.args.as_slice()) {
            let value = self.eval(value)?;
            return self.within(vec![(name_of(name)?, value)], body);
        }
        let name = format!("{namespace}.{}", call.func_name);
        self.function(&name, false, &call.args.iter().collect::<Vec<_>>())
    }

    fn function(&mut self, name: &str, member: bool, args: &[&IdedExpr]) -> Result<Val<'a>> {
        let values = args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>>>()?;
        functions::call(name, member, &values, self.budget)
    }

    fn within(&mut self, vars: Vec<(String, Val<'a>)>, body: &IdedExpr) -> Result<Val<'a>> {
        let depth = self.locals.len();
        self.locals.extend(vars);
        let value = self.eval(body);
        self.locals.truncate(depth);
        value
    }

    /// One side may fail if the other decides.
    fn logic(&mut self, a: &IdedExpr, b: &IdedExpr, decides: bool) -> Result<Val<'a>> {
        let first = self.eval(a);
        match first {
            Ok(Val::Bool(value)) if value == decides => return Ok(Val::Bool(decides)),
            Err(EvalError::Cost) => return Err(EvalError::Cost),
            _ => {}
        }
        match (first, self.eval(b)) {
            (_, Ok(Val::Bool(value))) if value == decides => Ok(Val::Bool(decides)),
            (_, Err(EvalError::Cost)) => Err(EvalError::Cost),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Val::Bool(_)), Ok(Val::Bool(_))) => Ok(Val::Bool(!decides)),
            _ => Err(EvalError::overload()),
        }
    }

    fn has(&mut self, arg: &IdedExpr) -> Result<Val<'a>> {
        let Expr::Select(select) = &arg.expr else { return Err(EvalError::overload()) };
        if self.dotted(select).is_some() {
            return Ok(Val::Bool(true));
        }
        let mut operand = self.eval(&select.operand)?;
        self.budget.charge(1)?;
        if let Val::Optional(inner) = operand {
            match inner {
                None => return Ok(Val::Bool(false)),
                Some(inner) => operand = (*inner).clone(),
            }
        }
        match operand {
            Val::Map(map) => Ok(Val::Bool(map.get(&Val::String(Text::Borrowed(&select.field))).is_some())),
            _ => Err(EvalError::other(format!("no such key: {}", select.field))),
        }
    }

    fn form(&mut self, name: &str, form: Form<'_>, range: &Val<'a>) -> Result<Val<'a>> {
        match form {
            Form::Optional { var, body, flat } => match range {
                Val::Optional(None) => Ok(Val::Optional(None)),
                Val::Optional(Some(value)) => {
                    let made = self.within(vec![(name_of(var)?, (**value).clone())], body)?;
                    if flat { Ok(made) } else { Ok(Val::optional(Some(made))) }
                }
                _ => Err(EvalError::overload()),
            },
            Form::Each { vars, bodies } => {
                let names = vars.iter().map(|var| name_of(var)).collect::<Result<Vec<_>>>()?;
                let items = self.items(range, names.len())?;
                self.each(name, &names, &bodies, items)
            }
        }
    }

    /// What a comprehension goes through: the values of its variables for each step.
    fn items<'r>(&mut self, range: &'r Val<'a>, count: usize) -> Result<Box<dyn Iterator<Item = Vec<Val<'a>>> + 'r>> {
        self.budget.charge(range.size())?;
        match (range, count) {
            (Val::List(list), 1) => Ok(Box::new(list.iter().map(|item| vec![item]))),
            (Val::List(list), _) => {
                Ok(Box::new(list.iter().enumerate().map(|(i, item)| vec![super::value::count(i), item])))
            }
            (Val::Map(map), 1) => Ok(Box::new(map.keys().into_iter().map(|key| vec![key]))),
            (Val::Map(map), _) => Ok(Box::new(map.entries().map(|(key, value)| vec![key, value]))),
            _ => Err(EvalError::overload()),
        }
    }

    fn each(
        &mut self,
        name: &str,
        vars: &[String],
        bodies: &[&IdedExpr],
        items: impl Iterator<Item = Vec<Val<'a>>>,
    ) -> Result<Val<'a>> {
        let Some((body, conditions)) = bodies.split_last() else { return Err(EvalError::overload()) };
        let mut gathered = Gathered::default();
        for item in items {
            self.budget.charge(1)?;
            let item = item.into_iter().map(|part| self.taken(part)).collect::<Result<Vec<_>>>()?;
            let scope: Vec<(String, Val<'a>)> = vars.iter().cloned().zip(item.iter().cloned()).collect();
            if let [condition] = conditions
                && !boolean(self.within(scope.clone(), condition)?)?
            {
                continue;
            }
            let value = self.within(scope, body);
            if !gathered.take(name, value, &item, self.budget)? {
                break;
            }
        }
        gathered.finish(name, self.budget)
    }
}

/// What a comprehension has gathered so far.
#[derive(Default)]
struct Gathered<'a> {
    list: Vec<Val<'a>>,
    /// By which the list is sorted.
    keys: Vec<Val<'a>>,
    map: BTreeMap<Key, Val<'a>>,
    /// How many were true.
    found: usize,
    /// An error that a later element may make irrelevant.
    error: Option<EvalError>,
    failed: bool,
}

impl<'a> Gathered<'a> {
    /// Takes one result; returns whether to go on.
    fn take(&mut self, name: &str, value: Result<Val<'a>>, item: &[Val<'a>], budget: &mut Budget) -> Result<bool> {
        match name {
            "all" | "exists" => {
                let decides = name == "exists";
                match value.and_then(boolean) {
                    Ok(value) if value == decides => {
                        self.failed = true;
                        return Ok(false);
                    }
                    Ok(_) => {}
                    Err(EvalError::Cost) => return Err(EvalError::Cost),
                    Err(error) => self.error = Some(error),
                }
            }
            "exists_one" | "existsOne" => self.found += usize::from(boolean(value?)?),
            "filter" => {
                if boolean(value?)? {
                    budget.make(ELEMENT)?;
                    self.list.extend(item.first().cloned());
                }
            }
            "sortBy" => {
                budget.make(2 * ELEMENT)?;
                self.keys.push(value?);
                self.list.extend(item.first().cloned());
            }
            "map" | "transformList" => {
                budget.make(ELEMENT)?;
                self.list.push(value?);
            }
            "transformMap" => {
                let key = item.first().and_then(Key::of).ok_or_else(EvalError::overload)?;
                budget.make(ENTRY.saturating_add(key.length()))?;
                self.map.insert(key, value?);
            }
            _ => {
                let Val::Map(made) = value? else { return Err(EvalError::overload()) };
                for (key, value) in made.entries() {
                    let key = Key::of(&key).ok_or_else(EvalError::overload)?;
                    budget.make(ENTRY.saturating_add(key.length()))?;
                    if self.map.insert(key, value).is_some() {
                        return Err(EvalError::other("insert failed: duplicate key"));
                    }
                }
            }
        }
        Ok(true)
    }

    fn finish(self, name: &str, budget: &mut Budget) -> Result<Val<'a>> {
        match name {
            "all" | "exists" => match (self.failed, self.error) {
                (true, _) => Ok(Val::Bool(name == "exists")),
                (false, Some(error)) => Err(error),
                (false, None) => Ok(Val::Bool(name == "all")),
            },
            "exists_one" | "existsOne" => Ok(Val::Bool(self.found == 1)),
            "filter" | "map" | "transformList" => Ok(self.list.into()),
            "sortBy" => {
                budget.charge(lists::sorting(&self.keys, budget.call))?;
                lists::sorted(self.keys, self.list)
            }
            _ => Ok(Val::Map(Map::Made(Arc::new(self.map)))),
        }
    }
}

fn name_of(expr: &IdedExpr) -> Result<String> {
    variable(expr).map_err(|complaint| EvalError::other(complaint.message))
}

fn boolean(value: Val<'_>) -> Result<bool> {
    match value {
        Val::Bool(value) => Ok(value),
        _ => Err(EvalError::overload()),
    }
}

/// A part of a value that may be absent, as an optional.
fn optional_part<'a>(operand: &Val<'a>, part: impl Fn(&Val<'a>) -> Result<Val<'a>>) -> Result<Val<'a>> {
    let value = match operand {
        Val::Optional(None) => return Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) => part(inner),
        value => part(value),
    };
    match value {
        Ok(value @ Val::Optional(_)) => Ok(value),
        Ok(value) => Ok(Val::optional(Some(value))),
        Err(EvalError::Missing(_)) => Ok(Val::Optional(None)),
        Err(error) => Err(error),
    }
}

fn select_field<'a>(operand: &Val<'a>, field: &str) -> Result<Val<'a>> {
    match operand {
        Val::Map(map) => map
            .get(&Val::String(Text::Borrowed(field)))
            .ok_or_else(|| EvalError::Missing(format!("no such key: {field}"))),
        Val::Optional(_) => optional_part(operand, |value| select_field(value, field)),
        _ => Err(EvalError::overload()),
    }
}

fn constant<'a>(literal: &LiteralValue) -> Val<'a> {
    match literal {
        LiteralValue::Boolean(b) => Val::Bool(*b.inner()),
        LiteralValue::Bytes(bytes) => Val::Bytes(bytes.inner().into()),
        LiteralValue::Double(d) => Val::Double(*d.inner()),
        LiteralValue::Int(i) => Val::Int(*i.inner()),
        LiteralValue::Null => Val::Null,
        LiteralValue::String(text) => Val::from(text.inner().to_owned()),
        LiteralValue::UInt(u) => Val::Uint(*u.inner()),
    }
}
