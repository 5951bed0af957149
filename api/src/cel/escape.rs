//! Names of fields that are no identifiers of CEL, or are its words: `foo-bar` is written `foo__dash__bar`, `namespace`
//! is `__namespace__`.

const WORDS: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];
const SYMBOLS: [(&str, char); 4] = [("__dot__", '.'), ("__dash__", '-'), ("__slash__", '/'), ("__underscores__", '_')];

/// The identifier of a field; `None` if it has none.
pub fn escape(name: &str) -> Option<String> {
    if WORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c)) {
        return None;
    }
    let text = name.replace("__", "__underscores__");
    Some(text.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

/// The field of an identifier; `None` if no field has it.
pub fn unescape(name: &str) -> Option<String> {
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && WORDS.contains(&word)
    {
        return Some(word.to_owned());
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("__") {
        // A single underscore may stand before an escape.
        let (before, from) = match rest.split_at(at) {
            (_, from) if SYMBOLS.iter().all(|(symbol, _)| !from.starts_with(symbol)) => rest.split_at(at + 1),
            split => split,
        };
        out.push_str(before);
        let (symbol, c) = SYMBOLS.iter().find(|(symbol, _)| from.starts_with(symbol))?;
        if *c == '_' {
            out.push('_');
        }
        out.push(*c);
        rest = from.get(symbol.len()..)?;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_and_symbols_are_written_as_kubernetes_does() {
        assert_eq!(escape("namespace").unwrap(), "__namespace__");
        assert_eq!(escape("x-y.z").unwrap(), "x__dash__y__dot__z");
        assert_eq!(escape("a__b").unwrap(), "a__underscores__b");
        assert_eq!(escape("1a"), None);
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_found_again(name in "[a-z_][a-z_./-]{0,12}") {
            if let Some(escaped) = escape(&name) {
                prop_assert_eq!(unescape(&escaped), Some(name));
            }
        }
    }
}
