//! The Common Expression Language as Kubernetes has it: for rules in custom resources' schemas, for admission policies and
//! for match conditions of webhooks.
//!
//! The crate `cel` parses; names and types are checked here ([`check`]), and expressions are evaluated here ([`eval`]) on
//! `serde_json` values, because Kubernetes' cost bound needs a count of every step.
//!
//! Bounds, all in Kubernetes' unit (about one step, one element of a list, or ten bytes of a text):
//! - an expression is at most [`MAX_SOURCE`] bytes long, nests at most [`MAX_DEPTH`] levels, and means at most [`MAX_LEVELS`];
//! - before it is stored, a rule whose estimate exceeds [`ESTIMATE_LIMIT`] is refused ([`rules`]);
//! - one evaluation is stopped at [`PER_CALL`], all of one object's at [`PER_OBJECT`] ([`Budget`]);
//! - a text that an expression makes has at most [`MAX_TEXT`] bytes;
//! - the values that one evaluation makes, whether or not it still uses them, take at most [`MADE_PER_CALL`] bytes, those of
//!   all of one object's [`MADE_PER_OBJECT`]: steps are cheap that make a lot.

use std::fmt;
use std::sync::Arc;

use ::cel::IdedExpr;
use ::cel::common::ast::{EntryExpr, Expr, LiteralValue};

pub mod admission;
pub mod authorizer;
pub mod check;
mod declare;
pub mod duration;
pub mod escape;
pub mod eval;
mod forms;
mod functions;
pub mod net;
pub mod rules;
mod semver;
mod signatures;
mod sizes;
pub mod text;
pub mod types;
pub mod url;
pub mod value;

pub use declare::of_resource;
pub use eval::Lookup;
pub use types::{Decl, Type};
pub use value::Val;

/// Bytes of an expression.
pub const MAX_SOURCE: usize = 64 * 1024;
/// Nesting of an expression.
pub const MAX_DEPTH: u16 = 64;
/// Levels of what an expression means: `a.b.c` is three.
pub const MAX_LEVELS: usize = 256;
/// Bytes of stack for reading an expression of that nesting; what is not used costs nothing.
const STACK: usize = 64 << 20;
/// Bytes of a text that an expression makes.
pub const MAX_TEXT: usize = 4 * 1024 * 1024;
/// The estimate above which a rule is refused.
pub const ESTIMATE_LIMIT: u64 = 10_000_000;
/// The estimate of all rules of a schema above which it is refused.
pub const SCHEMA_ESTIMATE_LIMIT: u64 = 100_000_000;
/// The cost of one evaluation.
pub const PER_CALL: u64 = 1_000_000;
/// The cost of all evaluations for one object (or one policy's binding).
pub const PER_OBJECT: u64 = 10_000_000;
/// Bytes of the values that one evaluation makes.
pub const MADE_PER_CALL: usize = 64 << 20;
/// The same of all evaluations for one object: variables of policies outlive an evaluation.
pub const MADE_PER_OBJECT: usize = 256 << 20;
/// The cost of all match conditions of one webhook or policy.
pub const MATCH_CONDITIONS: u64 = 2_500_000;

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compilation failed: {0}")]
pub struct CompileError(pub String);

/// Why an evaluation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
    #[error("no such overload")]
    Overload,
    /// A key or field that is not there; what optional selection asks for.
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Other(String),
}

impl EvalError {
    fn other(what: impl Into<String>) -> Self {
        Self::Other(what.into())
    }

    fn overload() -> Self {
        Self::Overload
    }
}

/// What evaluations may still cost.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    all: u64,
    call: u64,
    room_of_all: usize,
    room: usize,
}

impl Budget {
    /// For several evaluations that may cost this much together.
    pub fn new(all: u64) -> Self {
        let mut budget = Self { all, call: 0, room_of_all: MADE_PER_OBJECT, room: 0 };
        budget.begin();
        budget
    }

    /// An evaluation begins.
    fn begin(&mut self) {
        self.call = PER_CALL.min(self.all);
        self.room = MADE_PER_CALL.min(self.room_of_all);
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.all == 0
    }

    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.all = self.all.saturating_sub(cost);
        match self.call.checked_sub(cost) {
            Some(left) if self.all > 0 => {
                self.call = left;
                Ok(())
            }
            _ => {
                self.call = 0;
                Err(EvalError::Cost)
            }
        }
    }

    /// Counts what a value takes that is about to be made.
    pub(crate) fn make(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.room = self.room.checked_sub(bytes).ok_or(EvalError::Cost)?;
        self.room_of_all = self.room_of_all.saturating_sub(bytes);
        Ok(())
    }
}

/// An expression that was parsed and checked. Cheap to clone.
#[derive(Clone)]
pub struct Program {
    source: Arc<str>,
    expr: Arc<IdedExpr>,
    decl: Decl,
    estimate: u64,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.source).finish()
    }
}

