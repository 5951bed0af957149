//! Apply: a PATCH that says what its sender cares for. It creates what is missing.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use wherry_api::decode::{self, Decoded, FieldValidation, Format};
use wherry_api::object;
use wherry_api::patch::apply::{self as pure, Writer};
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;
use wherry_api::strategy::Part;

use super::{create, update};
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::WriteOptions;
use crate::server::subresources::View;
use crate::server::write::ATTEMPTS;
use crate::server::{managed, metadata};

pub(crate) async fn apply(
    call: &mut Call,
    view: View,
    body: Body,
    format: Format,
) -> Result<Response<Body>, ServerError> {
    let options = WriteOptions::parse_apply(&call.query)?;
    let bytes = call.read(body).await?;
    let read = call.apart(0, || configuration(call, &view, &bytes, (format, options.validation))).await;
    let Decoded { object: config, warnings } = read?;
    call.warnings.extend(warnings);
    call.requested(&config);
    if view != View::Object(Part::Main) {
        return change(call, &view, &config, &options).await;
    }
    for _ in 0..ATTEMPTS {
        let missing = update::is_missing(call);
        let answer = if missing {
            create_from(call, &config, &options).await
        } else {
            change(call, &view, &config, &options).await
        };
        match answer {
            Err(error) if update::raced(call, missing, &error).await => {}
            answer => return answer,
        }
    }
    Err(ApiError::modified(&call.resource, &call.info.name).into())
}

async fn change(
    call: &mut Call,
    view: &View,
    config: &Value,
    options: &WriteOptions,
) -> Result<Response<Body>, ServerError> {
    let (resource, server) = (call.resource.clone(), call.server.clone());
    let (manager, subresource) = (managed::manager(call), call.info.subresource.clone());
    let part = view.part().unwrap_or(Part::Main);
    let now = Timestamp::now();
    let writer = Writer { resource: &resource, manager: &manager, subresource: &subresource, part, now };
    let stored = update::modify(call, view, options, |old| {
        let config = of_object(view, old, config);
        let convert = |tree: &Value, version: &str| managed::in_version(&server, &resource, tree, version);
        let new = pure::apply(writer, Some(old), &config, options.force, &convert)?;
        // Nulls go, and what the merge made has the kind's shape.
        let merged = Decoded { object: new, warnings: Vec::new() };
        let mut new = decode::patched(&resource, merged, &config, FieldValidation::Ignore)?.object;
        if object::meta(&config, "resourceVersion").is_none() {
            object::remove_meta(&mut new, "resourceVersion");
        }
        Ok(new)
    })
    .await?;
    update::show(call, view, StatusCode::OK, stored).await
}

/// What a configuration of a view says of the object.
fn of_object(view: &View, old: &Value, config: &Value) -> Value {
    let View::Scale(paths) = view else { return config.clone() };
    let mut whole = json!({"apiVersion": object::api_version(old), "kind": object::kind(old)});
    object::copy_meta(&mut whole, config, &["name", "namespace", "uid", "resourceVersion"]);
    if let Some(replicas) = object::at(config, "spec.replicas") {
        object::set_at(&mut whole, paths.spec_replicas.trim_start_matches('.'), replicas.clone());
    }
    whole
}

async fn create_from(call: &mut Call, config: &Value, options: &WriteOptions) -> Result<Response<Body>, ServerError> {
    let (resource, name) = (call.resource.clone(), call.info.name.clone());
    let uid = object::uid(config);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(ApiError::conflict(&resource, &name, why).into());
    }
    if !object::resource_version(config).is_empty() {
        return Err(ApiError::modified(&resource, &name).into());
    }
    update::may_create(call).await?;
    let manager = managed::manager(call);
    let convert = |tree: &Value, version: &str| managed::in_version(&call.server, &resource, tree, version);
    let writer = managed::writer(call, Part::Main, &manager);
    let new = call.apart(0, || pure::apply(writer, None, config, options.force, &convert)).await?;
    create::insert_and_show(call, new, options).await
}

/// Reads and checks what is applied. Errors: 400.
fn configuration(
    call: &Call,
    view: &View,
    body: &[u8],
    (format, validation): (Format, FieldValidation),
) -> Result<Decoded, ServerError> {
    let decoded = decode::tree(body, format).map_err(|mut error| {
        let name = if format == Format::Cbor { "CBOR" } else { "YAML" };
        error.message = format!("error decoding {name}: {}", error.message);
        error
    })?;
    if !decoded.object.is_object() {
        return Err(ApiError::bad_request("the body of an apply must be an object").into());
    }
    let mut read = if view.is_object() { typed(call, body, decoded, validation)? } else { decoded };
    let config = &mut read.object;
    metadata::settle_namespace(&call.resource, config, &call.info)?;
    if object::name(config).is_empty() {
        object::set_meta(config, "name", call.info.name.as_str());
    }
    metadata::check_name(config, &call.info.name)?;
    Ok(read)
}

fn typed(call: &Call, body: &[u8], decoded: Decoded, validation: FieldValidation) -> Result<Decoded, ServerError> {
    let resource = call.resource.clone();
    check_type(&resource, &decoded.object)?;
    let name = object::name(&decoded.object).to_owned();
    // An unknown field cannot be owned: it is refused however lenient the validation is.
    let checked = decode::object(&resource, decoded, FieldValidation::Warn)?;
    let complaints = checked.warnings;
    let unknown: Vec<String> = complaints
        .iter()
        .filter_map(|text| text.strip_prefix("unknown field \"")?.strip_suffix('"'))
        .map(|path| format!(".{path}: field not declared in schema"))
        .collect();
    if !unknown.is_empty() {
        let list = match unknown.as_slice() {
            [one] => one.clone(),
            all => format!("errors:\n  {}", all.join("\n  ")),
        };
        return Err(ApiError::bad_request(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {list}",
            call.info.namespace,
            name,
            resource.api_version(),
            resource.kind,
        ))
        .into());
    }
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        let lines = decode::repeated_keys(body);
        let text = format!(
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {}",
            lines.join("\n  ")
        );
        return Err(ApiError::bad_request(text).into());
    }
    let warnings = if validation == FieldValidation::Warn { complaints } else { Vec::new() };
    Ok(Decoded { object: checked.object, warnings })
}

/// An apply says what it applies.
fn check_type(resource: &Descriptor, config: &Value) -> Result<(), ApiError> {
    let (version, kind) = (object::api_version(config), object::kind(config));
    if version.is_empty() || kind.is_empty() {
        return Err(ApiError::bad_request("invalid object type: apiVersion and kind must be set in an apply patch"));
    }
    if kind == resource.kind && version != resource.api_version() {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            resource.api_version()
        )));
    }
    Ok(())
}
