//! Whose tokens are believed beside the server's own: Kubernetes' `AuthenticationConfiguration` file.
//!
//! What must stay true: what the file says is honoured or refused with the field's path, when the server starts; an expression is
//! compiled once.

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};

use serde::Deserialize;
use serde_json::json;
use wherry_api::cel::{Decl, Program, Type};
use wherry_api::field::{ErrorList, Path};
use wherry_api::meta::names;

use super::keys::{self, Keys};
use super::mapping::{Claim, Extra, Mappings, Named, Rule, Text};
use super::{Anonymous, Authentication, Issuer, Issuers};
use crate::auth::tokens::ISSUER;
use crate::outbound::Outbound;

/// Issuers of one file, as in Kubernetes.
const MOST: usize = 64;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error("the authentication configuration {path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the authentication configuration {path} is not one of apiserver.config.k8s.io/v1")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_yaml::Error,
    },
    #[error("the authentication configuration {path}: {why}")]
    Invalid { path: PathBuf, why: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<FileJwt>,
    anonymous: Option<FileAnonymous>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAnonymous {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<FileCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCondition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileJwt {
    issuer: FileIssuer,
    #[serde(default)]
    claim_validation_rules: Vec<FileRule>,
    #[serde(default)]
    claim_mappings: FileMappings,
    #[serde(default)]
    user_validation_rules: Vec<FileRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileIssuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: String,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

/// Of claims or of users; the latter have no claim.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileMappings {
    username: FileMapping,
    groups: FileMapping,
    uid: FileMapping,
    extra: Vec<FileExtra>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileMapping {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileExtra {
    key: String,
    value_expression: String,
}

impl Authentication {
    /// Reads a file; keys are asked for through `outbound` when the first token comes. Blocks.
    pub fn read(path: &FilePath, outbound: &Outbound) -> Result<Self, AuthenticationError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| AuthenticationError::Read { path: path.into(), source })?;
        Self::parse(&text, path, outbound)
    }

    /// `path` is for messages.
    pub(super) fn parse(text: &str, path: &FilePath, outbound: &Outbound) -> Result<Self, AuthenticationError> {
        let file: File =
            serde_yaml::from_str(text).map_err(|source| AuthenticationError::Parse { path: path.into(), source })?;
        let invalid = |why: String| AuthenticationError::Invalid { path: path.into(), why };
        if file.api_version != "apiserver.config.k8s.io/v1" || file.kind != "AuthenticationConfiguration" {
            let why = "is not apiserver.config.k8s.io/v1 AuthenticationConfiguration";
            return Err(invalid(format!("{} {} {why}", file.api_version, file.kind)));
        }
        let mut errors = ErrorList::default();
        let root = Path::new("jwt");
        if file.jwt.len() > MOST {
            errors.too_many(&root, file.jwt.len(), MOST);
        }
        let (mut urls, mut discovery) = (BTreeSet::new(), BTreeSet::new());
        let mut issuers = Vec::new();
        for (at, jwt) in file.jwt.into_iter().take(MOST).enumerate() {
            let path = root.index(at);
            let place = path.child("issuer");
            if !urls.insert(jwt.issuer.url.clone()) {
                errors.duplicate(&place.child("url"), &json!(jwt.issuer.url));
            }
            let own = &jwt.issuer.discovery_url;
            if !own.is_empty() && !discovery.insert(own.clone()) {
                errors.duplicate(&place.child("discoveryURL"), &json!(own));
            }
            issuers.extend(issuer(jwt, &path, outbound, &mut errors));
        }
        let anonymous = anonymous(file.anonymous, &mut errors);
        if !errors.is_empty() {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(invalid(all.join(", ")));
        }
        Ok(Self { issuers: Issuers::new(issuers), anonymous })
    }
}

fn anonymous(file: Option<FileAnonymous>, errors: &mut ErrorList) -> Anonymous {
    let Some(file) = file else { return Anonymous::Everywhere };
    let paths: Vec<String> = file.conditions.into_iter().map(|condition| condition.path).collect();
    match (file.enabled, paths.is_empty()) {
        (true, true) => Anonymous::Everywhere,
        (true, false) => Anonymous::At(paths),
        (false, true) => Anonymous::Nowhere,
        (false, false) => {
            let why = "enabled should be set to true when conditions are defined";
            errors.invalid(&Path::new("anonymous").child("conditions"), &json!(paths), why);
            Anonymous::Nowhere
        }
    }
}

/// `None`: something is wrong, and `errors` say what.
fn issuer(jwt: FileJwt, path: &Path, outbound: &Outbound, errors: &mut ErrorList) -> Option<Issuer> {
    let before = errors.iter().count();
    let keys = keys(&jwt.issuer, &path.child("issuer"), outbound, errors);
    let rules = claim_rules(&jwt.claim_validation_rules, &path.child("claimValidationRules"), errors);
    let mappings = mappings(jwt.claim_mappings, &path.child("claimMappings"), errors);
    let user_rules = user_rules(&jwt.user_validation_rules, &path.child("userValidationRules"), errors);
    let (keys, username) = (keys?, mappings.username?);
    let mappings = Mappings {
        username,
        groups: mappings.groups,
        uid: mappings.uid,
        extra: mappings.extra,
        claim_rules: rules,
        user_rules,
    };
    if !mappings.verifies_email() {
        let why = "claims.email_verified must be used in claimMappings.username.expression or \
            claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
            claimMappings.username.expression";
        let path = path.child("claimMappings").child("username").child("expression");
        errors.invalid(&path, &json!(mappings.username.source()), why);
    }
    (errors.iter().count() == before).then(|| Issuer { audiences: jwt.issuer.audiences, keys, mappings })
}

fn keys(issuer: &FileIssuer, path: &Path, outbound: &Outbound, errors: &mut ErrorList) -> Option<Keys> {
    let place = path.child("url");
    if issuer.url.is_empty() {
        errors.required(&place, "");
    } else {
        if issuer.url == ISSUER {
            errors.invalid(
                &place,
                &json!(issuer.url),
                &format!("URL must not overlap with disallowed issuers: [{ISSUER}]"),
            );
        }
        url(&issuer.url, &place, errors);
    }
    let place = path.child("discoveryURL");
    let own = issuer.discovery_url.as_str();
    if !own.is_empty() {
        if own.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            errors.invalid(&place, &json!(own), "discoveryURL must be different from URL");
        }
        if !own.starts_with(keys::FILE) {
            url(own, &place, errors);
        }
    }
    audiences(issuer, path, errors);
    if !issuer.egress_selector_type.is_empty() {
        errors.invalid(&path.child("egressSelectorType"), &json!(issuer.egress_selector_type), "is not supported");
    }
    match Keys::new(&issuer.url, own, &issuer.certificate_authority, outbound.clone()) {
        Ok(keys) => Some(keys),
        Err(why) => {
            if !issuer.url.is_empty() && !issuer.certificate_authority.is_empty() {
                errors.invalid(&path.child("certificateAuthority"), &json!("<omitted>"), &why);
            }
            None
        }
    }
}

fn url(text: &str, path: &Path, errors: &mut ErrorList) {
    let parsed = match url::Url::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => return errors.invalid(path, &json!(text), &error.to_string()),
    };
    for (wrong, why) in [
        (parsed.scheme() != "https", "URL scheme must be https"),
        (!parsed.username().is_empty() || parsed.password().is_some(), "URL must not contain a username or password"),
        (parsed.query().is_some_and(|q| !q.is_empty()), "URL must not contain a query"),
        (parsed.fragment().is_some_and(|f| !f.is_empty()), "URL must not contain a fragment"),
    ] {
        if wrong {
            errors.invalid(path, &json!(text), why);
        }
    }
}

