//! Field paths and validation errors, with Kubernetes' words (`field.ErrorList` of apimachinery).

use std::fmt;

use serde_json::Value;

/// A path into an object, `spec.template.spec.containers[0].name`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// The classes of `field.Error`; the reason in a Status cause is [`ErrorKind::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
}

impl ErrorKind {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One validation error. `message` is what Kubernetes prints after the path
/// (`Invalid value: "x": must be …`).
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: ErrorKind,
    pub path: Path,
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// The errors of one object, in the order in which they were found: the first ones, because an error may quote the value
/// it is about, and a hostile object could have a large part of itself quoted once for each of its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(Vec<FieldError>);

/// Errors of an object that are told.
const MAX_ERRORS: usize = 100;
/// Bytes of messages after which no more are told.
const MAX_TEXT: usize = 64 * 1024;

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl ErrorList {
    pub fn push(&mut self, error: FieldError) {
        if !self.is_full() {
            self.0.push(error);
        }
    }

    /// Whether enough has been told: more errors are dropped.
    fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS || self.0.iter().map(|error| error.message.len()).sum::<usize>() > MAX_TEXT
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    pub fn required(&mut self, path: &Path, detail: &str) {
        self.add(ErrorKind::Required, path, || {
            if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") }
        });
    }

    pub fn invalid(&mut self, path: &Path, value: &Value, detail: &str) {
        self.add(ErrorKind::Invalid, path, || format!("Invalid value: {value}: {detail}"));
    }

    pub fn not_supported(&mut self, path: &Path, value: &str, supported: &[&str]) {
        self.add(ErrorKind::NotSupported, path, || {
            let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
            format!("Unsupported value: {value:?}: supported values: {}", list.join(", "))
        });
    }

    pub fn duplicate(&mut self, path: &Path, value: &Value) {
        self.add(ErrorKind::Duplicate, path, || format!("Duplicate value: {value}"));
    }

    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.add(ErrorKind::Forbidden, path, || format!("Forbidden: {detail}"));
    }

    pub fn too_long(&mut self, path: &Path, max_bytes: usize) {
        self.add(ErrorKind::TooLong, path, || format!("Too long: may not be more than {max_bytes} bytes"));
    }

    pub fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        self.add(ErrorKind::TooMany, path, || format!("Too many: {actual}: must have at most {max} items"));
    }

    pub fn not_found(&mut self, path: &Path, value: &Value) {
        self.add(ErrorKind::NotFound, path, || format!("Not found: {value}"));
    }

    fn add(&mut self, kind: ErrorKind, path: &Path, message: impl FnOnce() -> String) {
        if !self.is_full() {
            self.0.push(FieldError { kind, path: path.clone(), message: message() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_quoted_in_each_of_its_errors_is_quoted_a_bounded_number_of_times() {
        let mut errors = ErrorList::default();
        let large = Value::from("x".repeat(1 << 20));
        (0..1000).for_each(|_| errors.invalid(&Path::new("spec"), &large, "no"));
        assert_eq!(errors.iter().count(), 1);
        let mut errors = ErrorList::default();
        (0..1000).for_each(|_| errors.required(&Path::new("spec"), ""));
        assert_eq!(errors.iter().count(), MAX_ERRORS);
    }
}
