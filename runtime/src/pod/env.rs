//! A container's environment: Service variables, then `envFrom`, then `env`, each later one winning, with references
//! resolved and `$(NAME)` expanded as Kubernetes does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};

use super::Context;
use super::expand::{Room, TooLarge, expand};
use super::fields::{self, FieldError, Here};
use super::reference::{Data, Kind, ReferenceError};
use super::setup::identity;

/// Why a container has no environment yet: its waiting message under `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.name())]
    Key { kind: Kind, namespace: String, name: String, key: String },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("environment variable {0} is not valid UTF-8 and cannot be given to a guest")]
    NotText(String),
    #[error("env {0}: this source is not supported")]
    Source(String),
}

/// Resolves the environment of `container`, which takes what it needs of `room`.
pub async fn resolve(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    here: Here<'_>,
    room: &mut Room,
) -> Result<BTreeMap<String, String>, EnvError> {
    let namespace = identity(pod).0;
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services: BTreeMap<String, String> = ctx
        .network
        .service_env(namespace)
        .into_iter()
        .filter(|(name, _)| links || name.starts_with("KUBERNETES_"))
        .collect();
    let mut env = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        from_source(ctx, namespace, source, room, &mut env).await?;
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) if !value.is_empty() => {
                Some(expand(value, room, |name| env.get(name).or_else(|| services.get(name)).map(String::as_str))?)
            }
            (_, Some(source)) => {
                let value = of_source(ctx, pod, container, &var.name, source, here).await?;
                room.take(value.as_deref().unwrap_or_default())?;
                value
            }
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            room.take(&var.name)?;
            env.insert(var.name.clone(), value);
        }
    }
    for (name, value) in services {
        env.entry(name).or_insert(value);
    }
    Ok(env)
}

async fn from_source(
    ctx: &Context,
    namespace: &str,
    source: &EnvFromSource,
    room: &mut Room,
    env: &mut BTreeMap<String, String>,
) -> Result<(), EnvError> {
    let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
        (Some(map), _) => (Kind::ConfigMap, &map.name, map.optional),
        (_, Some(secret)) => (Kind::Secret, &secret.name, secret.optional),
        _ => return Ok(()),
    };
    let Some(data) = read(ctx, kind, namespace, name, optional == Some(true)).await? else { return Ok(()) };
    let prefix = source.prefix.as_deref().unwrap_or_default();
    for (key, value) in &data.values {
        let name = format!("{prefix}{key}");
        let value = String::from_utf8(value.clone()).map_err(|_| EnvError::NotText(name.clone()))?;
        room.take(&name)?;
        room.take(&value)?;
        env.insert(name, value);
    }
    Ok(())
}

async fn of_source(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    variable: &str,
    source: &EnvVarSource,
    here: Here<'_>,
) -> Result<Option<String>, EnvError> {
    if let Some(wanted) = &source.field_ref {
        return Ok(Some(fields::field(pod, &wanted.field_path, here)?));
    }
    if let Some(wanted) = &source.resource_field_ref {
        return Ok(Some(fields::resource(pod, container, wanted, ctx.allocatable)?));
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(map), _) => (Kind::ConfigMap, &map.name, &map.key, map.optional == Some(true)),
        (_, Some(secret)) => (Kind::Secret, &secret.name, &secret.key, secret.optional == Some(true)),
        _ => return Err(EnvError::Source(variable.to_owned())),
    };
    let namespace = identity(pod).0;
    let Some(data) = read(ctx, kind, namespace, name, optional).await? else { return Ok(None) };
    match data.values.get(key) {
        Some(value) => String::from_utf8(value.clone()).map(Some).map_err(|_| EnvError::NotText(variable.to_owned())),
        None if optional => Ok(None),
        None => {
            let (namespace, name, key) = (namespace.to_owned(), name.clone(), key.clone());
            Err(EnvError::Key { kind, namespace, name, key })
        }
    }
}

async fn read(
    ctx: &Context,
    kind: Kind,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<Option<Data>, EnvError> {
    match ctx.references.read(kind, namespace, name).await {
        Ok(data) => Ok(Some(data)),
        Err(ReferenceError::NotFound { .. }) if optional => Ok(None),
        Err(error) => Err(error.into()),
    }
}
