//! The checker: names, fields and types of an expression, and the most that it may cost.
//!
//! What nothing is known of is `dyn` and passes; it is looked at when it is evaluated.

use std::sync::Arc;

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};

use super::forms::{Form, variable};
use super::signatures::{self, Cost, Signature};
use super::sizes::{element, literal_size, result_size};
use super::types::{Decl, Type};
use crate::schema::structural::pattern::Patterns;

/// What went wrong, and at which node.
#[derive(Debug)]
pub struct Complaint {
    /// Its id in the parsed expression.
    pub node: u64,
    pub message: String,
}

type Checked = Result<Known, Complaint>;

/// What is known of a node.
#[derive(Clone, Debug)]
pub struct Known {
    pub decl: Decl,
    /// What its evaluation costs at most, in the units of CEL's cost model.
    pub cost: u64,
}

/// The variables in sight.
#[derive(Debug)]
pub struct Checker {
    vars: Vec<(String, Decl)>,
    patterns: Patterns,
    /// Items of a list, and values of a map, need not be of one type: anywhere below a call of `format`.
    mixed: bool,
}

pub(super) fn complain(node: u64, message: impl Into<String>) -> Complaint {
    Complaint { node, message: message.into() }
}

/// Namespaces of functions, where no variable has that name.
pub const NAMESPACES: [&str; 8] = ["cel", "format", "ip", "jsonpatch", "lists", "optional", "sets", "strings"];

/// The names of types, which are values.
pub const TYPES: [&str; 12] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "optional_type", "string", "type", "uint"];

impl Checker {
    pub fn new(vars: Vec<(String, Decl)>) -> Self {
        Self { vars, patterns: Patterns::default(), mixed: false }
    }

    fn var(&self, name: &str) -> Option<&Decl> {
        self.vars.iter().rev().find(|(known, _)| known == name).map(|(_, decl)| decl)
    }

    /// Judges an expression.
    pub fn check(&mut self, expr: &IdedExpr) -> Checked {
        match &expr.expr {
            Expr::Literal(literal) => Ok(Known { decl: literal_type(literal), cost: 0 }),
            Expr::Ident(name) => self.ident(expr.id, name),
            Expr::Select(select) => {
                if let Some(known) = self.dotted(&select.operand, &select.field) {
                    return Ok(known);
                }
                let operand = self.check(&select.operand)?;
                let decl = field(expr.id, &operand.decl, &select.field)?;
                Ok(Known { decl, cost: operand.cost.saturating_add(1) })
            }
            Expr::Call(call) => self.call(expr.id, call),
            Expr::List(list) => self.list(&list.elements, &list.optional_indices),
            Expr::Map(map) => self.map(&map.entries, self.mixed),
            Expr::Struct(message) => {
                if !(message.type_name.starts_with("Object") || message.type_name == "JSONPatch") {
                    let what = format!("undeclared reference to '{}' (in container '')", message.type_name);
                    return Err(complain(expr.id, what));
                }
                self.map(&message.entries, true).map(|known| Known { decl: Type::Dyn.into(), ..known })
            }
            Expr::Comprehension(_) | Expr::Unspecified => Err(complain(expr.id, "unsupported expression")),
        }
    }

    fn ident(&self, id: u64, name: &str) -> Checked {
        let name = name.trim_start_matches('.');
        match self.var(name) {
            Some(decl) => Ok(Known { decl: decl.clone(), cost: 1 }),
            None if TYPES.contains(&name) => Ok(Known { decl: Type::Type.into(), cost: 0 }),
            None => Err(complain(id, format!("undeclared reference to '{name}' (in container '')"))),
        }
    }

    /// A variable whose name has a dot (`variables.x`).
    fn dotted(&self, operand: &IdedExpr, field: &str) -> Option<Known> {
        let Expr::Ident(root) = &operand.expr else { return None };
        let decl = self.var(&format!("{root}.{field}"))?;
        Some(Known { decl: decl.clone(), cost: 1 })
    }

    fn list(&mut self, elements: &[IdedExpr], optional: &[usize]) -> Checked {
        let mut item: Option<Decl> = None;
        let mut cost = 10_u64;
        for (index, element) in elements.iter().enumerate() {
            let mut known = self.check(element)?;
            cost = cost.saturating_add(known.cost);
            if let (true, Type::Optional(value)) = (optional.contains(&index), &known.decl.ty) {
                known.decl = (**value).clone();
            }
            item = Some(match item {
                None => known.decl,
                Some(item) => united(element.id, &item, &known.decl, self.mixed)?,
            });
        }
        let max = u64::try_from(elements.len()).unwrap_or(u64::MAX);
        Ok(Known { decl: Decl::sized(Type::list(item.unwrap_or(Type::Dyn.into())), max), cost })
    }

