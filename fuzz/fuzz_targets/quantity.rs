//! Quantities: what is read prints itself and is read back as the same; order and sums agree with those of what is printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_api::quantity::Quantity;

fuzz_target!(|input: (&str, &str)| {
    let Ok(a) = input.0.parse::<Quantity>() else { return };
    let printed = a.to_string();
    let again: Quantity = printed.parse().unwrap();
    assert_eq!((again, again.to_string()), (a, printed));
    assert_eq!(a - a, Quantity::ZERO);
    let Ok(b) = input.1.parse::<Quantity>() else { return };
    assert_eq!(a + b, b + a);
    assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    assert_eq!(a < b, !(b <= a));
});
