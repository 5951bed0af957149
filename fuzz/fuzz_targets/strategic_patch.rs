//! Strategic merge of Pods: a patch applies or is refused; no directive ends up in the object; nothing is nothing.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use wherry_api::kinds::core::pod;
use wherry_api::patch::strategic;
use wherry_api::resource::Descriptor;
use wherry_fuzz::object;

static POD: LazyLock<Descriptor> = LazyLock::new(pod::descriptor);

fn is_directive(key: &str) -> bool {
    let named = ["$setElementOrder/", "$deleteFromPrimitiveList/"];
    matches!(key, "$patch" | "$retainKeys") || named.iter().any(|prefix| key.starts_with(prefix))
}

fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(key, _)| !is_directive(key)).map(|(k, v)| (k, without_directives(v))).collect(),
        ),
        Value::Array(items) => items.into_iter().map(without_directives).collect(),
        other => other,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut u = arbitrary::Unstructured::new(bytes);
    let (Ok(target), Ok(patch)) = (object(&mut u), object(&mut u)) else { return };
    let target = without_directives(target);
    assert_eq!(strategic::apply(&POD, &target, &json!({})).unwrap(), target);
    if let Ok(patched) = strategic::apply(&POD, &target, &patch) {
        assert_eq!(without_directives(patched.clone()), patched, "by {patch}");
    }
});
