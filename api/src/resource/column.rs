//! Columns of the tables that the server prints.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

/// One column of a server-printed table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: &'static str,
    /// OpenAPI format: `name` for the object's name, else empty.
    pub format: &'static str,
    pub description: Cow<'static, str>,
    /// 0 is always shown; 1 only by `kubectl get -o wide`.
    pub priority: i32,
    pub cell: Cell,
}

/// How a column gets its value.
#[derive(Clone)]
pub enum Cell {
    /// A function of the object and of the time at which the table is made.
    Of(fn(&Value, jiff::Timestamp) -> Value),
    /// A JSONPath as in a CustomResourceDefinition's `additionalPrinterColumns`.
    Path(Cow<'static, str>),
}

impl Column {
    /// A column that is always shown; `kind` is its OpenAPI type.
    pub fn new(name: &'static str, kind: &'static str, cell: fn(&Value, jiff::Timestamp) -> Value) -> Self {
        Self { name: name.into(), kind, format: "", description: "".into(), priority: 0, cell: Cell::Of(cell) }
    }

    /// A column whose value is found by a JSONPath (`.spec.replicas`).
    pub fn path(name: &'static str, kind: &'static str, path: &'static str) -> Self {
        Self { name: name.into(), kind, format: "", description: "".into(), priority: 0, cell: Cell::Path(path.into()) }
    }

    /// Shown by `-o wide` only.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    #[must_use]
    pub fn describe(mut self, description: &'static str) -> Self {
        self.description = description.into();
        self
    }

    #[must_use]
    pub fn format(mut self, format: &'static str) -> Self {
        self.format = format;
        self
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(_) => f.write_str("Of(..)"),
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
        }
    }
}
