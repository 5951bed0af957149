//! Eviction: deletes a pod, when its disruption budgets allow that. There are no budgets yet, so it always does.

use http::{Response, StatusCode};
use serde_json::json;
use wherry_api::object;
use wherry_api::resource::Subresource;
use wherry_api::status::ApiError;

use crate::server::answer;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::metadata;
use crate::server::verbs::delete::{self, DeleteOptions};

pub(crate) async fn evict(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let resource = call.resource.clone();
    let Some(Subresource::Named(named)) = resource.subresource("eviction") else {
        return Err(ApiError::no_such_path().into());
    };
    let mut eviction = super::read_document(call, body, named).await?;
    metadata::settle_namespace(&resource, &mut eviction, &call.info)?;
    if object::name(&eviction).is_empty() {
        object::set_meta(&mut eviction, "name", call.info.name.as_str());
    }
    if object::name(&eviction) != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object").into());
    }
    let options = DeleteOptions::parse(eviction.get("deleteOptions").cloned(), &call.query)?;
    let name = call.info.name.clone();
    delete::run(call, &name, &options).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    answer::value(call.accepted, StatusCode::CREATED, &status)
}
