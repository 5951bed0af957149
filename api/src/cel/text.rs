//! How numbers become text, as Go prints them.

/// A floating-point number in its shortest form: `0.5`, `2`, `1e+06`, `NaN`, `+Inf`.
pub fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::double;

    #[test]
    fn numbers_read_as_in_go() {
        for (value, text) in [
            (0.5, "0.5"),
            (2.0, "2"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (1e-7, "1e-07"),
            (-1.25, "-1.25"),
            (123_456.5, "123456.5"),
            (0.0, "0"),
        ] {
            assert_eq!(double(value), text);
        }
        assert_eq!((double(f64::NAN), double(f64::INFINITY)), ("NaN".into(), "+Inf".into()));
    }
}
