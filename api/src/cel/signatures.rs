//! The functions that expressions may call: their names, types and cost, as one table.
//!
//! A line is `name style arguments result cost`. Style `m` is called on its first argument, `g` is global (its name may
//! have a namespace). Cost: `1`; `t`, by the bytes of the first argument; `u`, by those twice; `a`, by those of the second;
//! `s`, by those of both; `p`, by their product; `l`, by the elements of the first; `w`, by what is in them; `q`, by their
//! square; `x`, by the product of the first two's; `r`, a regular expression on a text; `f`, a named format's; `c`, a question
//! to the authorizer. What is estimated from it is what Kubernetes estimates, so that it takes the same rules.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::types::{Decl, Type};

const TABLE: &str = include_str!("functions.tsv");

/// How a call is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    One,
    Text,
    TextTwice,
    SecondText,
    Texts,
    TextProduct,
    List,
    Within,
    Square,
    Product,
    Regex,
    Format,
    Check,
}

/// One signature of a function.
#[derive(Clone, Debug)]
pub struct Signature {
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    pub cost: Cost,
}

static SIGNATURES: LazyLock<HashMap<&'static str, Vec<Signature>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Signature>> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let (name, style, args, result, cost) = (next(), next(), next(), next(), next());
        let args = args.split(';').filter(|arg| !arg.is_empty()).map(ty).collect();
        let signature = Signature { member: style == "m", args, result: ty(result), cost: class(cost) };
        all.entry(name).or_default().push(signature);
    }
    all
});

/// The signatures of a function; none if there is no such function.
pub fn of(name: &str) -> &'static [Signature] {
    SIGNATURES.get(name).map(Vec::as_slice).unwrap_or_default()
}

fn class(text: &str) -> Cost {
    match text {
        "t" => Cost::Text,
        "u" => Cost::TextTwice,
        "a" => Cost::SecondText,
        "s" => Cost::Texts,
        "p" => Cost::TextProduct,
        "l" => Cost::List,
        "w" => Cost::Within,
        "q" => Cost::Square,
        "f" => Cost::Format,
        "x" => Cost::Product,
        "r" => Cost::Regex,
        "c" => Cost::Check,
        _ => Cost::One,
    }
}

fn ty(text: &str) -> Type {
    let inner = |prefix: &str| text.strip_prefix(prefix).and_then(|t| t.strip_suffix('>'));
    if let Some(item) = inner("list<") {
        return Type::list(ty(item));
    }
    if let Some(item) = inner("opt<") {
        return Type::Optional(Arc::new(Decl::from(ty(item))));
    }
    if let Some((key, value)) = inner("map<").and_then(|t| t.split_once(',')) {
        return Type::map(ty(key), ty(value));
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "null" => Type::Null,
        "type" => Type::Type,
        "A" => Type::Param('A'),
        "B" => Type::Param('B'),
        "quantity" => Type::Opaque("kubernetes.Quantity"),
        "url" => Type::Opaque("kubernetes.URL"),
        "ip" => Type::Opaque("net.IP"),
        "cidr" => Type::Opaque("net.CIDR"),
        "semver" => Type::Opaque("kubernetes.Semver"),
        "format" => Type::Opaque("kubernetes.NamedFormat"),
        "authorizer" => Type::Opaque("kubernetes.authorization.Authorizer"),
        "pathcheck" => Type::Opaque("kubernetes.authorization.PathCheck"),
        "groupcheck" => Type::Opaque("kubernetes.authorization.GroupCheck"),
        "resourcecheck" => Type::Opaque("kubernetes.authorization.ResourceCheck"),
        "decision" => Type::Opaque("kubernetes.authorization.Decision"),
        _ => Type::Dyn,
    }
}

impl Cost {
    /// The cost of a call on arguments of these sizes; `item` is that of an element of the first.
    pub fn of(self, sizes: &[u64], item: u64) -> u64 {
        let size = |index: usize| sizes.get(index).copied().unwrap_or_default();
        let (first, second) = (size(0), size(1));
        let cost = match self {
            Self::One => 1,
            Self::Text => text(first),
            Self::TextTwice => text(first.saturating_mul(2)),
            Self::SecondText => text(second),
            Self::Texts => text(first.saturating_add(second)),
            Self::TextProduct => text(first).saturating_mul(text(second)),
            Self::List => first,
            Self::Within => first.saturating_mul(item),
            Self::Square => first.saturating_mul(first).saturating_mul(2),
            Self::Product => first.saturating_mul(second),
            Self::Regex => regex(first, second),
            Self::Format => regex(second, FORMAT),
            Self::Check => 350_000,
        };
        cost.max(1)
    }
}

/// Bytes of the expression that a named format is, at most.
const FORMAT: u64 = 128;

fn regex(bytes: u64, expression: u64) -> u64 {
    text(bytes.saturating_add(1)).saturating_mul(expression.div_ceil(4).max(1))
}

/// A tenth of the bytes, rounded up.
pub fn text(bytes: u64) -> u64 {
    bytes.div_ceil(10)
}
