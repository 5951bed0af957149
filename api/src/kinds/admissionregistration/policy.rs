//! What the admission policies share: what they are about, variables, parameters; and their bindings.

use serde_json::{Value, json};

use super::expressions::{self, Scope};
use super::matching;
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::cells::{self, CellFn, column};
use crate::kinds::check::{required_one_of, subdomain};
use crate::kinds::tree::{fill, list, object, some, text};
use crate::meta::{names, push_all};
use crate::resource::Column;

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
/// Words of CEL's grammar that name nothing.
const RESERVED: [&str; 22] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "__result__",
];

pub(super) fn default(policy: &mut Value) {
    let Some(spec) = object(policy, "spec") else { return };
    fill(spec, "failurePolicy", "Fail");
    matching::default(spec, "matchConstraints");
}

/// Judges the parts of a policy's spec that do not depend on what it does.
pub(super) fn validate(policy: &Value, errors: &mut ErrorList) {
    let (spec, path) = (policy.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    required_one_of(spec, "failurePolicy", &path, FAILURE_POLICIES, errors);
    if let Some(kind) = some(spec, "/paramKind") {
        param_kind(kind, &path.child("paramKind"), errors);
    }
    match some(spec, "/matchConstraints") {
        None => errors.required(&path.child("matchConstraints"), ""),
        Some(constraints) => {
            let path = path.child("matchConstraints");
            matching::validate(constraints, &path, errors);
            if list(constraints, "/resourceRules").is_empty() {
                errors.required(&path.child("resourceRules"), "");
            }
        }
    }
    let scope = Scope::policy(spec);
    matching::validate_conditions(spec, &scope, &path, errors);
    expressions::variables(spec, &scope, &path, errors);
    for (index, variable) in list(spec, "/variables").iter().enumerate() {
        let path = path.child("variables").index(index);
        let name = text(variable, "/name");
        if name.trim().is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            errors.invalid(&path.child("name"), &json!(name), "name is not a valid CEL identifier");
        }
        if text(variable, "/expression").trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit()) && !RESERVED.contains(&name)
}

fn param_kind(kind: &Value, path: &Path, errors: &mut ErrorList) {
    let version_path = path.child("apiVersion");
    let api_version = text(kind, "/apiVersion");
    match *api_version.split('/').collect::<Vec<_>>() {
        [""] => errors.required(&version_path, ""),
        [version] => api_version_of("", version, api_version, &version_path, errors),
        [group, version] => api_version_of(group, version, api_version, &version_path, errors),
        _ => {
            let why = format!("unexpected GroupVersion string: {api_version}");
            errors.invalid(&version_path, &json!(api_version), &why);
        }
    }
    let name = text(kind, "/kind");
    if name.is_empty() {
        return errors.required(&path.child("kind"), "");
    }
    let complaints = names::dns1035_label(&name.to_lowercase());
    if !complaints.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
        errors.invalid(&path.child("kind"), &json!(name), &why);
    }
}

fn api_version_of(group: &str, version: &str, whole: &str, path: &Path, errors: &mut ErrorList) {
    let mut judge = |value: &str, complaints: Vec<String>| {
        if !complaints.is_empty() {
            errors.invalid(path, &json!(value), &complaints.join(","));
        }
    };
    if !group.is_empty() {
        judge(group, names::dns1123_subdomain(group));
    }
    if version.is_empty() {
        return errors.invalid(path, &json!(whole), "version must be specified");
    }
    judge(version, names::dns1035_label(version));
}

/// The columns of a policy: what `counted` under spec it has, and its parameters.
pub(super) fn columns(title: &'static str, counted: CellFn) -> Vec<Column> {
    vec![
        cells::name(),
        column(title, "integer", "How many expressions the policy has.", counted),
        column("ParamKind", "string", "The kind of the policy's parameters.", |o, _| {
            let kind = some(o, "/spec/paramKind");
            json!(kind.map_or("<unset>".to_owned(), |k| format!("{}/{}", text(k, "/apiVersion"), text(k, "/kind"))))
        }),
        cells::age(),
    ]
}

