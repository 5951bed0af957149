//! Field paths and validation errors, with Kubernetes' words (`field.ErrorList` of apimachinery).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// A path into an object, `spec.template.spec.containers[0].name`. It shares what it begins with with the path that it was
/// made of, so that a walk costs what its steps are long, however long the way to them is.
#[derive(Clone, Debug, Default)]
pub struct Path(Option<Arc<Step>>);

#[derive(Debug)]
struct Step {
    before: Path,
    part: Part,
}

#[derive(Debug)]
enum Part {
    Name(String),
    Index(usize),
    Key(String),
}

impl Path {
    pub fn new(root: &str) -> Self {
        if root.is_empty() { Self::default() } else { Self::default().child(root) }
    }

    fn with(&self, part: Part) -> Self {
        Self(Some(Arc::new(Step { before: self.clone(), part })))
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        self.with(Part::Name(name.to_owned()))
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Part::Index(index))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Part::Key(key.to_owned()))
    }

    /// Whether this is the object itself.
    pub fn is_root(&self) -> bool {
        self.0.is_none()
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) if Arc::ptr_eq(one, other) => true,
            (Some(_), Some(_)) => self.to_string() == other.to_string(),
            _ => false,
        }
    }
}

impl Eq for Path {}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else { return f.write_str("<nil>") };
        let first = step.before.is_root();
        if !first {
            fmt::Display::fmt(&step.before, f)?;
        }
        match &step.part {
            Part::Name(name) if first => f.write_str(name),
            Part::Name(name) => write!(f, ".{name}"),
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Key(key) => write!(f, "[{key}]"),
        }
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
pub struct ErrorList {
    list: Vec<FieldError>,
    /// Of messages and paths.
    bytes: usize,
    /// Complaints that were made, whatever became of them.
    made: usize,
    mode: Mode,
}

/// What becomes of a complaint.
#[derive(Clone, Debug, Default, PartialEq)]
enum Mode {
    #[default]
    Tell,
    /// It is noted: that much was wrong before.
    Learn(Known),
    /// It is told unless it was noted.
    Spare(Known),
}

/// What is known to be wrong, as often as it is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    times: HashMap<String, usize>,
    /// Of all texts together.
    bytes: usize,
}

impl Known {
    fn learn(&mut self, error: &FieldError) {
        let text = error.to_string();
        self.bytes += text.len();
        *self.times.entry(text).or_default() += 1;
    }

