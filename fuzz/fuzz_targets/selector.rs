//! Label and field selectors: what is read prints itself, is read back as the same, and matches the same.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wherry_api::kinds::core::pod;
use wherry_api::resource::Descriptor;
use wherry_api::selector::{FieldSelector, LabelSelector};

static POD: LazyLock<Descriptor> = LazyLock::new(pod::descriptor);

fuzz_target!(|input: (&str, &str)| {
    let (text, label) = input;
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).unwrap();
        assert_eq!(again, selector);
        assert_eq!(again.matches(|_| Some(label)), selector.matches(|_| Some(label)));
        selector.matches(|_| None);
    }
    if let Ok(selector) = FieldSelector::parse(&POD, text) {
        let again = FieldSelector::parse(&POD, &selector.to_string()).unwrap();
        assert_eq!(again, selector);
        assert_eq!(again.matches(|_| label), selector.matches(|_| label));
    }
});
