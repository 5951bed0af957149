//! Label and field selectors, in their string forms and as `metav1.LabelSelector`.
//!
//! A selector is parsed once per request and then matched against every object of a list, so matching allocates nothing.
//! The grammar and its complaints are those of apimachinery's `labels.Parse` and `fields.ParseSelector`.

use std::fmt;

use serde_json::Value;

use crate::field::Path;
use crate::meta::names;
use crate::resource::Descriptor;
use crate::status::ApiError;

mod lexer;
mod parser;

/// What a requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `==` and `in`.
    In,
    /// `!=` and `notin`: an absent label matches too.
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement; all of a selector's must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
    /// Written with `=`, `==` or `!=`, and printed so.
    exact: bool,
}

impl Requirement {
    /// Checks a requirement as Kubernetes does; the error is its complaint.
    fn new(key: String, operator: Operator, mut values: Vec<String>, exact: bool) -> Result<Self, String> {
        check_key(&key)?;
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into());
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                let given = list(&values);
                return Err(format!(
                    "values: Invalid value: {given}: values set must be empty for exists and does not exist"
                ));
            }
            Operator::GreaterThan | Operator::LessThan => check_number(&values)?,
            _ => {}
        }
        let path = Path::new("values");
        for (index, value) in values.iter().enumerate() {
            let complaints = names::label_value(value);
            if !complaints.is_empty() {
                let place = path.index(index).key(&key);
                return Err(format!("{place}: Invalid value: {value:?}: {}", complaints.join("; ")));
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key, operator, values, exact })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|v| self.has(v)),
            Operator::NotIn => value.is_none_or(|v| !self.has(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value, |label, bound| label > bound),
            Operator::LessThan => self.compare(value, |label, bound| label < bound),
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|v| v == value)
    }

    fn compare(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let label = value.and_then(|v| v.parse().ok());
        let bound = self.values.first().and_then(|v| v.parse().ok());
        label.zip(bound).is_some_and(|(label, bound)| holds(label, bound))
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let complaints = names::qualified_name(key);
    if complaints.is_empty() {
        return Ok(());
    }
    Err(format!("key: Invalid value: {key:?}: {}", complaints.join("; ")))
}

fn check_number(values: &[String]) -> Result<(), String> {
    let [value] = values else {
        return Err(format!(
            "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
            list(values)
        ));
    };
    if value.parse::<i64>().is_err() {
        return Err(format!(
            "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
        ));
    }
    Ok(())
}

fn list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("[{}]", quoted.join(","))
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let first = self.values.first().map_or("", String::as_str);
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{first}"),
            Operator::LessThan => write!(f, "{key}<{first}"),
            Operator::In if self.exact => write!(f, "{key}={first}"),
            Operator::NotIn if self.exact => write!(f, "{key}!={first}"),
            Operator::In => write!(f, "{key} in ({})", self.values.join(",")),
            Operator::NotIn => write!(f, "{key} notin ({})", self.values.join(",")),
        }
    }
}

/// A parsed label selector. The default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Sorted by key.
    requirements: Vec<Requirement>,
    /// Matches no object whatever the requirements say.
    nothing: bool,
}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),!h`. Error: 400 with the place.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        parser::parse(text).map(Self::of).map_err(ApiError::bad_request)
    }

    /// From `matchLabels` / `matchExpressions`. An absent (null) selector matches nothing, an empty one everything.
    pub fn from_object(selector: &Value) -> Result<Self, ApiError> {
        if selector.is_null() {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        }
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            let requirement = Requirement::new(key.clone(), Operator::In, vec![value], true);
            requirements.push(requirement.map_err(ApiError::bad_request)?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression).map_err(ApiError::bad_request)?);
        }
        Ok(Self::of(requirements))
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels match; `get` looks a label up.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// Whether an object's labels match.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|key| crate::object::label(object, key))
    }
}

fn expression_requirement(expression: &Value) -> Result<Requirement, String> {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        // Of a node selector only; a label selector's validation refuses them.
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        other => return Err(format!("{other:?} is not a valid label selector operator")),
    };
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values = values.map(|v| v.as_str().unwrap_or_default().to_owned()).collect();
    Requirement::new(text("key").to_owned(), operator, values, false)
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    path: String,
    /// The path in the stored form.
    stored: String,
    value: String,
    equal: bool,
}

/// A parsed field selector (`metadata.name=x,status.phase!=Running`). The default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Parses it; a field that the kind does not index is 400 with Kubernetes' `field label not supported: x`.
    pub fn parse(resource: &Descriptor, text: &str) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            let mut term = parse_term(part).ok_or_else(|| {
                ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            term.stored = stored_path(resource, &term.path)?;
            terms.push(term);
        }
        Ok(Self { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Its terms about metadata, which every version of an object has alike, and the others.
    pub fn split(self) -> (Self, Self) {
        let (metadata, others) = self.terms.into_iter().partition(|term| term.stored.starts_with("metadata."));
        (Self { terms: metadata }, Self { terms: others })
    }

    /// Whether fields match of an object in the version that the selector is written for.
    pub fn matches_served(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| (served_text(object, &term.path) == term.value) == term.equal)
    }

    /// Whether fields match; `get` looks a field up by its dotted path in the stored form, an absent one is `""`.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|term| (get(&term.stored) == term.value) == term.equal)
    }

    /// The value that `path` (of the stored form) must equal, if the selector demands one (`spec.nodeName=n1`).
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.stored == path).map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.path, escape(&term.value))?;
        }
        Ok(())
    }
}

/// A field by its dotted path, as text; `""`: it is absent, or not a single value.
fn served_text(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, name| value.get(name));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

/// Where the field is in the stored form. Error: 400 for one that the kind does not index.
fn stored_path(resource: &Descriptor, path: &str) -> Result<String, ApiError> {
    if path == "metadata.name" || (path == "metadata.namespace" && resource.namespaced()) {
        return Ok(path.to_owned());
    }
    if let Some(field) = resource.selectable.iter().find(|field| field.path == path) {
        return Ok(field.stored.to_string());
    }
    Err(ApiError::bad_request(if resource.selectable.is_empty() {
        format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {path}")
    }))
}

/// Splits at commas that no backslash escapes; empty parts are left out.
fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
    .filter(|part| !part.is_empty())
}

/// Splits at the first `!=`, `==` or `=` and unescapes what follows.
fn parse_term(part: &str) -> Option<Term> {
    let at = part.find(['=', '!'])?;
    let (path, rest) = part.split_at(at);
    let (equal, value) = match rest.strip_prefix("!=") {
        Some(value) => (false, value),
        None => (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?),
    };
    Some(Term { path: path.to_owned(), stored: String::new(), value: unescape(value)?, equal })
}

/// `\\`, `\,` and `\=` are the only escapes; a bare `,` or `=` has no place in a value.
fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                escaped @ ('\\' | ',' | '=') => out.push(escaped),
                _ => return None,
            },
            ',' | '=' => return None,
            other => out.push(other),
        }
    }
    Some(out)
}

/// A value as a field selector writes it.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
