//! Expressions of webhooks and policies, compiled before they are stored: one that cannot be evaluated would refuse, or let
//! through, whatever it is asked about.

use serde_json::{Value, json};

use crate::cel::{Decl, Program, Type, admission};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, some, text};

/// What an expression's value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Anything,
    Bool,
    Text,
    TextOrNull,
}

impl Wanted {
    /// What is wrong with a value of this type.
    fn complaint(self, ty: &Type) -> Option<&'static str> {
        match (self, ty) {
            (Self::Anything, _)
            | (Self::Bool, Type::Bool)
            | (Self::Text | Self::TextOrNull, Type::String)
            | (Self::TextOrNull, Type::Null) => None,
            (Self::Bool, _) => Some("must evaluate to bool"),
            (Self::Text, _) => Some("must evaluate to string"),
            (Self::TextOrNull, _) => Some("must evaluate to one of [string null_type]"),
        }
    }
}

/// What the expressions of one webhook or policy may name.
#[derive(Debug)]
pub(super) struct Scope {
    /// Without the policy's own variables, as match conditions see it.
    outer: Vec<(String, Decl)>,
    inner: Vec<(String, Decl)>,
}

impl Scope {
    pub(super) fn webhook() -> Self {
        let outer = admission::declarations(&[], false);
        Self { inner: outer.clone(), outer }
    }

    /// Of a policy with this spec.
    pub(super) fn policy(spec: &Value) -> Self {
        let params = some(spec, "/paramKind").is_some();
        Self {
            outer: admission::declarations(&[], params),
            inner: admission::declarations(&names(spec, usize::MAX), params),
        }
    }

    pub(super) fn condition(&self, source: &str, path: &Path, errors: &mut ErrorList) {
        check(source, &self.outer, Wanted::Bool, path, errors);
    }

    pub(super) fn expression(&self, source: &str, wanted: Wanted, path: &Path, errors: &mut ErrorList) {
        check(source, &self.inner, wanted, path, errors);
    }
}

/// Judges a policy's variables: each sees those before it.
pub(super) fn variables(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let params = some(spec, "/paramKind").is_some();
    for (index, variable) in list(spec, "/variables").iter().enumerate() {
        let known = admission::declarations(&names(spec, index), params);
        let path = path.child("variables").index(index).child("expression");
        check(text(variable, "/expression"), &known, Wanted::Anything, &path, errors);
    }
}

/// The names of a policy's first variables.
fn names(spec: &Value, most: usize) -> Vec<String> {
    list(spec, "/variables").iter().take(most).map(|variable| text(variable, "/name").to_owned()).collect()
}

/// That there is no expression is told elsewhere.
fn check(source: &str, known: &[(String, Decl)], wanted: Wanted, path: &Path, errors: &mut ErrorList) {
    if source.trim().is_empty() {
        return;
    }
    match Program::compile(source, known) {
        Err(error) => errors.invalid(path, &json!(source), &error.to_string()),
        Ok(program) => {
            if let Some(why) = wanted.complaint(program.ty()) {
                errors.invalid(path, &json!(source), why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn an_expression_compiles_to_what_is_wanted_of_it() {
        let spec = json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]});
        let told = complaints(|errors| variables(&spec, &Path::new("spec"), errors));
        assert_eq!(told.len(), 1, "a variable does not see those after it: {told:?}");
        assert!(
            told[0].starts_with("spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ")
        );
        let scope = Scope::policy(&spec);
        let judge = |source: &str, wanted: Wanted| complaints(|e| scope.expression(source, wanted, &Path::new("x"), e));
        assert!(judge("object.spec.replicas > variables.b", Wanted::Bool).is_empty());
        assert_eq!(
            judge("object.spec.ready", Wanted::Bool),
            ["x: Invalid value: \"object.spec.ready\": must evaluate to bool"]
        );
        assert_eq!(judge("1", Wanted::Text).len(), 1);
        assert!(judge("has(object.x) ? 'x' : null", Wanted::TextOrNull).is_empty());
        assert!(judge("params.x == 1", Wanted::Bool)[0].contains("undeclared reference to 'params'"));
        assert!(complaints(|e| scope.condition("variables.b == 1", &Path::new("x"), e)).len() == 1);
    }
}