    /// What was wrong once before is wrong once.
    fn take(&mut self, error: &FieldError) -> bool {
        match self.times.get_mut(&error.to_string()) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// Errors of an object that are told.
const MAX_ERRORS: usize = 100;
/// Bytes of messages and paths after which no more are told.
const MAX_TEXT: usize = 64 * 1024;
/// Bytes of what was wrong with a stored object that are remembered: what is beyond is held against a change of it.
const MAX_KNOWN: usize = 1024 * 1024;

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl ErrorList {
    pub fn push(&mut self, error: FieldError) {
        self.made += 1;
        if self.is_full() {
            return;
        }
        match &mut self.mode {
            Mode::Tell => {}
            Mode::Learn(known) => return known.learn(&error),
            Mode::Spare(known) => {
                if known.take(&error) {
                    return;
                }
            }
        }
        self.bytes += error.message.len() + error.path.to_string().len();
        self.list.push(error);
    }

    /// Whether enough has been told: more errors are dropped.
    pub(crate) fn is_full(&self) -> bool {
        let learnt = matches!(&self.mode, Mode::Learn(known) if known.bytes > MAX_KNOWN);
        learnt || self.list.len() >= MAX_ERRORS || self.bytes > MAX_TEXT
    }

    /// How many complaints were made, told or not: what made none since is good.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.list.iter()
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

    /// Adds what `judge` says of `new`, without what it says of `old` in the same place and words: a stored object that a later
    /// rule would refuse may still be updated, as long as the update does not make what is wrong with it anew. How much of it is
    /// told is bounded, how much of it is compared is not.
    pub fn judge_change(&mut self, new: &Value, old: &Value, judge: impl Fn(&Value, &mut Self)) {
        let mut now = Self::default();
        judge(new, &mut now);
        if now.is_empty() {
            return;
        }
        let mut before = Self { mode: Mode::Learn(Known::default()), ..Self::default() };
        judge(old, &mut before);
        if let Mode::Learn(known) = before.mode
            && !known.times.is_empty()
        {
            now = Self { mode: Mode::Spare(known), ..Self::default() };
            judge(new, &mut now);
        }
        now.list.into_iter().for_each(|error| self.push(error));
    }

    fn add(&mut self, kind: ErrorKind, path: &Path, message: impl FnOnce() -> String) {
        if self.is_full() {
            self.made += 1;
        } else {
            self.push(FieldError { kind, path: path.clone(), message: message() });
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
        let (mut errors, far) = (ErrorList::default(), Path::new("spec").key(&"x".repeat(1 << 20)));
        (0..1000).for_each(|index| errors.required(&far.index(index), ""));
        assert_eq!(errors.iter().count(), 1, "its place is a part of an error");
    }

    #[test]
    fn a_change_answers_for_what_it_makes_wrong_only() {
        let judge = |value: &Value, errors: &mut ErrorList| {
            for (index, number) in value.as_array().into_iter().flatten().enumerate() {
                errors.invalid(&Path::new("n").index(index), number, "no");
            }
        };
        let said = |new: Value, old: Value| {
            let mut errors = ErrorList::default();
            errors.judge_change(&new, &old, judge);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (one, two) = (Value::from(vec![1]), Value::from(vec![1, 2]));
        assert_eq!(said(one.clone(), one.clone()), Vec::<String>::new());
        assert_eq!(said(two.clone(), one), ["n[1]: Invalid value: 2: no"]);
        assert_eq!(said(Value::Null, two), Vec::<String>::new());
    }

    #[test]
    fn the_same_mistake_made_again_is_a_new_one() {
        let judge = |value: &Value, errors: &mut ErrorList| {
            value.as_array().into_iter().flatten().for_each(|_| errors.required(&Path::new("list"), ""));
        };
        let mut errors = ErrorList::default();
        errors.judge_change(&Value::from(vec![1, 2]), &Value::from(vec![1]), judge);
        assert_eq!(errors.iter().count(), 1);
    }

    #[test]
    fn mistakes_are_compared_also_where_they_are_too_many_to_be_told() {
        let judge = |value: &Value, errors: &mut ErrorList| {
            for number in value.as_array().into_iter().flatten() {
                errors.required(&Path::new("n").key(&number.to_string()), "");
            }
        };
        let said = |new: std::ops::Range<usize>, old: std::ops::Range<usize>| {
            let mut errors = ErrorList::default();
            errors.judge_change(&new.collect(), &old.collect(), judge);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said(1..2 * MAX_ERRORS, 0..2 * MAX_ERRORS), Vec::<String>::new());
        assert_eq!(said(0..2 * MAX_ERRORS + 1, 0..2 * MAX_ERRORS), ["n[200]: Required value"]);
        let many = MAX_KNOWN / 10;
        assert_eq!(said(0..many, 0..many).len(), MAX_ERRORS, "what nobody can remember is not forgiven");
    }

    #[test]
    fn a_complaint_is_counted_whatever_becomes_of_it() {
        let judge = |value: &Value, errors: &mut ErrorList| {
            let before = errors.made();
            (0..3 * MAX_ERRORS).for_each(|_| errors.required(&Path::new("a"), ""));
            assert_eq!(errors.made() - before, 3 * MAX_ERRORS, "{value}");
        };
        let mut errors = ErrorList::default();
        errors.judge_change(&Value::from(1), &Value::from(2), judge);
        assert!(errors.is_empty());
    }

    #[test]
    fn a_path_is_written_as_its_steps_and_shares_the_way_to_it() {
        let path = Path::new("spec").child("list").index(3).key("a").child("b");
        assert_eq!(path.to_string(), "spec.list[3][a].b");
        assert_eq!((Path::default().to_string(), Path::new("").to_string()), ("<nil>".to_owned(), "<nil>".to_owned()));
        assert_eq!(path, Path::new("spec").child("list").index(3).key("a").child("b"));
        assert_ne!(path, Path::new("spec"));
        // As many steps as a large object has below a long key: each costs its own length only.
        let far = Path::new("spec").key(&"x".repeat(1 << 20));
        let all: Vec<Path> = (0..100_000).map(|index| far.index(index)).collect();
        assert!(all.iter().all(|path| path.0.as_ref().is_some_and(|step| {
            step.before.0.as_ref().is_some_and(|before| far.0.as_ref().is_some_and(|far| Arc::ptr_eq(before, far)))
        })));
    }
}
