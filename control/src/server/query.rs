//! A request's query parameters: the options of `metav1` as far as they travel in the URL, each checked as Kubernetes
//! checks it.

use url::form_urlencoded;
use wherry_api::decode::FieldValidation;
use wherry_api::field::{ErrorList, Path};
use wherry_api::status::ApiError;

use crate::store::Revision;

/// The decoded pairs of a query, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A flag, as Go reads one. A parameter without a value is true.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        let Some((_, value)) = self.0.iter().find(|(k, _)| k == key) else { return Ok(None) };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            other => Err(ApiError::bad_request(format!(
                "invalid value {other:?} of the parameter {key}: it must be true or false"
            ))),
        }
    }

    /// Whether a flag is true; one that cannot be read is not.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        matches!(self.flag(key), Ok(Some(true)))
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        self.get(key)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!("invalid value {text:?} of the parameter {key}: it must be a number"))
                })
            })
            .transpose()
    }

    /// `dryRun`: only `All` exists.
    pub(crate) fn dry_run(&self, kind: &str) -> Result<bool, ApiError> {
        let mut asked = false;
        for value in self.all("dryRun").filter(|v| !v.is_empty()) {
            if value != "All" {
                return Err(refuse(kind, |errors| errors.not_supported(&Path::new("dryRun"), value, &["All"])));
            }
            asked = true;
        }
        Ok(asked)
    }

    pub(crate) fn field_validation(&self, kind: &str) -> Result<FieldValidation, ApiError> {
        let text = self.get("fieldValidation").unwrap_or_default();
        FieldValidation::from_query(text).ok_or_else(|| {
            let known = ["", "Ignore", "Strict", "Warn"];
            refuse(kind, |errors| errors.not_supported(&Path::new("fieldValidation"), text, &known))
        })
    }

    /// Checks `fieldManager`, which names who writes.
    pub(crate) fn check_field_manager(&self, kind: &str) -> Result<(), ApiError> {
        let Some(manager) = self.get("fieldManager") else { return Ok(()) };
        let mut errors = ErrorList::default();
        let path = Path::new("fieldManager");
        if manager.len() > 128 {
            errors.too_long(&path, 128);
        }
        if manager.chars().any(char::is_control) {
            errors.invalid(&path, &manager.into(), "should only contain printable characters");
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid_options(kind, &errors)) }
    }
}

/// What Kubernetes calls the options of a patch.
pub(crate) const PATCH: &str = "PatchOptions";

/// The options of a create, an update or a patch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// Of an apply: take what others own.
    pub(crate) force: bool,
    /// The object's `managedFields` have been written by an apply; any other write records what it changes.
    pub(crate) applied: bool,
}

impl WriteOptions {
    /// `kind` is what Kubernetes calls the options in its messages: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, ApiError> {
        query.check_field_manager(kind)?;
        if kind == PATCH && query.flag("force")?.is_some() {
            let why = "may not be specified for non-apply patch";
            return Err(refuse(kind, |errors| errors.forbidden(&Path::new("force"), why)));
        }
        Ok(Self { dry_run: query.dry_run(kind)?, validation: query.field_validation(kind)?, ..Self::default() })
    }

    /// The options of an apply, which says who applies.
    pub(crate) fn parse_apply(query: &Query) -> Result<Self, ApiError> {
        if query.get("fieldManager").is_none() {
            let why = "is required for apply patch";
            return Err(refuse(PATCH, |errors| errors.required(&Path::new("fieldManager"), why)));
        }
        query.check_field_manager(PATCH)?;
        Ok(Self {
            dry_run: query.dry_run(PATCH)?,
            validation: query.field_validation(PATCH)?,
            force: query.flag("force")?.unwrap_or_default(),
            applied: true,
        })
    }
}

/// How `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Exact,
    NotOlderThan,
}

