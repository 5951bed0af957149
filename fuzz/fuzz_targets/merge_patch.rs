//! RFC 7386: a patch applied twice is a patch applied once, and leaves no null where the patch has an object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_api::patch::merge;
use wherry_fuzz::object;

fuzz_target!(|bytes: &[u8]| {
    let mut u = arbitrary::Unstructured::new(bytes);
    let (Ok(target), Ok(patch)) = (object(&mut u), object(&mut u)) else { return };
    let once = merge::apply(&target, &patch);
    assert_eq!(merge::apply(&once, &patch), once);
    for (key, value) in patch.as_object().unwrap() {
        assert_eq!(once.get(key).is_none(), value.is_null(), "{key}");
    }
});
