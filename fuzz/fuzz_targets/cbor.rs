//! CBOR: what is read is written, and read back the same; what is written is deterministic, and of trees of any shape.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use wherry_api::cbor;
use wherry_api::decode::{self, Format};
use wherry_fuzz::value;

fn read(bytes: &[u8]) -> Option<Value> {
    decode::tree(bytes, Format::Cbor).ok().map(|decoded| decoded.object)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(tree) = read(bytes) {
        let written = cbor::encode(&tree);
        assert_eq!(read(&written).unwrap(), tree);
        let tagged = [&cbor::SELF_DESCRIBED[..], &written].concat();
        assert_eq!(read(&tagged).unwrap(), tree);
    }
    if let Ok(tree) = value(&mut arbitrary::Unstructured::new(bytes)) {
        let written = cbor::encode(&tree);
        let again = read(&written).unwrap();
        assert_eq!(again, tree);
        assert_eq!(cbor::encode(&again), written);
    }
});
