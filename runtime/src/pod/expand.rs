//! `$(NAME)` in environment values, commands and arguments, as Kubernetes expands it: `$$` is a dollar sign, and a
//! reference to a variable that does not exist stays as it was written.

/// Expands `text` with `lookup`.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            if let Some(value) = lookup(name) {
                out.push_str(&value);
            } else {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_vars(text: &str) -> String {
        expand(text, |name| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "REF" => Some("$(A)".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn references_are_replaced_once_and_unknown_ones_stay() {
        for (text, expected) in [
            ("$(A)", "one"),
            ("x$(A)y$(A)", "xoneyone"),
            ("$(EMPTY)", ""),
            ("$(REF)", "$(A)"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$$$$(A)", "$$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$(A$(A))", "$(A$(A))"),
            ("ü$(A)ü", "üoneü"),
        ] {
            assert_eq!(with_vars(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_sign_is_unchanged(text in "[^$]*") {
            prop_assert_eq!(with_vars(&text), text);
        }

        #[test]
        fn any_text_is_expanded_without_failing(text in "[$()A-C]*") {
            with_vars(&text);
        }
    }
}
