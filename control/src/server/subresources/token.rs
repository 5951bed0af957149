//! Token: issues a token for a service account, bound to what the TokenRequest names.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::kinds::exchanged::TOKEN_SECONDS;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use crate::admission::Operation;
use crate::auth::tokens::{self, Reference, TokenSpec};
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::verbs::get;
use crate::server::{answer, metadata, versions};

const MAX_SECONDS: i64 = 1 << 32;

pub(crate) async fn issue(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let (mut request, options) = super::asked(call, body).await?;
    metadata::check_name(&request, &call.info.name)?;
    let account = versions::tree(&call.resource, &get::find(call)?).await?;
    let name = call.info.name.clone();
    let mut spec = TokenSpec {
        namespace: call.info.namespace.clone(),
        service_account: reference(&account),
        audiences: audiences(&request)?,
        seconds: seconds(&request)?,
        ..TokenSpec::default()
    };
    let audiences = if spec.audiences.is_empty() { vec![tokens::ISSUER.to_owned()] } else { spec.audiences.clone() };
    object::set_at(&mut request, "spec.audiences", json!(audiences));
    object::set_at(&mut request, "status", Value::Null);
    object::set_meta(&mut request, "creationTimestamp", object::format_time(Timestamp::now()));
    call.admit(&call.admission(Operation::Create, &name, options.dry_run), Some(&request), None).await?;
    bind(call, &request, &mut spec)?;
    if spec.seconds > tokens::MAX_SECONDS {
        let (asked, given) = (spec.seconds, tokens::MAX_SECONDS);
        call.warnings.push(format!("requested expiration of {asked} seconds shortened to {given} seconds"));
        spec.seconds = given;
    }
    let seconds = spec.seconds;
    let Some(tokens) = call.server.tokens() else {
        return Err(ApiError::unavailable("this server issues no tokens").into());
    };
    let issued = tokens.issue(spec)?;
    object::set_at(&mut request, "spec.expirationSeconds", seconds);
    let status = json!({"token": issued.token, "expirationTimestamp": object::format_time(issued.expires)});
    object::set_at(&mut request, "status", status);
    answer::value(call.accepted, StatusCode::CREATED, &request)
}

fn reference(object: &Value) -> Reference {
    Reference { name: object::name(object).to_owned(), uid: object::uid(object).to_owned() }
}

fn invalid(path: &Path, value: &Value, detail: &str) -> ApiError {
    let mut errors = ErrorList::default();
    errors.invalid(path, value, detail);
    ApiError::invalid_of("authentication.k8s.io", "TokenRequest", "", &errors)
}

fn seconds(request: &Value) -> Result<i64, ApiError> {
    let path = Path::new("spec").child("expirationSeconds");
    match object::at(request, "spec.expirationSeconds").and_then(Value::as_i64) {
        None => Ok(TOKEN_SECONDS),
        Some(n) if n < tokens::MIN_SECONDS => {
            Err(invalid(&path, &json!(n), "may not specify a duration less than 10 minutes"))
        }
        Some(n) if n > MAX_SECONDS => {
            Err(invalid(&path, &json!(n), "may not specify a duration larger than 2^32 seconds"))
        }
        Some(n) => Ok(n),
    }
}

fn audiences(request: &Value) -> Result<Vec<String>, ApiError> {
    let list = object::at(request, "spec.audiences").and_then(Value::as_array).cloned().unwrap_or_default();
    list.into_iter()
        .map(|audience| match audience {
            Value::String(text) => Ok(text),
            other => Err(ApiError::bad_request(format!("an audience must be a text, not {other}"))),
        })
        .collect()
}

/// Finds the object that the token is to be bound to. Error: 404, or 409 if its uid is another.
fn bind(call: &Call, request: &Value, spec: &mut TokenSpec) -> Result<(), ServerError> {
    let Some(wanted) = object::at(request, "spec.boundObjectRef").filter(|r| !r.is_null()) else { return Ok(()) };
    let (kind, name, uid) =
        (object::text_at(wanted, "kind"), object::text_at(wanted, "name"), object::text_at(wanted, "uid"));
    let found = |plural: &'static str, namespace: &str| {
        let resource = GroupResource::new("", plural);
        let entry = call.server.cache().get(&resource, namespace, &name);
        let entry = entry.ok_or_else(|| ApiError::missing(&resource, &name))?;
        if !uid.is_empty() && *uid != *entry.meta.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
                 been deleted and then recreated"
            );
            return Err(ApiError::conflict(&call.resource, &call.info.name, why).into());
        }
        Ok::<_, ServerError>(entry)
    };
    let reference_to = |entry: &crate::cache::Entry| Reference { name: name.clone(), uid: entry.meta.uid.to_string() };
    match kind.as_str() {
        "Pod" => {
            let pod = found("pods", &call.info.namespace)?;
            let tree = answer::parse(&pod.bytes)?;
            let account = object::text_at(&tree, "spec.serviceAccountName");
            if account != call.info.name {
                let why = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.info.name
                );
                return Err(ApiError::bad_request(why).into());
            }
            spec.pod = Some(reference_to(&pod));
            let node = object::text_at(&tree, "spec.nodeName");
            let nodes = GroupResource::new("", "nodes");
            spec.node = call
                .server
                .cache()
                .get(&nodes, "", &node)
                .map(|entry| Reference { name: node, uid: entry.meta.uid.to_string() });
        }
        "Node" => spec.node = Some(reference_to(&*found("nodes", "")?)),
        "Secret" => spec.secret = Some(reference_to(&*found("secrets", &call.info.namespace)?)),
        other => {
            let path = Path::new("spec").child("boundObjectRef").child("kind");
            return Err(invalid(
                &path,
                &json!(other),
                "cannot bind token to object of this kind; it must be Pod, Secret or Node",
            )
            .into());
        }
    }
    Ok(())
}
