//! Kinds that subresources exchange: what binds, evicts, scales or asks for a token, and the options of a connection, which
//! come in its query.
//!
//! Most are no resources of their own: nothing lists or stores them. Decoding and admission know them like every other kind.

use std::borrow::Cow;
use std::sync::LazyLock;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::tree::{fill, object};
use super::{cells, core};
use crate::resource::{Column, Descriptor, SchemaSource, Subresource};
use crate::strategy::Strategy;

/// Kinds of bodies. OpenAPI publishes these.
pub fn bodies() -> &'static [Descriptor] {
    static BODIES: LazyLock<Vec<Descriptor>> = LazyLock::new(|| {
        vec![
            core::binding::descriptor(),
            Descriptor { also_in: &["policy/v1beta1"], ..Descriptor::of::<Eviction>() },
            Descriptor::of::<TokenRequest>().strategy(TokenRequestStrategy),
            Descriptor::of::<Scale>().columns(scale_columns()),
        ]
    });
    &BODIES
}

/// How a Scale is shown in a table.
fn scale_columns() -> Vec<Column> {
    let desired = "replicas is the desired number of instances for the scaled object.";
    let available = "replicas is the actual number of observed instances of the scaled object.";
    vec![
        cells::name(),
        cells::column("Desired", "integer", desired, |o, _| cells::count(o, "/spec/replicas")),
        cells::column("Available", "integer", available, |o, _| cells::count(o, "/status/replicas")),
        cells::age(),
    ]
}

/// Kinds of the options of connections.
pub fn options() -> &'static [Descriptor] {
    static OPTIONS: LazyLock<Vec<Descriptor>> = LazyLock::new(|| {
        vec![
            of_options::<PodAttachOptions>("PodAttachOptions"),
            of_options::<PodExecOptions>("PodExecOptions"),
            of_options::<PodPortForwardOptions>("PodPortForwardOptions"),
            of_options::<PodProxyOptions>("PodProxyOptions"),
            of_options::<ServiceProxyOptions>("ServiceProxyOptions"),
            of_options::<NodeProxyOptions>("NodeProxyOptions"),
        ]
    });
    &OPTIONS
}

/// The kind that a subresource exchanges; `None`: its parent's.
pub fn by(resource: &Descriptor, subresource: &Subresource) -> Option<&'static Descriptor> {
    let (group, version, kind) = named(resource, subresource);
    let mut all = bodies().iter().chain(options());
    all.find(|known| known.group == group && known.version == version && known.kind == kind)
}

/// Group, version and kind of what a subresource exchanges.
pub(crate) fn named<'a>(resource: &'a Descriptor, subresource: &'a Subresource) -> (&'a str, &'a str, &'a str) {
    match subresource {
        Subresource::Status | Subresource::Part(_) => (&*resource.group, &*resource.version, &*resource.kind),
        Subresource::Scale(_) => ("autoscaling", "v1", "Scale"),
        Subresource::Named(named) => {
            let (group, version) = match &named.group_version {
                Some((group, version)) => (group, version),
                None => (&resource.group, &resource.version),
            };
            (&**group, &**version, &*named.kind)
        }
    }
}

/// Seconds that a token is good for if nobody says.
pub const TOKEN_SECONDS: i64 = 3600;

#[derive(Debug)]
struct TokenRequestStrategy;

impl Strategy for TokenRequestStrategy {
    fn default(&self, request: &mut Value) {
        if let Some(spec) = object(request, "spec") {
            fill(spec, "expirationSeconds", TOKEN_SECONDS);
        }
    }
}

/// Defines types of `v1` that have only a schema: the API describes no options of connections.
macro_rules! options {
    ($($name:ident { $($field:literal: $schema:tt),* })*) => { $(
        struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                concat!("io.k8s.api.core.v1.", stringify!($name)).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "object", "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"}, $($field: $schema),*
                }})
            }
        }
    )* };
}

options! {
    PodAttachOptions {
        "container": {"type": "string"}, "stderr": {"type": "boolean"}, "stdin": {"type": "boolean"},
        "stdout": {"type": "boolean"}, "tty": {"type": "boolean"}
    }
    PodExecOptions {
        "command": {"type": "array", "items": {"type": "string"}}, "container": {"type": "string"},
        "stderr": {"type": "boolean"}, "stdin": {"type": "boolean"}, "stdout": {"type": "boolean"},
        "tty": {"type": "boolean"}
    }
    PodPortForwardOptions { "ports": {"type": "array", "items": {"type": "integer", "format": "int32"}} }
    PodProxyOptions { "path": {"type": "string"} }
    ServiceProxyOptions { "path": {"type": "string"} }
    NodeProxyOptions { "path": {"type": "string"} }
}

fn of_options<T: JsonSchema>(kind: &'static str) -> Descriptor {
    Descriptor {
        kind: kind.into(),
        list_kind: "".into(),
        plural: "".into(),
        singular: "".into(),
        definition: T::schema_name(),
        schema: SchemaSource::BuiltIn(SchemaGenerator::subschema_for::<T>),
        ..Descriptor::of::<Binding>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::all;
    use crate::schema;

    #[test]
    fn what_every_subresource_exchanges_is_known() {
        for kind in all() {
            for subresource in &kind.subresources {
                let (group, version, exchanged) = named(&kind, subresource);
                let own = (group, version, exchanged) == (&*kind.group, &*kind.version, &*kind.kind);
                let found = by(&kind, subresource);
                assert_eq!(found.is_none(), own, "{}/{}", kind.plural, subresource.name());
                assert!(found.is_none_or(|found| !schema::of(found).fields().is_empty()), "{exchanged}");
            }
        }
    }
}
