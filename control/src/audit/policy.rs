//! What is recorded of which request: Kubernetes' `Policy` file.
//!
//! What must stay true: the first rule that matches decides, and a request that none matches is not recorded; a file with
//! anything in it that is not understood is refused, since a rule that is silently dropped is an event that is never seen.

use std::path::{Path as FilePath, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::meta::names;

use crate::auth::{Attributes, UserInfo};

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the audit policy {path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the audit policy {path} is not one of audit.k8s.io/v1")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_yaml::Error,
    },
    #[error("the audit policy {path}: {why}")]
    Invalid { path: PathBuf, why: String },
}

/// How much of a request is recorded; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When in a request's life an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    RequestReceived,
    /// Of a request whose answer has no end: a watch, a followed log.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [Self; 4] = [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What is done about one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// A policy that has been checked.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matches: FileRule,
    verdict: Verdict,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    #[serde(default)]
    rules: Vec<FileRule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct FileRule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a file. Blocks.
    pub fn read(path: &FilePath) -> Result<Self, PolicyError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// `path` is for messages.
    pub fn parse(text: &str, path: &FilePath) -> Result<Self, PolicyError> {
        let file: File =
            serde_yaml::from_str(text).map_err(|source| PolicyError::Parse { path: path.to_owned(), source })?;
        let invalid = |why: String| PolicyError::Invalid { path: path.to_owned(), why };
        if file.api_version != "audit.k8s.io/v1" || file.kind != "Policy" {
            return Err(invalid(format!("{} {} is not audit.k8s.io/v1 Policy", file.api_version, file.kind)));
        }
        if file.rules.is_empty() {
            return Err(invalid("it has no rules".to_owned()));
        }
        let mut errors = ErrorList::default();
        check(&file, &mut errors);
        if !errors.is_empty() {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(invalid(all.join(", ")));
        }
        let File { rules, omit_stages, omit_managed_fields, .. } = file;
        let rules = rules.into_iter().map(|matches| {
            let omitted = omit_stages.iter().chain(&matches.omit_stages).collect::<Vec<_>>();
            let verdict = Verdict {
                level: Level::ALL.into_iter().find(|level| level.name() == matches.level).unwrap_or_default(),
                omit_stages: Stage::ALL.into_iter().filter(|s| omitted.iter().any(|o| *o == s.name())).collect(),
                omit_managed_fields: matches.omit_managed_fields.unwrap_or(omit_managed_fields),
            };
            Rule { matches, verdict }
        });
        Ok(Self { rules: rules.collect() })
    }

    /// What the first matching rule says. `None` is a user who could not be authenticated.
    pub fn judge(&self, user: Option<&UserInfo>, attributes: &Attributes) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches.matches(user, attributes));
        rule.map(|rule| rule.verdict.clone()).unwrap_or_default()
    }
}

fn check(file: &File, errors: &mut ErrorList) {
    stages(&file.omit_stages, &Path::new("omitStages"), errors);
    for (at, rule) in file.rules.iter().enumerate() {
        let path = Path::new("rules").index(at);
        let level = path.child("level");
        if rule.level.is_empty() {
            errors.required(&level, "");
        } else if Level::ALL.iter().all(|known| known.name() != rule.level) {
            errors.not_supported(&level, &rule.level, &Level::ALL.map(Level::name));
        }
        urls(&rule.non_resource_urls, &path.child("nonResourceURLs"), errors);
        resources(&rule.resources, &path.child("resources"), errors);
        stages(&rule.omit_stages, &path.child("omitStages"), errors);
        let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if of_resources && !rule.non_resource_urls.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path.child("nonResourceURLs"), &json!(rule.non_resource_urls), why);
        }
    }
}

fn stages(list: &[String], path: &Path, errors: &mut ErrorList) {
    for (at, stage) in list.iter().enumerate() {
        if Stage::ALL.iter().all(|known| known.name() != stage) {
            errors.not_supported(&path.index(at), stage, &Stage::ALL.map(Stage::name));
        }
    }
}

fn urls(list: &[String], path: &Path, errors: &mut ErrorList) {
    for (at, url) in list.iter().enumerate().filter(|(_, url)| *url != "*") {
        let path = path.index(at);
        if !url.starts_with('/') {
            errors.invalid(&path, &json!(url), "non-resource URL rules must begin with a '/' character");
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            let why = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.invalid(&path, &json!(url), why);
        }
    }
}

fn resources(list: &[GroupResources], path: &Path, errors: &mut ErrorList) {
    for (at, one) in list.iter().enumerate() {
        let path = path.index(at);
        if !one.group.is_empty() {
            let complaints = names::dns1123_subdomain(&one.group);
            if !complaints.is_empty() {
                errors.invalid(&path.child("group"), &json!(one.group), &complaints.join(","));
            }
        }
        if !one.resource_names.is_empty() && one.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.invalid(&path.child("resourceNames"), &json!(one.resource_names), why);
        }
    }
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == text)
}

impl FileRule {
    fn matches(&self, user: Option<&UserInfo>, attributes: &Attributes) -> bool {
        (self.users.is_empty() || user.is_some_and(|user| has(&self.users, &user.name)))
            && (self.user_groups.is_empty()
                || user.is_some_and(|user| user.groups.iter().any(|group| has(&self.user_groups, group))))
            && (self.verbs.is_empty() || has(&self.verbs, &attributes.verb))
            && self.is_about(attributes)
    }

