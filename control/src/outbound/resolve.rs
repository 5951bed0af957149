//! From a Service to an address: a ready endpoint from its EndpointSlices, in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use wherry_api::object;
use wherry_api::registry::Registry;
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::selector::LabelSelector;

use crate::cache::{At, Cache, Filter};

/// Why a Service has no address. Kubernetes' words: clients read them in an Available condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("service {name:?} not found")]
    NotFound { namespace: String, name: String },
    #[error("service \"{namespace}/{name}\" has no port {port}")]
    NoPort { namespace: String, name: String, port: u16 },
    #[error("no endpoints available for service {name:?}")]
    NoEndpoints { namespace: String, name: String },
    #[error("the cluster's state cannot be read: {0}")]
    State(String),
}

/// Where a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Endpoint(SocketAddr),
    /// Of an ExternalName Service.
    Name {
        host: String,
        port: u16,
    },
}

/// Looks Services up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resolver {
    cache: Cache,
    slices: Option<Arc<Descriptor>>,
    turn: Arc<AtomicUsize>,
}

impl Resolver {
    pub(super) fn new(cache: Cache, registry: &Registry) -> Self {
        let slices = registry.by_group_resource("discovery.k8s.io", "endpointslices").cloned();
        Self { cache, slices, turn: Arc::default() }
    }

    /// An address of the Service's port.
    pub async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Address, ResolveError> {
        let services = GroupResource::new("", "services");
        let (owned, named) = (namespace.to_owned(), name.to_owned());
        let Some(entry) = self.cache.get(&services, namespace, name) else {
            return Err(ResolveError::NotFound { namespace: owned, name: named });
        };
        let service: Value = entry.read().map_err(|error| ResolveError::State(error.to_string()))?;
        if object::text_at(&service, "spec.type") == "ExternalName" {
            return Ok(Address::Name { host: object::text_at(&service, "spec.externalName"), port });
        }
        let Some(port_name) = port_name(&service, port) else {
            return Err(ResolveError::NoPort { namespace: owned, name: named, port });
        };
        let ready = self.ready(namespace, name, &port_name).await?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = turn.checked_rem(ready.len()).and_then(|index| ready.get(index));
        chosen
            .map(|address| Address::Endpoint(*address))
            .ok_or(ResolveError::NoEndpoints { namespace: owned, name: named })
    }

    async fn ready(&self, namespace: &str, name: &str, port: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let Some(slices) = &self.slices else { return Ok(Vec::new()) };
        let state = |error: &dyn std::error::Error| ResolveError::State(error.to_string());
        let labels =
            LabelSelector::parse(&format!("kubernetes.io/service-name={name}")).map_err(|error| state(&error))?;
        let filter = Filter { namespace: Some(namespace.to_owned()), labels, ..Filter::default() };
        let found = self.cache.list(slices, &filter, At::Latest, None, 0).await.map_err(|error| state(&error))?;
        let mut addresses = Vec::new();
        for entry in found.entries {
            let slice: Value = entry.read().map_err(|error| state(&error))?;
            addresses.extend(ready_in(&slice, port));
        }
        Ok(addresses)
    }
}

/// The name (perhaps empty) of a Service's port.
fn port_name(service: &Value, port: u16) -> Option<String> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let found = ports.into_iter().flatten().find(|p| p.get("port").and_then(Value::as_u64) == Some(port.into()));
    found.map(|port| object::text_at(port, "name"))
}

/// The ready addresses of a slice for the port of that name.
fn ready_in(slice: &Value, port: &str) -> Vec<SocketAddr> {
    let items = |field: &str| slice.get(field).and_then(Value::as_array).into_iter().flatten();
    let number = items("ports").find(|p| object::text_at(p, "name") == port).and_then(|p| p.get("port")?.as_u64());
    let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { return Vec::new() };
    items("endpoints")
        .filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)))
        .filter_map(|endpoint| endpoint.get("addresses")?.as_array())
        .flatten()
        .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, number))
        .collect()
}
