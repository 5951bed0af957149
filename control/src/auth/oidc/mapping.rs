//! From a token's claims to a user: mappings and rules, by claim or by expression. Pure.
//!
//! What must stay true: claims that have not been verified never come here; a claim that is not what a mapping needs is an
//! error, never an empty name.

use serde_json::{Map, Value};
use wherry_api::cel::{Budget, PER_OBJECT, Program, Type, Val};

use crate::auth::{AUTHENTICATED, UserInfo};

/// A verified token's claims.
pub(super) type Claims = Map<String, Value>;

/// A claim that must have this value.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) value: String,
}

/// A claim whose texts get a prefix.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) prefix: String,
}

/// Where a part of the user comes from.
#[derive(Debug)]
pub(super) enum Text {
    Claim(Named),
    Expression(Program),
}

#[derive(Debug)]
pub(super) struct Extra {
    pub(super) key: String,
    pub(super) program: Program,
}

/// What must hold.
#[derive(Debug)]
pub(super) enum Rule {
    Claim(Claim),
    Expression { program: Program, message: String },
}

/// How one issuer's claims become a user.
#[derive(Debug)]
pub(super) struct Mappings {
    pub(super) username: Text,
    pub(super) groups: Option<Text>,
    pub(super) uid: Option<Text>,
    pub(super) extra: Vec<Extra>,
    pub(super) claim_rules: Vec<Rule>,
    pub(super) user_rules: Vec<Rule>,
}

impl Text {
    /// As the file has it.
    pub(super) fn source(&self) -> &str {
        match self {
            Self::Claim(claim) => &claim.name,
            Self::Expression(program) => program.source(),
        }
    }
}

impl Mappings {
    /// Whether an expression that names users by their mail address leaves unverified ones to nobody.
    pub(super) fn verifies_email(&self) -> bool {
        let Text::Expression(username) = &self.username else { return true };
        let rules = self.claim_rules.iter().filter_map(|rule| match rule {
            Rule::Expression { program, .. } => Some(program),
            Rule::Claim(_) => None,
        });
        let mut all = self.extra.iter().map(|extra| &extra.program).chain(rules).chain([username]);
        !username.selects("claims", "email") || all.any(|program| program.selects("claims", "email_verified"))
    }

    /// The user, or why these claims are nobody's.
    pub(super) fn user(&self, claims: Claims) -> Result<UserInfo, String> {
        let tree = Value::Object(claims);
        let mut budget = Budget::new(PER_OBJECT);
        let mut user = UserInfo {
            name: username(&self.username, &tree, &mut budget)?,
            groups: match &self.groups {
                Some(groups) => texts(groups, "groups", &tree, &mut budget)?,
                None => Vec::new(),
            },
            uid: match &self.uid {
                Some(uid) => text(uid, "uid", &tree, &mut budget)?,
                None => String::new(),
            },
            ..UserInfo::default()
        };
        for Extra { key, program } in &self.extra {
            let value = evaluate(program, "claims", &tree, &mut budget)
                .and_then(list)
                .map_err(|why| format!("error evaluating extra claim expression: {}: {why}", program.source()))?;
            if !value.is_empty() {
                user.extra.insert(key.clone(), value);
            }
        }
        for rule in &self.claim_rules {
            check(rule, "claims", &tree, &mut budget)
                .map_err(|why| format!("error evaluating claim validation expression: {why}"))?;
        }
        if !self.user_rules.is_empty() {
            let seen = seen(&user);
            for rule in &self.user_rules {
                check(rule, "user", &seen, &mut budget)
                    .map_err(|why| format!("error evaluating user info validation rule: {why}"))?;
            }
        }
        if user.name.is_empty() {
            return Err("the user's name is empty".to_owned());
        }
        if !user.in_group(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(user)
    }
}

/// `user` in expressions: every field is there.
fn seen(user: &UserInfo) -> Value {
    serde_json::json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra})
}