    fn is_about(&self, attributes: &Attributes) -> bool {
        if !(self.namespaces.is_empty() && self.resources.is_empty()) {
            return attributes.is_resource()
                && (self.namespaces.is_empty() || has(&self.namespaces, &attributes.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.matches(attributes)));
        }
        self.non_resource_urls.is_empty()
            || (!attributes.is_resource() && self.non_resource_urls.iter().any(|url| covers(url, &attributes.path)))
    }
}

/// Whether a path is this one, or begins with what stands before its `*`.
fn covers(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl GroupResources {
    fn matches(&self, attributes: &Attributes) -> bool {
        let Attributes { group, resource, subresource, name, .. } = attributes;
        if self.group != *group || !(self.resource_names.is_empty() || has(&self.resource_names, name)) {
            return false;
        }
        let part = |pattern: &String| match pattern.split_once('/') {
            None => pattern == "*" || (pattern == resource && subresource.is_empty()),
            Some((of, "*")) => of == resource,
            Some(("*", part)) => part == subresource,
            Some((of, part)) => of == resource && part == subresource,
        };
        self.resources.is_empty() || self.resources.iter().any(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, String> {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{text}");
        Policy::parse(&text, FilePath::new("policy.yaml")).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {source}")
        })
    }

    fn resource(verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = parse(
            "omitStages: [RequestReceived]
rules:
- {level: None, users: [robot], verbs: [watch]}
- {level: None, nonResourceURLs: [/healthz*, /version]}
- {level: Request, resources: [{group: '', resources: [secrets], resourceNames: [word]}], namespaces: [web]}
- {level: Metadata, resources: [{group: '', resources: [pods/*, '*/status']}], omitStages: [ResponseStarted]}
- {level: RequestResponse, userGroups: [devs], omitManagedFields: true}
- {level: Metadata, resources: [{group: apps}]}
",
        )
        .unwrap();
        let robot = UserInfo::authenticated("robot", &[]);
        let dev = UserInfo::authenticated("dev", &["devs"]);
        let level = |user: &UserInfo, attributes: &Attributes| policy.judge(Some(user), attributes).level;
        assert_eq!(level(&robot, &resource("watch", "pods", "web", "")), Level::None);
        assert_eq!(level(&robot, &Attributes::non_resource("get", "/healthz/ping")), Level::None);
        assert_eq!(level(&dev, &Attributes::non_resource("get", "/version")), Level::None);
        assert_eq!(level(&dev, &Attributes::non_resource("get", "/versions")), Level::RequestResponse);
        assert_eq!(level(&robot, &resource("get", "secrets", "web", "word")), Level::Request);
        assert_eq!(level(&robot, &resource("get", "secrets", "web", "other")), Level::None);
        assert_eq!(level(&robot, &resource("get", "secrets", "mail", "word")), Level::None);
        for kind in ["pods", "pods/log", "nodes/status"] {
            assert_eq!(level(&robot, &resource("get", kind, "web", "")), Level::Metadata, "{kind}");
        }
        let apps = Attributes { group: "apps".into(), ..resource("get", "deployments", "web", "") };
        assert_eq!(level(&robot, &apps), Level::Metadata);
        let verdict = policy.judge(Some(&dev), &resource("list", "nodes", "", ""));
        assert_eq!((verdict.level, verdict.omit_managed_fields), (Level::RequestResponse, true));
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived]);
        let pods = policy.judge(Some(&robot), &resource("get", "pods", "web", ""));
        assert_eq!(pods.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert_eq!(policy.judge(None, &resource("list", "nodes", "", "")), Verdict::default());
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused_with_the_place() {
        for (text, wanted) in [
            ("", "it has no rules"),
            ("rules: [{}]", "rules[0].level: Required value"),
            ("rules: [{level: All}]", "rules[0].level: Unsupported value: \"All\""),
            ("rules: [{level: None, verb: [get]}]", "unknown field `verb`"),
            ("rules: [{level: None}]\nrule: []", "unknown field `rule`"),
            ("rules: [{level: None}]\nomitStages: [Never]", "omitStages[0]: Unsupported value: \"Never\""),
            ("rules: [{level: None, nonResourceURLs: [x]}]", "rules[0].nonResourceURLs[0]: Invalid value: \"x\""),
            ("rules: [{level: None, nonResourceURLs: [/a*b]}]", "must be the final character"),
            ("rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]", "cannot apply to both"),
            ("rules: [{level: None, resources: [{group: A}]}]", "rules[0].resources[0].group: Invalid value: \"A\""),
            ("rules: [{level: None, resources: [{resourceNames: [a]}]}]", "requires at least one resource"),
        ] {
            let said = parse(text).err().unwrap_or_default();
            assert!(said.contains(wanted), "{text}: {said}");
        }
        let other = Policy::parse("apiVersion: audit.k8s.io/v1beta1\nkind: Policy", FilePath::new("p")).unwrap_err();
        assert!(other.to_string().contains("audit.k8s.io/v1beta1 Policy is not audit.k8s.io/v1 Policy"), "{other}");
    }
}
