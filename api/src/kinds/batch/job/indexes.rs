//! Sets of indexes of an indexed Job in their text form: `1,3-5,7`.

/// How many indexes a text names. Errors: an index that is not below `completions`, or out of order, or not a number.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = parse(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that two texts share.
pub(super) fn overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let intervals =
        |text: &str| -> Vec<(i64, i64)> { text.split(',').filter_map(|part| parse(part, completions).ok()).collect() };
    let others = intervals(other);
    intervals(one).into_iter().find_map(|(first, end)| {
        others.iter().find(|(from, to)| first <= *to && *from <= end).map(|(from, _)| first.max(*from))
    })
}

fn parse(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = interval.split('-').collect();
    let (first, end) = match parts.as_slice() {
        [one] => (number(one)?, None),
        [first, end] => (number(first)?, Some(number(end)?)),
        _ => {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
    };
    for index in [Some(first), end].into_iter().flatten() {
        if index >= completions {
            return Err(format!("too large index: {:?}", index.to_string()));
        }
    }
    match end {
        Some(end) if first >= end => Err(format!("non-increasing order, previous: {first}, current: {end}")),
        end => Ok((first, end.unwrap_or(first))),
    }
}

fn number(text: &str) -> Result<i64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<i32>()
        .ok()
        .filter(|_| digits)
        .map(i64::from)
        .ok_or_else(|| format!("cannot convert string to integer for index: {text:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_counted_in_order() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        assert_eq!(count("2,1", 5), Err("non-increasing order, previous: 2, current: 1".to_owned()));
        assert_eq!(count("3-9", 5), Err("too large index: \"9\"".to_owned()));
        assert_eq!(count("a", 5), Err("cannot convert string to integer for index: \"a\"".to_owned()));
        assert!(count("1-2-3", 5).is_err());
    }

    #[test]
    fn an_overlap_names_the_first_shared_index() {
        assert_eq!(overlap("0,3-5", "4", 9), Some(4));
        assert_eq!(overlap("0-2", "3", 9), None);
        assert_eq!(overlap("", "3", 9), None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "[0-9,-]{0,20}", completions in 0_i64..100) {
            if let Ok(total) = count(&text, completions) {
                prop_assert!(total <= completions);
            }
            overlap(&text, &text, completions);
        }
    }
}
