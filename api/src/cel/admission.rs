//! What expressions in admission may name: webhooks' match conditions, and policies.

use super::{Decl, Type};

/// The variables of every expression; an expression that names another does not compile.
const VARIABLES: [&str; 6] =
    ["object", "oldObject", "request", "namespaceObject", "authorizer", "authorizer.requestResource"];
const PARAMS: &str = "params";

/// The variables of an expression in a policy that has (or has not) parameters, and these variables of its own, whatever they
/// are.
pub fn declarations(own: &[String], params: bool) -> Vec<(String, Decl)> {
    let own = own.iter().map(|name| variable(name));
    let names = VARIABLES.into_iter().chain(params.then_some(PARAMS)).map(str::to_owned).chain(own);
    names.map(|name| (name, Type::Dyn.into())).collect()
}

/// What a policy's own variable is called in its expressions.
pub fn variable(name: &str) -> String {
    format!("variables.{name}")
}
