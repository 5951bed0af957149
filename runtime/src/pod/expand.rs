//! `$(NAME)` in environment values, commands and arguments, as Kubernetes expands it: `$$` is a dollar sign, and a
//! reference to a variable that does not exist stays as it was written.

/// Bytes of what a pod names as a container's environment and arguments, together: what Linux gives a process (`ARG_MAX`);
/// the variables of Services come on top. References can double
/// a value with each variable, so what is short in a pod may have no end.
pub const LARGEST: usize = 2 << 20;

/// Environment and arguments would be larger than [`LARGEST`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment and arguments are larger than {LARGEST} bytes together")]
pub struct TooLarge;

/// What is left of [`LARGEST`].
#[derive(Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(LARGEST)
    }
}

impl Room {
    /// Takes what one text needs.
    pub fn take(&mut self, text: &str) -> Result<(), TooLarge> {
        // With its end, as in a process.
        self.0 = self.0.checked_sub(text.len() + 1).ok_or(TooLarge)?;
        Ok(())
    }
}

/// Expands `text` with `lookup`, and takes what the result needs of `room`.
pub fn expand<'a>(text: &str, room: &mut Room, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, TooLarge> {
    let out = expanded(text, room.0, lookup)?;
    room.take(&out)?;
    Ok(out)
}

fn expanded<'a>(text: &str, limit: usize, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, TooLarge> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Behind it nothing is closed, and nobody looks for an end: each `$(` would search all that follows.
    let last = text.rfind(')').unwrap_or(0);
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('(')
            && text.len() - inner.len() <= last
            && let Some((name, tail)) = inner.split_once(')')
        {
            if let Some(value) = lookup(name) {
                if out.len() + value.len() > limit {
                    return Err(TooLarge);
                }
                out.push_str(value);
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
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_vars(text: &str) -> String {
        expand(text, &mut Room::default(), |name| match name {
            "A" => Some("one"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            _ => None,
        })
        .unwrap()
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

    #[test]
    fn what_is_never_closed_is_read_once() {
        // Squared it would take minutes.
        for text in [format!("$(NO){}", "$(".repeat(700_000)), format!("{})$$", "$(".repeat(700_000))] {
            let expected = text.strip_suffix("$$").map_or(text.clone(), |text| format!("{text}$"));
            assert!(with_vars(&text) == expected);
        }
    }

    #[test]
    fn values_that_double_end_before_they_are_made() {
        let (mut room, mut value) = (Room::default(), "a".repeat(16));
        let doublings = std::iter::from_fn(|| {
            value = expand("$(V)$(V)", &mut room, |_| Some(&value)).ok()?;
            Some(value.len())
        });
        assert!(doublings.last().is_some_and(|largest| largest <= LARGEST / 2));
        assert_eq!(expand("$(V)", &mut Room(10), |_| Some("0123456789")), Err(TooLarge));
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