    fn map(&mut self, entries: &[::cel::common::ast::IdedEntryExpr], mixed: bool) -> Checked {
        let (mut key, mut value): (Option<Type>, Option<Decl>) = (None, None);
        let mut cost = 30_u64;
        for entry in entries {
            let (k, v) = match &entry.expr {
                EntryExpr::MapEntry(entry) => (self.check(&entry.key)?, self.check(&entry.value)?),
                EntryExpr::StructField(field) => {
                    (Known { decl: Type::String.into(), cost: 0 }, self.check(&field.value)?)
                }
            };
            cost = cost.saturating_add(k.cost).saturating_add(v.cost);
            key = Some(key.map_or_else(|| k.decl.ty.clone(), |key| key.join(&k.decl.ty)));
            value = Some(match value {
                None => v.decl,
                Some(value) => united(entry.id, &value, &v.decl, mixed)?,
            });
        }
        let ty = Type::map(key.unwrap_or(Type::Dyn), value.unwrap_or(Type::Dyn.into()));
        Ok(Known { decl: Decl::sized(ty, u64::try_from(entries.len()).unwrap_or(u64::MAX)), cost })
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Checked {
        if let Some(target) = &call.target {
            if let Expr::Ident(namespace) = &target.expr
                && NAMESPACES.contains(&namespace.as_str())
                && self.var(namespace).is_none()
            {
                return self.namespaced(id, namespace, call);
            }
            if let Some(known) = self.macros(id, call, target)? {
                return Ok(known);
            }
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("has", [arg]) if call.target.is_none() => self.has(id, arg),
            ("_?_:_", [condition, a, b]) => {
                let (condition, a, b) = (self.boolean(condition, "_?_:_")?, self.check(a)?, self.check(b)?);
                if !a.decl.ty.fits(&b.decl.ty) && !b.decl.ty.fits(&a.decl.ty) {
                    return Err(complain(id, no_overload("_?_:_", false, &[Type::Bool, a.decl.ty, b.decl.ty])));
                }
                let decl = Decl::sized(a.decl.ty.join(&b.decl.ty), a.decl.max.max(b.decl.max));
                Ok(Known { decl, cost: condition.saturating_add(a.cost.max(b.cost)) })
            }
            ("_&&_" | "_||_", [a, b]) => {
                let cost = self.boolean(a, &call.func_name)?.saturating_add(self.boolean(b, &call.func_name)?);
                Ok(Known { decl: Type::Bool.into(), cost })
            }
            ("_==_" | "_!=_", [a, b]) => self.equality(id, &call.func_name, a, b),
            ("_[_]", [a, b]) => self.index(id, a, b, false),
            ("_[?_]", [a, b]) => self.index(id, a, b, true),
            ("_?._", [a, b]) => {
                let (operand, Expr::Literal(LiteralValue::String(name))) = (self.check(a)?, &b.expr) else {
                    return Err(complain(id, "unsupported optional field selection"));
                };
                let inner = unwrap_optional(&operand.decl);
                let decl = Type::optional(field(id, &inner, name.inner())?).into();
                Ok(Known { decl, cost: operand.cost.saturating_add(1) })
            }
            (name, args) => {
                let all: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(args).collect();
                self.function(id, name, call.target.is_some(), &all)
            }
        }
    }

    fn namespaced(&mut self, id: u64, namespace: &str, call: &CallExpr) -> Checked {
        if let ("cel", "bind", [name, value, body]) = (namespace, call.func_name.as_str(), call.args.as_slice()) {
            let value = self.check(value)?;
            let body = self.within(vec![(variable(name)?, value.decl)], body)?;
            return Ok(Known { cost: body.cost.saturating_add(value.cost), ..body });
        }
        let name = format!("{namespace}.{}", call.func_name);
        self.function(id, &name, false, &call.args.iter().collect::<Vec<_>>())
    }

    fn boolean(&mut self, expr: &IdedExpr, function: &str) -> Result<u64, Complaint> {
        let known = self.check(expr)?;
        if known.decl.ty.fits(&Type::Bool) {
            return Ok(known.cost);
        }
        Err(complain(expr.id, no_overload(function, false, &[known.decl.ty])))
    }

    fn has(&mut self, id: u64, arg: &IdedExpr) -> Checked {
        let Expr::Select(select) = &arg.expr else { return Err(complain(id, "invalid argument to has() macro")) };
        if self.dotted(&select.operand, &select.field).is_some() {
            return Ok(Known { decl: Type::Bool.into(), cost: 0 });
        }
        let operand = self.check(&select.operand)?;
        field(arg.id, &unwrap_optional(&operand.decl), &select.field)?;
        Ok(Known { decl: Type::Bool.into(), cost: operand.cost })
    }

    fn equality(&mut self, id: u64, name: &str, a: &IdedExpr, b: &IdedExpr) -> Checked {
        let (a, b) = (self.check(a)?, self.check(b)?);
        if !a.decl.ty.fits(&b.decl.ty) && !b.decl.ty.fits(&a.decl.ty) {
            return Err(complain(id, no_overload(name, false, &[a.decl.ty, b.decl.ty])));
        }
        let compare = signatures::text(a.decl.max.min(b.decl.max)).max(1);
        let cost = a.cost.saturating_add(b.cost).saturating_add(compare);
        Ok(Known { decl: Type::Bool.into(), cost })
    }

    fn index(&mut self, id: u64, a: &IdedExpr, b: &IdedExpr, optional: bool) -> Checked {
        let (operand, index) = (self.check(a)?, self.check(b)?);
        let inner = unwrap_optional(&operand.decl);
        let decl = match &inner.ty {
            Type::List(list) if index.decl.ty.fits(&Type::Int) => list.item.clone(),
            Type::Map(map) if index.decl.ty.fits(&map.key) => map.value.clone(),
            Type::Dyn => Type::Dyn.into(),
            other => return Err(complain(id, no_overload("_[_]", false, &[other.clone(), index.decl.ty]))),
        };
        let decl =
            if optional || matches!(operand.decl.ty, Type::Optional(_)) { Type::optional(decl).into() } else { decl };
        Ok(Known { decl, cost: operand.cost.saturating_add(index.cost).saturating_add(1) })
    }

    fn within(&mut self, vars: Vec<(String, Decl)>, body: &IdedExpr) -> Checked {
        let depth = self.vars.len();
        self.vars.extend(vars);
        let known = self.check(body);
        self.vars.truncate(depth);
        known
    }

    /// Comprehensions, and what else binds a variable. `None`: an ordinary call.
    fn macros(&mut self, id: u64, call: &CallExpr, target: &IdedExpr) -> Result<Option<Known>, Complaint> {
        let Some(form) = Form::of(call) else { return Ok(None) };
        let range = self.check(target)?;
        if let Form::Optional { var, body, flat } = form {
            let inner = unwrap_optional(&range.decl);
            let body = self.within(vec![(variable(var)?, inner)], body)?;
            let decl = if flat { body.decl } else { Type::optional(body.decl).into() };
            return Ok(Some(Known { decl, cost: range.cost.saturating_add(body.cost) }));
        }
        let Form::Each { vars, bodies } = form else { return Ok(None) };
        let bound = bound(id, &range.decl, vars.len())?;
        let names = vars.iter().map(|var| variable(var)).collect::<Result<Vec<_>, _>>()?;
        let scope: Vec<(String, Decl)> = names.into_iter().zip(bound).collect();
        let mut each = 2_u64;
        let mut last = Decl::from(Type::Dyn);
        for (index, body) in bodies.iter().enumerate() {
            let known = self.within(scope.clone(), body)?;
            each = each.saturating_add(known.cost);
            let predicate = matches!(call.func_name.as_str(), "all" | "exists" | "exists_one" | "existsOne" | "filter")
                || index + 1 < bodies.len();
            if predicate && !known.decl.ty.fits(&Type::Bool) {
                let what = format!("expected type 'bool' but found '{}'", known.decl.ty);
                return Err(complain(body.id, what));
            }
            last = known.decl;
        }
        let mut cost = range.cost.saturating_add(each.saturating_mul(range.decl.max)).saturating_add(1);
        let decl = match call.func_name.as_str() {
            "sortBy" => {
                if !(last.ty.fits(&Type::Dyn) && sortable(&last.ty) && range.decl.ty.fits(&Type::list(Type::Dyn))) {
                    return Err(complain(id, no_overload("sortBy", true, &[range.decl.ty, last.ty])));
                }
                cost = cost.saturating_add(Cost::Square.of(&[range.decl.max], 1));
                range.decl
            }
            "filter" => match &range.decl.ty {
                Type::Map(map) => Decl::sized(Type::list(map.key.clone()), range.decl.max),
                _ => range.decl,
            },
            "map" | "transformList" => Decl::sized(Type::list(last), range.decl.max),
            "transformMap" => match &range.decl.ty {
                Type::Map(map) => Decl::sized(Type::map(map.key.clone(), last), range.decl.max),
                _ => Decl::sized(Type::map(Type::Int, last), range.decl.max),
            },
            "transformMapEntry" => Decl::sized(Type::map(Type::Dyn, Type::Dyn), range.decl.max),
            _ => Type::Bool.into(),
        };
        Ok(Some(Known { decl, cost }))
    }

    fn function(&mut self, id: u64, name: &str, member: bool, args: &[&IdedExpr]) -> Checked {
        let signatures = signatures::of(name);
        if signatures.is_empty() {
            return Err(complain(id, format!("undeclared reference to '{name}' (in container '')")));
        }
        let mixed = self.mixed;
        self.mixed |= name == "format";
        let known = args.iter().map(|arg| self.check(arg)).collect::<Result<Vec<_>, _>>();
        self.mixed = mixed;
        let known = known?;
        let types: Vec<Type> = known.iter().map(|k| k.decl.ty.clone()).collect();
        let sizes: Vec<u64> = known.iter().map(|k| k.decl.max).collect();
        let inner = known.iter().fold(0_u64, |sum, k| sum.saturating_add(k.cost));
        let fitting: Vec<(&Signature, Type)> = signatures
            .iter()
            .filter(|s| s.member == member)
            .filter_map(|s| result(s, &types).map(|ty| (s, ty)))
            .collect();
        let Some((signature, first)) = fitting.first() else {
            return Err(complain(id, no_overload(name, member, &types)));
        };
        let ty = if fitting.iter().all(|(_, ty)| ty.fits(first) && first.fits(ty)) { first.clone() } else { Type::Dyn };
        let own = match name {
            "lists.range" => args.first().map_or(1, |arg| literal_size(arg)),
            "@in" => signature.cost.of(sizes.get(1..).unwrap_or_default(), 1),
            _ => signature.cost.of(&sizes, known.first().map_or(1, element)),
        };
        let max = match (name, args) {
            ("lists.range", [arg]) => literal_size(arg),
            _ => result_size(name, signature, &ty, &sizes),
        };
        self.literals(name, args)?;
        Ok(Known { decl: Decl::sized(ty, max), cost: inner.saturating_add(own) })
    }

    /// What is wrong with a literal that is a pattern, a time or a duration.
    fn literals(&mut self, name: &str, args: &[&IdedExpr]) -> Result<(), Complaint> {
        let literal = |at: usize| match args.get(at).map(|arg| (arg, &arg.expr)) {
            Some((arg, Expr::Literal(LiteralValue::String(text)))) => Some((arg.id, text.inner())),
            _ => None,
        };
        match (name, literal(0), literal(1)) {
            ("matches" | "find" | "findAll", _, Some((id, text))) => {
                let wrong = |error| complain(id, format!("invalid matches argument: {error}"));
                self.patterns.compile(text).map(drop).map_err(wrong)
            }
            ("duration", Some((id, text)), _) if super::duration::parse(text).is_none() => {
                Err(complain(id, "invalid duration argument"))
            }
            ("timestamp", Some((id, text)), _) if super::functions::time::time(text).is_none() => {
                Err(complain(id, "invalid timestamp argument"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether values of a type have an order.
fn sortable(ty: &Type) -> bool {
    signatures::of("sort").iter().any(|signature| result(signature, &[Type::list(ty.clone())]).is_some())
}

/// The variables of a comprehension over such a range.
fn bound(id: u64, range: &Decl, count: usize) -> Result<Vec<Decl>, Complaint> {
    match (&range.ty, count) {
        (Type::Dyn, _) => Ok(vec![Type::Dyn.into(); count]),
        (Type::List(list), 1) => Ok(vec![list.item.clone()]),
        (Type::List(list), _) => Ok(vec![Type::Int.into(), list.item.clone()]),
        (Type::Map(map), 1) => Ok(vec![map.key.clone().into()]),
        (Type::Map(map), _) => Ok(vec![map.key.clone().into(), map.value.clone()]),
        (Type::Object(_), 1) => Ok(vec![Type::String.into()]),
        (Type::Object(_), _) => Ok(vec![Type::String.into(), Type::Dyn.into()]),
        (other, _) => Err(complain(
            id,
            format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"),
        )),
    }
}

/// What both a list's items are, or a map's values, which are of one type unless they are `mixed`.
fn united(id: u64, one: &Decl, other: &Decl, mixed: bool) -> Result<Decl, Complaint> {
    if !mixed && !one.ty.fits(&other.ty) && !other.ty.fits(&one.ty) {
        return Err(complain(id, format!("expected type '{}' but found '{}'", one.ty, other.ty)));
    }
    Ok(Decl::sized(one.ty.join(&other.ty), one.max.max(other.max)))
}

fn unwrap_optional(decl: &Decl) -> Decl {
    match &decl.ty {
        Type::Optional(inner) => (**inner).clone(),
        _ => decl.clone(),
    }
}

/// A field of a value of that type; of an optional, as an optional.
fn field(id: u64, decl: &Decl, name: &str) -> Result<Decl, Complaint> {
    match &decl.ty {
        Type::Dyn | Type::Null => Ok(Type::Dyn.into()),
        Type::Map(map) => Ok(map.value.clone()),
        Type::Object(object) => {
            object.field(name).map(|field| field.decl).ok_or_else(|| complain(id, format!("undefined field '{name}'")))
        }
        Type::Optional(inner) => Ok(Type::optional(field(id, inner, name)?).into()),
        other => Err(complain(id, format!("type '{other}' does not support field selection"))),
    }
}

fn literal_type(literal: &LiteralValue) -> Decl {
    let length = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
    match literal {
        LiteralValue::Boolean(_) => Type::Bool.into(),
        LiteralValue::Bytes(bytes) => Decl::sized(Type::Bytes, length(bytes.inner().len())),
        LiteralValue::Double(_) => Type::Double.into(),
        LiteralValue::Int(_) => Type::Int.into(),
        LiteralValue::Null => Type::Null.into(),
        LiteralValue::String(text) => Decl::sized(Type::String, length(text.inner().len())),
        LiteralValue::UInt(_) => Type::Uint.into(),
    }
}

fn no_overload(name: &str, member: bool, types: &[Type]) -> String {
    let list: Vec<String> = types.iter().map(ToString::to_string).collect();
    let shown = match list.split_first() {
        Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
        _ => format!("({})", list.join(", ")),
    };
    format!("found no matching overload for '{name}' applied to '{shown}'")
}

/// The result of a signature for such arguments, if it fits them.
fn result(signature: &Signature, args: &[Type]) -> Option<Type> {
    if signature.args.len() != args.len() {
        return None;
    }
    let mut params: Vec<(char, Type)> = Vec::new();
    let fits = signature.args.iter().zip(args).all(|(wanted, is)| unify(wanted, is, &mut params));
    fits.then(|| substitute(&signature.result, &params))
}

fn unify(wanted: &Type, is: &Type, params: &mut Vec<(char, Type)>) -> bool {
    match (wanted, is) {
        (Type::Param(name), is) => match params.iter_mut().find(|(known, _)| known == name) {
            None => {
                params.push((*name, is.clone()));
                true
            }
            Some((_, known)) => {
                let ok = known.fits(is) || is.fits(known);
                *known = known.join(is);
                ok
            }
        },
        (_, Type::Dyn) => true,
        (Type::List(wanted), Type::List(is)) => unify(&wanted.item.ty, &is.item.ty, params),
        (Type::Map(wanted), Type::Map(is)) => {
            unify(&wanted.key, &is.key, params) && unify(&wanted.value.ty, &is.value.ty, params)
        }
        (Type::Map(wanted), Type::Object(_)) => unify(&wanted.key, &Type::String, params),
        (Type::Optional(wanted), Type::Optional(is)) => unify(&wanted.ty, &is.ty, params),
        (wanted, is) => is.fits(wanted) && !matches!(is, Type::Null),
    }
}

fn substitute(ty: &Type, params: &[(char, Type)]) -> Type {
    match ty {
        Type::Param(name) => params.iter().find(|(known, _)| known == name).map_or(Type::Dyn, |(_, ty)| ty.clone()),
        Type::List(list) => Type::list(substitute(&list.item.ty, params)),
        Type::Optional(value) => Type::Optional(Arc::new(Decl::sized(substitute(&value.ty, params), value.max))),
        Type::Map(map) => Type::map(substitute(&map.key, params), substitute(&map.value.ty, params)),
        other => other.clone(),
    }
}
