//! How large values are at most, and what it takes to go through them, before they are there.

use ::cel::IdedExpr;
use ::cel::common::ast::{Expr, LiteralValue};

use super::check::Known;
use super::signatures::{self, Cost, Signature};
use super::types::{MAX_REQUEST, Type};

/// What comparing an element of a list costs.
pub(super) fn element(list: &Known) -> u64 {
    match &list.decl.ty {
        Type::List(list) if matches!(list.item.ty, Type::String | Type::Bytes) => {
            signatures::text(list.item.max).saturating_add(1)
        }
        _ => 1,
    }
}

/// A literal number as a size; of what is not known before, the largest.
pub(super) fn literal_size(expr: &IdedExpr) -> u64 {
    match &expr.expr {
        Expr::Literal(LiteralValue::Int(i)) => u64::try_from(*i.inner()).unwrap_or_default(),
        _ => u64::MAX,
    }
}

/// The most that a result holds.
pub(super) fn result_size(name: &str, signature: &Signature, ty: &Type, sizes: &[u64]) -> u64 {
    let first = sizes.first().copied().unwrap_or(1);
    let sum = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
    match (name, ty) {
        (_, Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::Duration) => 1,
        ("_+_" | "format", _) => sum,
        ("replace", _) => first.saturating_mul(sizes.get(2).copied().unwrap_or(1).max(1)),
        ("join", _) => MAX_REQUEST,
        _ if signature.cost == Cost::One => first.max(1),
        _ => first,
    }
}
