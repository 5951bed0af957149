//! Calls that bind variables: comprehensions, and what is done with an optional's value.

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, Expr};

use super::check::{Complaint, complain};

/// A call that binds variables.
#[derive(Debug)]
pub enum Form<'a> {
    /// `range.f(x, …)` or `range.f(i, x, …)`.
    Each {
        vars: Vec<&'a IdedExpr>,
        bodies: Vec<&'a IdedExpr>,
    },
    Optional {
        var: &'a IdedExpr,
        body: &'a IdedExpr,
        flat: bool,
    },
}

impl<'a> Form<'a> {
    pub fn of(call: &'a CallExpr) -> Option<Self> {
        let is_var = |expr: &IdedExpr| matches!(expr.expr, Expr::Ident(_));
        let each = |vars: &[&'a IdedExpr], bodies: &[&'a IdedExpr]| {
            vars.iter().all(|v| is_var(v)).then(|| Self::Each { vars: vars.to_vec(), bodies: bodies.to_vec() })
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("all" | "exists" | "exists_one" | "existsOne" | "filter" | "map" | "sortBy", [x, body]) => {
                each(&[x], &[body])
            }
            ("map", [x, condition, body]) => each(&[x], &[condition, body]),
            (
                "all" | "exists" | "existsOne" | "exists_one" | "transformList" | "transformMap" | "transformMapEntry",
                [i, x, body],
            ) => each(&[i, x], &[body]),
            ("transformList" | "transformMap" | "transformMapEntry", [i, x, condition, body]) => {
                each(&[i, x], &[condition, body])
            }
            (name @ ("optMap" | "optFlatMap"), [var, body]) if is_var(var) => {
                Some(Self::Optional { var, body, flat: name == "optFlatMap" })
            }
            _ => None,
        }
    }
}

pub fn variable(expr: &IdedExpr) -> Result<String, Complaint> {
    match &expr.expr {
        Expr::Ident(name) => Ok(name.clone()),
        _ => Err(complain(expr.id, "argument must be a simple name")),
    }
}
