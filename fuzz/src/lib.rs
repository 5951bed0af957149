//! Trees made of a fuzzer's bytes: objects that look like Kubernetes' own, so that mutations reach what lies behind the
//! first check.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value};

/// Levels of a tree.
const DEPTH: usize = 6;
/// Fields of a map, items of a list.
const WIDTH: usize = 5;

/// Names that mean something to some parser.
const NAMES: [&str; 30] = [
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "ownerReferences",
    "uid",
    "finalizers",
    "spec",
    "containers",
    "image",
    "ports",
    "containerPort",
    "protocol",
    "env",
    "value",
    "volumes",
    "emptyDir",
    "hostPath",
    "tolerations",
    "key",
    "operator",
    "status",
    "conditions",
    "type",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "args",
];

const TEXTS: [&str; 10] = ["", "a", "b", "delete", "replace", "merge", "Always", "1", "100m", "TCP"];

/// A tree.
pub fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    nested(u, DEPTH)
}

/// A tree that is an object.
pub fn object(u: &mut Unstructured<'_>) -> Result<Value> {
    map(u, DEPTH)
}

fn nested(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 4 } else { 7 })? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.arbitrary::<i64>()?.into(),
        3 => (*u.choose(&TEXTS)?).into(),
        4 => u.arbitrary::<&str>()?.into(),
        5 => (0..u.int_in_range(0..=WIDTH)?).map(|_| nested(u, depth - 1)).collect::<Result<Vec<_>>>()?.into(),
        _ => map(u, depth - 1)?,
    })
}

fn map(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let mut map = Map::new();
    for _ in 0..u.int_in_range(0..=WIDTH)? {
        let name = if u.ratio(7, 8)? { (*u.choose(&NAMES)?).to_owned() } else { u.arbitrary::<String>()? };
        map.insert(name, nested(u, depth)?);
    }
    Ok(Value::Object(map))
}

/// Levels of maps and lists in a tree.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
