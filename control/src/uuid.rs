//! Names that nobody else has: of objects, of requests, of tokens.

/// A random (version 4) UUID.
pub(crate) fn random() -> String {
    let bits: u128 = rand::random();
    let bits = (bits & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default()).join("-")
}

#[cfg(test)]
mod tests {
    use super::random;

    #[test]
    fn a_uid_is_a_version_4_uuid() {
        let uid = random();
        let parts: [&str; 5] = uid.split('-').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(parts.map(str::len), [8, 4, 4, 4, 12]);
        let [_, _, version, variant, _] = parts;
        assert!(version.starts_with('4'));
        assert!(variant.starts_with(['8', '9', 'a', 'b']));
        assert_ne!(uid, random());
    }
}
