//! The downward API: a pod's own fields and its containers' resources as environment variables.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::Allocatable;
use super::setup::{containers, identity};
use wherry_api::quantity::Quantity;

/// Why a field could not be given to a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("invalid quantity \"{0}\"")]
    Quantity(String),
}

/// What a pod's node knows of it and its spec does not say.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub address: Ipv4Addr,
    pub host_address: &'a str,
}

/// The value of `fieldRef.fieldPath`.
pub fn field(pod: &Pod, path: &str, here: Here<'_>) -> Result<String, FieldError> {
    let (namespace, name, uid) = identity(pod);
    let spec = pod.spec.as_ref();
    if let Some((base, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match base {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(FieldError::Field(path.to_owned())),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let owned = |value: Option<&String>| value.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => name.to_owned(),
        "metadata.namespace" => namespace.to_owned(),
        "metadata.uid" => uid.to_owned(),
        // The second is the old name, which clients of long ago still send.
        "spec.nodeName" | "spec.host" => owned(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => owned(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => here.address.to_string(),
        "status.hostIP" | "status.hostIPs" => here.host_address.to_owned(),
        _ => return Err(FieldError::Field(path.to_owned())),
    })
}

/// The value of `resourceFieldRef`, in units of its divisor, rounded up.
pub fn resource(
    pod: &Pod,
    own: &Container,
    wanted: &ResourceFieldSelector,
    node: Allocatable,
) -> Result<String, FieldError> {
    let container = match wanted.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => own,
        Some(name) => {
            containers(pod).iter().find(|c| c.name == name).ok_or_else(|| FieldError::Container(name.to_owned()))?
        }
    };
    let unsupported = || FieldError::Resource(wanted.resource.clone());
    let (which, name) = wanted.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let map = match which {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let given = map.and_then(|map| map.get(name)).map(|q| quantity(&q.0)).transpose()?;
    let divisor = match wanted.divisor.as_ref().map(|q| q.0.as_str()) {
        None | Some("" | "0") => None,
        Some(text) => Some(quantity(text)?),
    };
    let (value, divisor) = match name {
        "cpu" => {
            let fallback = if which == "limits" { node.milli_cpu } else { 0 };
            (given.map_or(fallback, Quantity::milli), divisor.map_or(1000, Quantity::milli))
        }
        "memory" | "ephemeral-storage" => {
            let fallback = if which == "limits" && name == "memory" { node.memory_bytes } else { 0 };
            (given.map_or(fallback, Quantity::value), divisor.map_or(1, Quantity::value))
        }
        _ => return Err(unsupported()),
    };
    let divisor = divisor.max(1);
    Ok((value / divisor + i64::from(value % divisor > 0)).to_string())
}

/// Parses a quantity of the spec.
pub fn quantity(text: &str) -> Result<Quantity, FieldError> {
    text.parse().map_err(|_| FieldError::Quantity(text.to_owned()))
}
