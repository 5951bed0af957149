//! Bodies of any format, as an object of any kind. What is decoded is written and read back the same; no hook of the kind
//! breaks on it, and defaults are the same the second time.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wherry_api::decode::{self, FieldValidation, Format};
use wherry_api::field::ErrorList;
use wherry_api::kinds;
use wherry_api::resource::Descriptor;

static KINDS: LazyLock<Vec<Descriptor>> = LazyLock::new(kinds::all);

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, format, bytes) = input;
    let kind = &KINDS[usize::from(kind) % KINDS.len()];
    let format = [Format::Json, Format::Yaml, Format::Cbor, Format::Protobuf][usize::from(format) % 4];
    let Ok(decoded) = decode::body(kind, bytes, format, FieldValidation::Warn) else { return };
    let object = decoded.object;
    let written = serde_json::to_vec(&object).unwrap();
    let read = decode::body(kind, &written, Format::Json, FieldValidation::Ignore).unwrap().object;
    assert_eq!(read, object, "what was read is read again");

    let mut once = object;
    kind.strategy.prepare_create(&mut once);
    kind.strategy.default(&mut once);
    let mut twice = once.clone();
    kind.strategy.default(&mut twice);
    assert_eq!(twice, once, "{}: defaults of defaults", kind.kind);
    kind.strategy.validate(&once, &mut ErrorList::default());
    kind.strategy.warnings(&once);
});