fn audiences(issuer: &FileIssuer, path: &Path, errors: &mut ErrorList) {
    let place = path.child("audiences");
    let FileIssuer { audiences, audience_match_policy: policy, .. } = issuer;
    if audiences.is_empty() {
        return errors.required(&place, &format!("at least one {place} is required"));
    }
    let mut seen = BTreeSet::new();
    for (at, audience) in audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.required(&place.index(at), "");
        }
        if !seen.insert(audience) {
            errors.duplicate(&place.index(at), &json!(audience));
        }
    }
    let place = path.child("audienceMatchPolicy");
    if audiences.len() > 1 && policy != "MatchAny" {
        errors.invalid(&place, &json!(policy), "audienceMatchPolicy must be MatchAny for multiple audiences");
    }
    if audiences.len() == 1 && !matches!(policy.as_str(), "" | "MatchAny") {
        errors.invalid(&place, &json!(policy), "audienceMatchPolicy must be empty or MatchAny for single audience");
    }
}

fn claim_rules(rules: &[FileRule], path: &Path, errors: &mut ErrorList) -> Vec<Rule> {
    let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
    let mut made = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        match (rule.claim.as_str(), rule.expression.as_str()) {
            ("", "") => errors.required(&path, "claim or expression is required"),
            (claim, "") => {
                if !rule.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    errors.invalid(&path.child("message"), &json!(rule.message), why);
                }
                if !claims.insert(claim) {
                    errors.duplicate(&path.child("claim"), &json!(claim));
                }
                made.push(Rule::Claim(Claim { name: claim.to_owned(), value: rule.required_value.clone() }));
            }
            ("", expression) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    errors.invalid(&path.child("requiredValue"), &json!(rule.required_value), why);
                }
                let place = path.child("expression");
                if expressions.insert(expression) {
                    let program = compile(expression, "claims", Some(&Type::Bool), &place, errors);
                    made.extend(program.map(|program| Rule::Expression { program, message: rule.message.clone() }));
                } else {
                    errors.duplicate(&place, &json!(expression));
                }
            }
            (claim, _) => errors.invalid(&path, &json!(claim), "claim and expression can't both be set"),
        }
    }
    made
}

