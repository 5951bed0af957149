//! PEM (RFC 7468) as far as an API server looks into it: the labels of the blocks, and whether each holds one DER sequence.
//! What is in it is the signer's to judge.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The blocks of a text: label and bytes. `None` if a block does not end, or is not base64.
pub(super) fn blocks(text: &str) -> Option<Vec<(&str, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----")?;
        let (body, after) = after.split_once(&format!("-----END {label}-----"))?;
        found.push((label, decode(body)?));
        rest = after;
    }
    Some(found)
}

/// Headers (`name: value`, up to an empty line) are skipped, as Go does.
fn decode(body: &str) -> Option<Vec<u8>> {
    let packed: String = body.lines().filter(|l| !l.contains(": ")).flat_map(|l| l.split_whitespace()).collect();
    STANDARD.decode(packed).ok()
}

/// Whether these bytes are one DER sequence and nothing after it.
pub(super) fn is_sequence(der: &[u8]) -> bool {
    let Some((&[0x30, first], rest)) = der.split_first_chunk::<2>() else { return false };
    if first < 0x80 {
        return rest.len() == usize::from(first);
    }
    let count = usize::from(first & 0x7f);
    match rest.split_at_checked(count) {
        Some((length, rest)) if (1..=4).contains(&count) => {
            length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)) == rest.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_labels() {
        let text =
            "junk\n-----BEGIN A-----\nMAA=\n-----END A-----\n-----BEGIN B C-----\nMAMC\nAQE=\n-----END B C-----\n";
        let found = blocks(text).unwrap();
        assert_eq!(found, [("A", vec![0x30, 0]), ("B C", vec![0x30, 3, 2, 1, 1])]);
        assert!(found.iter().all(|(_, der)| is_sequence(der)));
        assert_eq!(blocks("no block"), Some(vec![]));
        assert_eq!(blocks("-----BEGIN A-----\nMAA="), None);
        assert_eq!(blocks("-----BEGIN A-----\n???\n-----END A-----"), None);
    }

    #[test]
    fn a_sequence_is_as_long_as_it_says() {
        let long = [&[0x30, 0x82, 0x01, 0x00][..], &[0; 256]].concat();
        assert!(is_sequence(&long));
        assert!(!is_sequence(&long[..200]) && !is_sequence(&[]) && !is_sequence(&[0x30]) && !is_sequence(&[0x31, 0]));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(-----BEGIN [A-Z ]{0,3}-----|-----END [A-Z ]{0,3}-----|[A-Za-z0-9+/=: \n]{0,9}){0,9}") {
            for (_, der) in blocks(&text).unwrap_or_default() {
                is_sequence(&der);
            }
        }
    }
}