/// The options of a list or a watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) limit: usize,
    pub(crate) continue_token: Option<String>,
    pub(crate) version: Option<Revision>,
    pub(crate) version_match: Option<Match>,
    /// Seconds after which a watch ends.
    pub(crate) timeout: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let text = query.get("resourceVersion");
        let version = text.map(parse_version).transpose()?;
        let mut options = Self {
            limit: usize::try_from(query.integer("limit")?.unwrap_or_default()).unwrap_or_default(),
            continue_token: query.get("continue").map(str::to_owned),
            version,
            version_match: None,
            timeout: query.integer("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
            bookmarks: query.flag("allowWatchBookmarks")?.unwrap_or_default(),
            initial_events: query.flag("sendInitialEvents")?,
        };
        let mut errors = ErrorList::default();
        options.check(query.get("resourceVersionMatch"), watch, &mut errors);
        if errors.is_empty() { Ok(options) } else { Err(invalid_options("ListOptions", &errors)) }
    }

    /// The rules, and the order, of Kubernetes' `ValidateListOptions`.
    fn check(&mut self, asked: Option<&str>, watch: bool, errors: &mut ErrorList) {
        const NOT_OLDER: &str = "NotOlderThan";
        let path = Path::new("resourceVersionMatch");
        let events = self.initial_events.is_some();
        if watch && events && asked != Some(NOT_OLDER) {
            errors.forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if watch && !events && asked.is_some() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if !watch && asked.is_some() && self.version.is_none() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !watch && asked.is_some() && self.continue_token.is_some() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        self.version_match = match asked {
            None => None,
            Some("Exact") => Some(Match::Exact),
            Some(NOT_OLDER) => Some(Match::NotOlderThan),
            Some(other) => {
                errors.not_supported(&path, other, &["Exact", NOT_OLDER, ""]);
                None
            }
        };
        if self.version_match == Some(Match::Exact) && self.version == Some(0) {
            errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if watch && self.continue_token.is_some() {
            errors.forbidden(&Path::new("continue"), "continue is forbidden for watch");
        }
        if !watch && events {
            errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
        }
    }
}

fn parse_version(text: &str) -> Result<Revision, ApiError> {
    text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let path = Path::new("resourceVersion");
        let mut error = refuse("ListOptions", |errors| errors.invalid(&path, &text.into(), &why));
        error.code = 400;
        error.reason = "BadRequest".into();
        error
    })
}

/// [`invalid_options`] for one complaint.
fn refuse(kind: &str, complain: impl FnOnce(&mut ErrorList)) -> ApiError {
    let mut errors = ErrorList::default();
    complain(&mut errors);
    invalid_options(kind, &errors)
}

/// 422 for options of `meta.k8s.io`.
pub(crate) fn invalid_options(kind: &str, errors: &ErrorList) -> ApiError {
    ApiError::invalid_of("meta.k8s.io", kind, "", errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<ListOptions, String> {
        ListOptions::parse(&Query::parse(Some(query)), false).map_err(|e| e.message)
    }

    fn watch(query: &str) -> Result<ListOptions, String> {
        ListOptions::parse(&Query::parse(Some(query)), true).map_err(|e| e.message)
    }

    #[test]
    fn contradictory_list_options_are_refused_with_the_field() {
        for (query, part) in [
            ("resourceVersionMatch=Exact", "forbidden unless resourceVersion is provided"),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is \
                 forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersionMatch=Exact&continue=x",
                "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, \
                 resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided]",
            ),
            ("resourceVersionMatch=Exact&resourceVersion=1&continue=x", "forbidden when continue is provided"),
            ("resourceVersionMatch=Some&resourceVersion=1", "Unsupported value: \"Some\""),
            ("sendInitialEvents=true", "forbidden for list"),
            ("resourceVersion=abc", "invalid syntax"),
            ("limit=many", "must be a number"),
        ] {
            let message = list(query).unwrap_err();
            assert!(message.contains(part), "{query}: {message}");
        }
        assert!(watch("sendInitialEvents=true").unwrap_err().contains("requires setting resourceVersionMatch"));
        assert_eq!(
            watch("sendInitialEvents=false&resourceVersionMatch=Exact&resourceVersion=0").unwrap_err(),
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
             resourceVersionMatch to NotOlderThan, resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is \
             forbidden for resourceVersion \"0\"]"
        );
        assert!(watch("continue=x").unwrap_err().contains("continue: Forbidden: continue is forbidden for watch"));
        assert!(watch("resourceVersionMatch=NotOlderThan").unwrap_err().contains("unless sendInitialEvents"));
        assert!(watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan").is_ok());
    }

    #[test]
    fn field_validation_is_warned_of_unless_it_is_said_otherwise() {
        let read = |query: &str| Query::parse(Some(query)).field_validation("CreateOptions").map_err(|e| e.message);
        assert_eq!(read(""), Ok(FieldValidation::Warn));
        assert_eq!(read("fieldValidation="), Ok(FieldValidation::Warn));
        assert_eq!(read("fieldValidation=Strict"), Ok(FieldValidation::Strict));
        assert_eq!(
            read("fieldValidation=strict").unwrap_err(),
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"strict\": supported values: \
             \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
    }

    #[test]
    fn dry_run_is_all_or_nothing() {
        assert_eq!(Query::parse(Some("dryRun=All")).dry_run("CreateOptions"), Ok(true));
        assert_eq!(Query::parse(Some("dryRun=")).dry_run("CreateOptions"), Ok(false));
        assert_eq!(Query::parse(Some("dryRun=Some")).dry_run("CreateOptions").unwrap_err().code, 422);
    }
}