impl Program {
    /// Parses and checks an expression that may use these variables (a name may have one dot: `variables.x`).
    pub fn compile(source: &str, vars: &[(String, Decl)]) -> Result<Self, CompileError> {
        if too_deep(source) {
            return Err(CompileError(located("", 0, &format!("expression recursion limit exceeded: {MAX_DEPTH}"))));
        }
        let failed = || CompileError(located(source, 0, "Syntax error: the expression cannot be parsed"));
        // The parser descends through many frames for each level, more than a thread's usual stack holds.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("cel".into()).stack_size(STACK);
            let compiling = thread.spawn_scoped(scope, || Self::compile_here(source, vars));
            compiling.ok().and_then(|compiling| compiling.join().ok()).unwrap_or_else(|| Err(failed()))
        })
    }

    fn compile_here(source: &str, vars: &[(String, Decl)]) -> Result<Self, CompileError> {
        let (expr, positions) = parse(source)?;
        if levels(&expr) > MAX_LEVELS {
            return Err(CompileError(located("", 0, &format!("expression recursion limit exceeded: {MAX_LEVELS}"))));
        }
        let known = check::Checker::new(vars.to_vec()).check(&expr).map_err(|complaint| {
            let at = positions.offset_for(complaint.node).map_or(0, |(start, _)| start);
            CompileError(located(source, at as usize, &complaint.message))
        })?;
        Ok(Self { source: source.into(), expr: Arc::new(expr), decl: known.decl, estimate: known.cost })
    }

    /// Like [`Program::compile`], for an expression that must be of this type.
    pub fn compile_to(source: &str, vars: &[(String, Decl)], wanted: &Type) -> Result<Self, CompileError> {
        let program = Self::compile(source, vars)?;
        if program.decl.ty.fits(wanted) {
            return Ok(program);
        }
        Err(CompileError(format!("must evaluate to {wanted}")))
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of its value.
    pub fn ty(&self) -> &Type {
        &self.decl.ty
    }

    pub fn decl(&self) -> &Decl {
        &self.decl
    }

    /// The most that an evaluation may cost, by what is known of its variables.
    pub fn estimate(&self) -> u64 {
        self.estimate
    }

    /// Whether the expression speaks of a variable.
    pub fn uses(&self, name: &str) -> bool {
        any(&self.expr, &|expr| is_ident(expr, name))
    }

    /// Whether the expression reads a field of a variable, `variable.field` or `variable.?field`.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        any(&self.expr, &|expr| selects(expr, variable, field))
    }

    /// Evaluates with the variables that `lookup` gives.
    pub fn eval<'a>(&self, lookup: &Lookup<'_, 'a>, budget: &mut Budget) -> Result<Val<'a>, EvalError> {
        budget.begin();
        eval::Evaluator::new(lookup, budget).eval(&self.expr)
    }

    /// Evaluates within another evaluation, on what that one has left.
    pub fn eval_within<'a>(&self, lookup: &Lookup<'_, 'a>, budget: &mut Budget) -> Result<Val<'a>, EvalError> {
        eval::Evaluator::new(lookup, budget).eval(&self.expr)
    }
}

fn parse(source: &str) -> Result<(IdedExpr, ::cel::common::ast::SourceInfo), CompileError> {
    if source.len() > MAX_SOURCE {
        return Err(CompileError(located("", 0, &format!("expression code point size exceeds limit: {MAX_SOURCE}"))));
    }
    let parser = ::cel::Env::default().parser().enable_ident_escape_syntax(true).max_recursion_depth(MAX_DEPTH * 4);
    // The parser is generated code of others: what it does not expect must not end the request.
    let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parser.parse_with_source_info(source)));
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(errors)) => {
            let lines: Vec<String> =
                errors.errors.iter().map(|e| positioned(source, e.pos.0, e.pos.1, &e.msg)).collect();
            Err(CompileError(lines.join("\n")))
        }
        Err(_) => Err(CompileError(located(source, 0, "Syntax error: the expression cannot be parsed"))),
    }
}

/// Counts brackets before the parser recurses into them, and operators that nest to the right.
fn too_deep(source: &str) -> bool {
    let (mut depth, mut most, mut ternaries) = (0_usize, 0_usize, 0_usize);
    for c in source.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => ternaries += 1,
            _ => {}
        }
        most = most.max(depth);
    }
    most > usize::from(MAX_DEPTH) || ternaries > 4 * usize::from(MAX_DEPTH)
}

/// A message with the line it is about, as Kubernetes prints it.
fn located(source: &str, offset: usize, message: &str) -> String {
    let before: String = source.chars().take(offset).collect();
    let line = isize::try_from(before.matches('\n').count() + 1).unwrap_or(1);
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count());
    positioned(source, line, isize::try_from(column + 1).unwrap_or(1), message)
}

fn positioned(source: &str, line: isize, column: isize, message: &str) -> String {
    let text = usize::try_from(line - 1).ok().and_then(|l| source.lines().nth(l)).unwrap_or_default();
    let dots = ".".repeat(usize::try_from(column - 1).unwrap_or_default().min(text.chars().count()));
    format!("ERROR: <input>:{line}:{column}: {message}\n | {text}\n | {dots}^")
}

/// Whether a part of an expression is such a one.
fn any(expr: &IdedExpr, found: &dyn Fn(&Expr) -> bool) -> bool {
    found(&expr.expr) || parts(expr).into_iter().any(|part| any(part, found))
}

fn levels(expr: &IdedExpr) -> usize {
    1 + parts(expr).into_iter().map(levels).max().unwrap_or_default()
}

/// What an expression directly consists of.
fn parts(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::Select(select) => vec![&*select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| parts_of_entry(&entry.expr)).collect(),
        Expr::Struct(message) => message.entries.iter().flat_map(|entry| parts_of_entry(&entry.expr)).collect(),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Comprehension(_) | Expr::Unspecified => Vec::new(),
    }
}

fn parts_of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

fn is_ident(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Ident(ident) if ident.trim_start_matches('.') == name)
}

fn selects(expr: &Expr, variable: &str, field: &str) -> bool {
    match expr {
        Expr::Select(select) => select.field == field && is_ident(&select.operand.expr, variable),
        Expr::Call(call) => match call.args.as_slice() {
            [of, part] if call.func_name == "_?._" => {
                matches!(&part.expr, Expr::Literal(LiteralValue::String(name)) if name.inner() == field)
                    && is_ident(&of.expr, variable)
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