pub(super) fn binding_columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("PolicyName", "string", "The policy that is bound.", |o, _| json!(text(o, "/spec/policyName"))),
        column("ParamRef", "string", "The object that parameterizes the policy.", |o, _| {
            let param = some(o, "/spec/paramRef");
            json!(param.map_or("<unset>".to_owned(), param_ref))
        }),
        cells::age(),
    ]
}

fn param_ref(param: &Value) -> String {
    match (text(param, "/namespace"), text(param, "/name")) {
        ("", "") => "*".to_owned(),
        ("", name) => format!("*/{name}"),
        (namespace, "") => format!("{namespace}/*"),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

pub(super) fn default_binding(binding: &mut Value) {
    if let Some(spec) = object(binding, "spec") {
        matching::default(spec, "matchResources");
    }
}

/// Judges the parts of a binding that both kinds have.
pub(super) fn validate_binding(binding: &Value, errors: &mut ErrorList) {
    let (spec, path) = (binding.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    subdomain(spec, "policyName", &path, errors);
    if let Some(param) = some(spec, "/paramRef") {
        validate_param_ref(param, &path.child("paramRef"), errors);
    }
    if let Some(resources) = some(spec, "/matchResources") {
        // Spelt as Kubernetes spells it.
        matching::validate(resources, &path.child("matchResouces"), errors);
    }
}

fn validate_param_ref(param: &Value, path: &Path, errors: &mut ErrorList) {
    let (name, selector) = (text(param, "/name"), some(param, "/selector"));
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        push_all(errors, &path.child("name"), name, names::path_segment(name));
    }
    match selector {
        Some(selector) => {
            if !name.is_empty() {
                errors.forbidden(&path.child("name"), exclusive);
            }
            validate_selector(selector, &path.child("selector"), errors);
            if !name.is_empty() {
                errors.forbidden(&path.child("selector"), exclusive);
            }
        }
        None if name.is_empty() => errors.required(path, "one of name or selector must be specified"),
        None => {}
    }
    required_one_of(param, "parameterNotFoundAction", path, &["Deny", "Allow"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(spec: &Value) -> Vec<String> {
        complaints(|errors| validate(&json!({ "spec": spec }), errors))
    }

    #[test]
    fn a_policy_says_what_it_is_about() {
        assert_eq!(judge(&json!({"failurePolicy": "Fail"})), ["spec.matchConstraints: Required value"]);
        let mut policy = json!({"spec": {"matchConstraints": {}}});
        default(&mut policy);
        assert_eq!(judge(&policy["spec"]), ["spec.matchConstraints.resourceRules: Required value"]);
    }

    #[test]
    fn variables_and_parameters_have_names_that_can_be_used() {
        for (name, good) in [("a_1", true), ("1a", false), ("namespace", false), ("a-b", false)] {
            assert_eq!(is_identifier(name), good, "{name}");
        }
        for (api_version, kind, count) in [
            ("v1", "ConfigMap", 0),
            ("a.example/v1", "Limit", 0),
            ("a/b/c", "X", 1),
            ("", "", 2),
            ("/v1", "A B", 1),
            ("a/", "A", 1),
        ] {
            let kind = json!({"apiVersion": api_version, "kind": kind});
            assert_eq!(complaints(|errors| param_kind(&kind, &Path::new("k"), errors)).len(), count, "{kind}");
        }
    }

    #[test]
    fn parameters_are_named_or_selected() {
        let judge = |param: Value| complaints(|errors| validate_param_ref(&param, &Path::new("p"), errors));
        assert!(judge(json!({"name": "x", "parameterNotFoundAction": "Deny"})).is_empty());
        assert_eq!(
            judge(json!({"parameterNotFoundAction": "Deny"})),
            ["p: Required value: one of name or selector must be specified"]
        );
        assert_eq!(
            judge(json!({"name": "x", "selector": {}, "parameterNotFoundAction": "Guess"})),
            [
                "p.name: Forbidden: name and selector are mutually exclusive",
                "p.selector: Forbidden: name and selector are mutually exclusive",
                "p.parameterNotFoundAction: Unsupported value: \"Guess\": supported values: \"Deny\", \"Allow\"",
            ]
        );
    }
}