fn username(mapping: &Text, claims: &Value, budget: &mut Budget) -> Result<String, String> {
    let name = text(mapping, "username", claims, budget)?;
    if matches!(mapping, Text::Claim(claim) if claim.name == "email")
        && let Some(verified) = claims.get("email_verified")
    {
        match verified {
            Value::Bool(true) => {}
            Value::Bool(false) => return Err("email not verified".to_owned()),
            _ => return Err("parse 'email_verified' claim: it is not a boolean".to_owned()),
        }
    }
    Ok(name)
}

/// One text.
fn text(mapping: &Text, what: &str, claims: &Value, budget: &mut Budget) -> Result<String, String> {
    match mapping {
        Text::Claim(Named { name, prefix }) => match claims.get(name) {
            Some(Value::String(text)) => Ok(format!("{prefix}{text}")),
            Some(_) => Err(format!("parse {what} claim {name:?}: it is not a string")),
            None => Err(format!("parse {what} claim {name:?}: claim not present")),
        },
        Text::Expression(program) => match evaluate(program, "claims", claims, budget) {
            Ok(Value::String(text)) => Ok(text),
            Ok(_) => {
                Err(format!("error evaluating {what} claim expression: {what} claim expression must return a string"))
            }
            Err(why) => Err(format!("error evaluating {what} claim expression: {why}")),
        },
    }
}

/// A list of texts, or one. A claim that is not there is none.
fn texts(mapping: &Text, what: &str, claims: &Value, budget: &mut Budget) -> Result<Vec<String>, String> {
    match mapping {
        Text::Claim(Named { name, prefix }) => {
            let found: Vec<String> = match claims.get(name) {
                None => return Ok(Vec::new()),
                Some(Value::String(one)) => vec![one.clone()],
                Some(value) => serde_json::from_value(value.clone())
                    .map_err(|error| format!("parse {what} claim {name:?}: {error}"))?,
            };
            Ok(found.into_iter().map(|text| format!("{prefix}{text}")).collect())
        }
        Text::Expression(program) => evaluate(program, "claims", claims, budget)
            .and_then(list)
            .map_err(|why| format!("error evaluating {what} claim expression: {why}")),
    }
}

/// What an expression says, as texts; empty ones are left out.
fn list(value: Value) -> Result<Vec<String>, String> {
    let all = match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list,
        one => vec![one],
    };
    let texts: Option<Vec<String>> = all.into_iter().map(|one| one.as_str().map(str::to_owned)).collect();
    let texts = texts.ok_or("expression must return a string or a list of strings")?;
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

fn check(rule: &Rule, variable: &str, value: &Value, budget: &mut Budget) -> Result<(), String> {
    match rule {
        Rule::Claim(Claim { name, value: wanted }) => match value.get(name) {
            Some(Value::String(is)) if is == wanted => Ok(()),
            Some(Value::String(is)) => {
                Err(format!("required claim {name} value does not match. Got = {is}, want = {wanted}"))
            }
            Some(_) => Err(format!("parse claim {name}: it is not a string")),
            None => Err(format!("required claim {name} not present in ID token")),
        },
        Rule::Expression { program, message } => match evaluate(program, variable, value, budget)? {
            Value::Bool(true) => Ok(()),
            Value::Bool(false) => Err(format!("validation expression '{}' failed: {message}", program.source())),
            _ => Err("validation expression must return a boolean".to_owned()),
        },
    }
}

fn evaluate(program: &Program, variable: &str, value: &Value, budget: &mut Budget) -> Result<Value, String> {
    let lookup = |name: &str, _: &mut Budget| (name == variable).then(|| Ok(Val::of(value, &Type::Dyn)));
    let result = program.eval(&lookup, budget).map_err(|error| error.to_string())?;
    result.to_json().ok_or_else(|| format!("a value of type {} is no text", result.type_name()))
}
