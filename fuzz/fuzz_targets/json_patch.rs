//! RFC 6902: a patch applies or is refused; what comes out is never nested deeper than can be read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use wherry_api::patch::json;
use wherry_fuzz::{depth, object, value};

const OPERATIONS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];
const PATHS: [&str; 8] =
    ["", "/spec", "/spec/containers/0", "/spec/containers/-", "/metadata/labels/a~1b", "/status", "/a", "x"];

fuzz_target!(|bytes: &[u8]| {
    let mut u = arbitrary::Unstructured::new(bytes);
    let Ok(object) = object(&mut u) else { return };
    let mut operations: Vec<Value> = Vec::new();
    while let (Ok(op), Ok(path), Ok(from), Ok(value)) =
        (u.choose(&OPERATIONS), u.choose(&PATHS), u.choose(&PATHS), value(&mut u))
    {
        operations.push(json!({"op": op, "path": path, "from": from, "value": value}));
        if u.is_empty() || operations.len() == 32 {
            break;
        }
    }
    if let Ok(patched) = json::apply(&object, &Value::Array(operations)) {
        assert!(depth(&patched) <= 127);
        let text = patched.to_string();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), patched);
    }
});
