//! What a namespace's labels ask for: a level and a version of the Pod Security Standards for each of three modes.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do. Ordered by strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The checks as they were in a minor version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Latest,
    Minor(u32),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What is refused, what is noted in the audit log, and what is warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Policy {
    /// The policy of a namespace with these labels. What cannot be read is restricted where it is enforced, and nothing
    /// where it is only told; and it is an error for whoever writes the label.
    pub(super) fn of<'a>(label: impl Fn(&str) -> Option<&'a str>) -> (Self, ErrorList) {
        let mut errors = ErrorList::default();
        let mut mode = |name: &str, fallback: Level| {
            let mut standard = Standard { level: Level::Privileged, version: Version::Latest };
            let level = label(&format!("{PREFIX}{name}"));
            if let Some(text) = level {
                standard.level = level_of(text).unwrap_or_else(|| {
                    refuse(
                        &format!("{PREFIX}{name}"),
                        text,
                        "must be one of privileged, baseline, restricted",
                        &mut errors,
                    );
                    fallback
                });
            }
            let key = format!("{PREFIX}{name}-version");
            let version = label(&key);
            if let Some(text) = version {
                standard.version = version_of(text).unwrap_or_else(|| {
                    refuse(&key, text, "must be \"latest\" or \"v1.x\"", &mut errors);
                    Version::Latest
                });
            }
            (standard, level, version)
        };
        let (enforce, enforced, _) = mode("enforce", Level::Restricted);
        let (audit, ..) = mode("audit", Level::Privileged);
        let (mut warn, warned, warn_version) = mode("warn", Level::Privileged);
        // Whoever enforces a level is told of it on workloads, too, whose pods would be refused.
        if warned.is_none() && enforced.is_some_and(|text| level_of(text).is_some()) && enforce.level > warn.level {
            warn.level = enforce.level;
            if warn_version.is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, errors)
    }

    /// Of a namespace's tree.
    pub(super) fn of_namespace(namespace: &Value) -> (Self, ErrorList) {
        Self::of(|key| wherry_api::object::label(namespace, key))
    }
}

impl Standard {
    /// Whether pods that were good by `old` may be bad by this one.
    pub(super) fn is_stricter_than(self, old: Self) -> bool {
        self.level != Level::Privileged
            && (self.version != old.version || self.level.cmp(&old.level) == Ordering::Greater)
    }
}

fn refuse(key: &str, value: &str, why: &str, errors: &mut ErrorList) {
    errors.invalid(&Path::new("metadata").child("labels").key(key), &json!(value), why);
}

fn level_of(text: &str) -> Option<Level> {
    [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.to_string() == text)
}

fn version_of(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let digits = text.strip_prefix("v1.")?;
    let canonical = digits == "0" || !digits.starts_with('0');
    let number = canonical && digits.bytes().all(|b| b.is_ascii_digit());
    number.then(|| digits.parse().ok()).flatten().map(Version::Minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let label = |key: &str| labels.iter().find(|(k, _)| key.strip_prefix(PREFIX) == Some(*k)).map(|(_, v)| *v);
        let (policy, errors) = Policy::of(label);
        (policy, errors.iter().map(ToString::to_string).collect())
    }

    fn shown(labels: &[(&str, &str)]) -> [String; 3] {
        let policy = of(labels).0;
        [policy.enforce, policy.audit, policy.warn].map(|standard| standard.to_string())
    }

    #[test]
    fn a_namespace_without_labels_allows_everything() {
        assert_eq!(shown(&[]), ["privileged:latest"; 3]);
    }

    #[test]
    fn what_is_enforced_is_warned_of_unless_the_labels_say_otherwise() {
        assert_eq!(
            shown(&[("enforce", "restricted"), ("enforce-version", "v1.25")]),
            ["restricted:v1.25", "privileged:latest", "restricted:v1.25"]
        );
        assert_eq!(
            shown(&[
                ("enforce", "baseline"),
                ("warn", "restricted"),
                ("audit", "restricted"),
                ("audit-version", "v1.2")
            ]),
            ["baseline:latest", "restricted:v1.2", "restricted:latest"]
        );
        assert_eq!(shown(&[("enforce", "restricted"), ("warn", "privileged")])[2], "privileged:latest");
    }

    #[test]
    fn a_label_that_cannot_be_read_is_named_and_enforced_strictly() {
        let (policy, errors) = of(&[("enforce", "tight"), ("warn", "tight"), ("audit-version", "v2.1")]);
        assert_eq!((policy.enforce.level, policy.warn.level), (Level::Restricted, Level::Privileged));
        assert_eq!(
            errors,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"tight\": must be one of privileged, \
                 baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v2.1\": must be \"latest\" or \
                 \"v1.x\"",
                "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"tight\": must be one of privileged, \
                 baseline, restricted",
            ]
        );
    }

    #[test]
    fn a_version_is_a_minor_one() {
        for (text, version) in [
            ("latest", Some(Version::Latest)),
            ("v1.0", Some(Version::Minor(0))),
            ("v1.36", Some(Version::Minor(36))),
            ("v1.036", None),
            ("v1.", None),
            ("v1.+3", None),
            ("1.3", None),
            ("v1.99999999999", None),
        ] {
            assert_eq!(version_of(text), version, "{text}");
        }
    }
}
