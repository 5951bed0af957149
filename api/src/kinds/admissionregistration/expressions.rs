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

    /// Of a policy with this spec. Its variables have the types of their expressions, each of which sees those before it.
    pub(super) fn policy(spec: &Value) -> Self {
        let outer = admission::declarations(&[], some(spec, "/paramKind").is_some());
        let mut inner = outer.clone();
        for variable in list(spec, "/variables") {
            // What is wrong with it is told where variables are judged.
            let compiled = Program::compile(text(variable, "/expression"), &inner);
            let decl = compiled.map_or_else(|_| Type::Dyn.into(), |program| program.decl().clone());
            inner.push((admission::variable(text(variable, "/name")), decl));
        }
        Self { outer, inner }
    }

    pub(super) fn condition(&self, source: &str, path: &Path, errors: &mut ErrorList) {
        check(source, &self.outer, Wanted::Bool, path, errors);
    }

    pub(super) fn expression(&self, source: &str, wanted: Wanted, path: &Path, errors: &mut ErrorList) {
        check(source, &self.inner, wanted, path, errors);
    }
}

/// Judges a policy's variables: each sees those before it.
pub(super) fn variables(spec: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    for (index, variable) in list(spec, "/variables").iter().enumerate() {
        let known = scope.inner.get(..scope.outer.len() + index).unwrap_or_default();
        let path = path.child("variables").index(index).child("expression");
        check(text(variable, "/expression"), known, Wanted::Anything, &path, errors);
    }
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
    fn a_variable_has_the_type_of_its_expression() {
        let spec = json!({"variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "odd", "expression": "variables.replicas % 2 == 1"},
            {"name": "why", "expression": "variables.odd ? 'odd' : 'even'"},
        ]});
        let scope = Scope::policy(&spec);
        let judge = |source: &str, wanted: Wanted| complaints(|e| scope.expression(source, wanted, &Path::new("x"), e));
        assert!(judge("variables.odd", Wanted::Bool).is_empty());
        assert!(judge("variables.why", Wanted::Text).is_empty());
        assert_eq!(judge("variables.why", Wanted::Bool).len(), 1);
        assert_eq!(judge("variables.replicas", Wanted::Bool).len(), 1, "whatever it is is no bool");
        assert!(judge("variables.why > 1", Wanted::Bool)[0].contains("no matching overload"));
    }

    #[test]
    fn an_expression_compiles_to_what_is_wanted_of_it() {
        let spec = json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]});
        let told = complaints(|errors| variables(&spec, &Scope::policy(&spec), &Path::new("spec"), errors));
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