fn user_rules(rules: &[FileRule], path: &Path, errors: &mut ErrorList) -> Vec<Rule> {
    let mut expressions = BTreeSet::new();
    let mut made = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        for (field, value) in [("claim", &rule.claim), ("requiredValue", &rule.required_value)] {
            if !value.is_empty() {
                errors.forbidden(&path.child(field), "users are judged by expressions");
            }
        }
        let place = path.child("expression");
        if rule.expression.is_empty() {
            errors.required(&place, "");
        } else if !expressions.insert(&rule.expression) {
            errors.duplicate(&place, &json!(rule.expression));
        } else {
            let program = compile(&rule.expression, "user", Some(&Type::Bool), &place, errors);
            made.extend(program.map(|program| Rule::Expression { program, message: rule.message.clone() }));
        }
    }
    made
}

/// Mappings, as far as they are right.
struct Made {
    username: Option<Text>,
    groups: Option<Text>,
    uid: Option<Text>,
    extra: Vec<Extra>,
}

fn mappings(file: FileMappings, path: &Path, errors: &mut ErrorList) -> Made {
    let FileMappings { username, groups, uid, extra } = file;
    let place = path.child("username");
    if username.claim.is_empty() && username.expression.is_empty() {
        errors.required(&place, "claim or expression is required");
    }
    let username = prefixed(username, &place, errors);
    let groups = prefixed(groups, &path.child("groups"), errors);
    let place = path.child("uid");
    if uid.prefix.is_some() {
        errors.forbidden(&place.child("prefix"), "a uid has no prefix");
    }
    let uid = text(FileMapping { prefix: Some(String::new()), ..uid }, &place, errors);
    let mut keys = BTreeSet::new();
    let mut made = Vec::new();
    for (at, one) in extra.iter().enumerate() {
        let path = path.child("extra").index(at);
        extra_key(&one.key, &path.child("key"), errors);
        if !keys.insert(&one.key) {
            errors.duplicate(&path.child("key"), &json!(one.key));
        }
        let place = path.child("valueExpression");
        if one.value_expression.is_empty() {
            errors.required(&place, "");
        } else if let Some(program) = compile(&one.value_expression, "claims", None, &place, errors) {
            made.push(Extra { key: one.key.clone(), program });
        }
    }
    Made { username, groups, uid, extra: made }
}

fn prefixed(mapping: FileMapping, path: &Path, errors: &mut ErrorList) -> Option<Text> {
    if let Some(prefix) = mapping.prefix.as_ref().filter(|_| !mapping.expression.is_empty()) {
        errors.invalid(&path.child("prefix"), &json!(prefix), "may not be specified when expression is set");
    }
    if !mapping.claim.is_empty() && mapping.expression.is_empty() && mapping.prefix.is_none() {
        let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
        errors.required(&path.child("prefix"), why);
    }
    text(mapping, path, errors)
}

fn text(mapping: FileMapping, path: &Path, errors: &mut ErrorList) -> Option<Text> {
    match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
        (true, true) => None,
        (false, true) => Some(Text::Claim(Named { name: mapping.claim, prefix: mapping.prefix.unwrap_or_default() })),
        (true, false) => {
            compile(&mapping.expression, "claims", None, &path.child("expression"), errors).map(Text::Expression)
        }
        (false, false) => {
            errors.invalid(path, &json!(""), "claim and expression can't both be set");
            None
        }
    }
}

fn extra_key(key: &str, path: &Path, errors: &mut ErrorList) {
    let Some((domain, rest)) = key.split_once('/') else {
        if key.is_empty() {
            return errors.required(path, "");
        }
        return errors.invalid(path, &json!(key), "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    let complaints = names::dns1123_subdomain(domain);
    if rest.is_empty() || !complaints.is_empty() {
        errors.invalid(path, &json!(key), "must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
    if key.chars().any(char::is_uppercase) {
        errors.invalid(path, &json!(key), "must be lowercase");
    }
    let reserved = ["kubernetes.io", "k8s.io"];
    if reserved.iter().any(|own| domain.strip_suffix(own).is_some_and(|d| d.is_empty() || d.ends_with('.'))) {
        let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
        errors.invalid(path, &json!(key), why);
    }
}

/// The program of an expression that may use one variable.
fn compile(
    source: &str,
    variable: &str,
    wanted: Option<&Type>,
    path: &Path,
    errors: &mut ErrorList,
) -> Option<Program> {
    let vars = [(variable.to_owned(), Decl::from(Type::Dyn))];
    let compiled = match wanted {
        Some(wanted) => Program::compile_to(source, &vars, wanted),
        None => Program::compile(source, &vars),
    };
    match compiled {
        Ok(program) => Some(program),
        Err(error) => {
            errors.invalid(path, &json!(source), &error.to_string());
            None
        }
    }
}
