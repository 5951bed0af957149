//! Prints the server's tables: the server says the columns and the cells, this only aligns them.

use serde_json::Value;

/// Spaces between columns.
const GAP: usize = 3;

/// A table's visible columns and rows as text.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// How wide the columns are at least.
    least: Vec<usize>,
}

impl Table {
    /// From a `meta.k8s.io/v1` Table. `wide` shows columns of lower priority, `namespaced` puts each object's namespace first.
    pub fn from_server(table: &Value, wide: bool, namespaced: bool) -> Self {
        let definitions = list(table, "columnDefinitions");
        let shown: Vec<usize> = definitions
            .iter()
            .enumerate()
            .filter(|(_, column)| wide || column.get("priority").and_then(Value::as_i64).unwrap_or(0) == 0)
            .map(|(index, _)| index)
            .collect();
        let pick =
            |cells: &[Value]| shown.iter().map(|i| cells.get(*i).map_or_else(String::new, cell)).collect::<Vec<_>>();
        let names: Vec<Value> = definitions.iter().map(|c| c.get("name").cloned().unwrap_or_default()).collect();
        let mut header: Vec<String> = pick(&names).into_iter().map(|name| name.to_uppercase()).collect();
        if namespaced {
            header.insert(0, "NAMESPACE".to_owned());
        }
        let rows = list(table, "rows").iter().map(|row| {
            let mut cells = pick(list(row, "cells"));
            if namespaced {
                cells.insert(0, row.pointer("/object/metadata/namespace").map_or_else(String::new, cell));
            }
            cells
        });
        Self { header, rows: rows.collect(), least: Vec::new() }
    }

    pub fn new(header: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { header: header.iter().map(|&h| h.to_owned()).collect(), rows, least: Vec::new() }
    }

    /// Adds the rows of a table with the same columns.
    pub fn append(&mut self, other: Self) {
        self.header = other.header;
        self.rows.extend(other.rows);
    }

    /// From a later table of a watch, whose columns are those of the first: rows that stand under it.
    pub fn later(&self, first: &Value, mut table: Value, wide: bool, namespaced: bool) -> Self {
        if list(&table, "columnDefinitions").is_empty()
            && let (Some(columns), Some(fields)) = (first.get("columnDefinitions"), table.as_object_mut())
        {
            fields.insert("columnDefinitions".to_owned(), columns.clone());
        }
        Self { least: self.widths(), ..Self::from_server(&table, wide, namespaced) }
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |i: usize| {
            let cells = std::iter::once(&self.header).chain(&self.rows).filter_map(|row| row.get(i));
            cells.map(|cell| cell.chars().count()).chain(self.least.get(i).copied()).max().unwrap_or(0)
        };
        (0..self.header.len()).map(widest).collect()
    }

    /// Changes the cells of a column.
    pub fn map_column(&mut self, title: &str, change: impl Fn(&str) -> String) {
        let Some(column) = self.header.iter().position(|name| name == title) else { return };
        for cell in self.rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            *cell = change(cell);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, without the header if `header` is false.
    pub fn lines(&self, header: bool) -> Vec<String> {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<pad$}", pad = width + GAP));
            padded.collect::<String>().trim_end().to_owned()
        };
        std::iter::once(&self.header).chain(&self.rows).skip(usize::from(!header)).map(line).collect()
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', " "),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn later_tables_of_a_watch_stand_in_the_columns_of_the_first() {
        let first = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "IP", "priority": 1}, {"name": "Ready"}],
            "rows": [{"cells": ["long-name", "x", 1]}],
        });
        let later = json!({"columnDefinitions": null, "rows": [{"cells": ["a", "y", 0]}]});
        let table = Table::from_server(&first, false, false);
        assert_eq!(table.later(&first, later.clone(), false, false).lines(false), ["a           0"]);
        let table = Table::from_server(&first, true, false);
        assert_eq!(table.later(&first, later, true, false).lines(false), ["a           y    0"]);
    }

    #[test]
    fn columns_are_aligned_and_wide_ones_hidden() {
        let table = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["long-name", 1, "x"], "object": {"metadata": {"namespace": "ns"}}}, {"cells": ["a", null, "y"]}],
        });
        assert_eq!(Table::from_server(&table, false, false).lines(true), ["NAME        READY", "long-name   1", "a"]);
        let mut both = Table::default();
        both.append(Table::new(&["NAME", "READY"], vec![vec!["a".into(), "1".into()]]));
        both.append(Table::from_server(&table, false, false));
        assert_eq!(both.lines(true)[..3], ["NAME        READY", "a           1", "long-name   1"]);
        both.map_column("NAME", |name| format!("pod/{name}"));
        assert_eq!(both.lines(false)[0], "pod/a           1");
        assert_eq!(Table::from_server(&table, true, true).lines(false)[0], "ns          long-name   1       x");
    }
}
