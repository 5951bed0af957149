//! The columns of a version's tables: the name, and what `additionalPrinterColumns` say.

use serde_json::Value;

use crate::kinds::cells;
use crate::kinds::tree::{int, list, text};
use crate::resource::{Cell, Column};

/// Types and formats that a column may have.
pub(crate) const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
pub(crate) const FORMATS: [&str; 9] =
    ["binary", "byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// The columns of a version of a definition; without any of its own, the age.
pub(super) fn of(version: &Value) -> Vec<Column> {
    let own = list(version, "/additionalPrinterColumns");
    let rest = own.iter().map(column);
    if own.is_empty() {
        vec![cells::name(), cells::age_date()]
    } else {
        std::iter::once(cells::name()).chain(rest).collect()
    }
}

fn column(spec: &Value) -> Column {
    let known = |all: &[&'static str], name: &str| all.iter().find(|known| **known == name).copied();
    Column {
        name: text(spec, "/name").to_owned().into(),
        kind: known(&TYPES, text(spec, "/type")).unwrap_or("string"),
        format: known(&FORMATS, text(spec, "/format")).unwrap_or_default(),
        description: match text(spec, "/description") {
            "" => format!("Custom resource definition column (in JSONPath format): {}", text(spec, "/jsonPath")).into(),
            description => description.to_owned().into(),
        },
        priority: int(spec, "/priority").and_then(|p| i32::try_from(p).ok()).unwrap_or_default(),
        cell: Cell::Path(text(spec, "/jsonPath").to_owned().into()),
    }
}
