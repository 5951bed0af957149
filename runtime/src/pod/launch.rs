//! Carrying out a container's steps: making its image ready, and creating and starting it in a backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Context;
use super::env;
use super::events::Said;
use super::expand::{Room, TooLarge, expand};
use super::fields::{self, Here};
use super::reference::Kind;
use super::setup::{containers, identity};
use crate::backend::{BackendError, Container, ContainerConfig, Difference, Exit, Sandbox, SandboxConfig, Started};
use crate::fault;
use crate::image::credentials::{PullSecret, PullSecretContent};
use crate::image::{Image, ImageError, PullPolicy, PullRequest};
use crate::log::ContainerLog;
use crate::network::PodNetwork;

/// Exit code of a container that could not be started.
const NOT_STARTED: i32 = 128;
/// Where an HTTP component is served when its container names no port.
const DEFAULT_HTTP_PORT: u16 = 8080;
/// Annotations that tune a guest.
const ANNOTATIONS: &str = "wherry.dev/";

/// The pod's sandboxes, one for each backend that runs a container of it; made on first use.
pub type Sandboxes = Arc<Mutex<Vec<(&'static str, Arc<dyn Sandbox>)>>>;

/// A container that runs.
#[derive(Debug)]
pub struct Launched {
    pub container: Arc<dyn Container>,
    pub log: Arc<ContainerLog>,
    /// `wasm://…`.
    pub id: String,
    pub at: Timestamp,
}

/// Why a container does not run.
#[derive(Debug)]
pub enum Refused {
    /// It was not created: a waiting reason and its message.
    Create { reason: &'static str, message: String },
    /// It was created and ended at once.
    Start(Exit),
}

/// Makes a container's image ready, with the events that say so.
pub async fn pull(ctx: Arc<Context>, pod: Arc<Pod>, index: usize) -> Result<Arc<Image>, ImageError> {
    let Some(spec) = containers(&pod).get(index) else {
        return Err(ImageError::InvalidName { reference: String::new(), message: "no such container".to_owned() });
    };
    let reference = spec.image.clone().unwrap_or_default();
    let policy = match spec.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    };
    let say = |reason, message| ctx.events.record(Said::about(&pod, Some(&spec.name), false, reason, message));
    let (secrets, namespace) = (secrets(&ctx, &pod).await, identity(&pod).0.to_owned());
    let request = PullRequest { reference: reference.clone(), policy, secrets, namespace };
    let present = ctx.images.present(&request).await;
    if !present && policy != PullPolicy::Never && crate::image::reference::parse(&reference).is_ok() {
        say("Pulling", format!("Pulling image \"{reference}\""));
    }
    let began = Instant::now();
    let image = ctx.images.ensure(request).await?;
    if present {
        let message =
            format!("Container image \"{reference}\" already present on machine and can be accessed by the pod");
        say("Pulled", message);
    } else {
        let took = began.elapsed();
        say(
            "Pulled",
            format!(
                "Successfully pulled image \"{reference}\" in {:.3}s ({:.3}s including waiting). Image size: {} bytes.",
                took.as_secs_f64(),
                took.as_secs_f64(),
                image.size
            ),
        );
    }
    Ok(image)
}

/// The credentials of `imagePullSecrets`. One that is missing is said in an event and skipped, as under the kubelet.
async fn secrets(ctx: &Context, pod: &Pod) -> Vec<PullSecret> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let wanted = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref());
    for secret in wanted.into_iter().flatten() {
        let content = match ctx.references.read(Kind::Secret, identity(pod).0, &secret.name).await {
            Ok(data) => PullSecretContent::of(&data.type_, &data.values),
            Err(why) => {
                missing.push(secret.name.as_str());
                PullSecretContent::Missing(why.to_string())
            }
        };
        found.push(PullSecret { name: secret.name.clone(), content });
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        ctx.events.record(Said::about(pod, None, true, "FailedToRetrieveImagePullSecret", message));
    }
    found
}

/// What a start needs.
#[derive(Debug)]
pub struct Launch {
    pub ctx: Arc<Context>,
    pub pod: Arc<Pod>,
    pub index: usize,
    pub attempt: u32,
    pub image: Arc<Image>,
    pub network: Arc<PodNetwork>,
    pub address: std::net::Ipv4Addr,
    pub sandboxes: Sandboxes,
}

impl Launch {
    /// Creates the container and starts it.
    pub async fn run(self) -> Result<Launched, Refused> {
        let Some(spec) = containers(&self.pod).get(self.index) else {
            return Err(config("no such container"));
        };
        let here = Here { address: self.address, host_address: &self.ctx.host.address };
        let mut room = Room::default();
        let env = env::resolve(&self.ctx, &self.pod, spec, here, &mut room)
            .await
            .map_err(|error| config(&error.to_string()))?;
        let (scheme, sandbox) = self.sandbox().await?;
        let log = self.ctx.logs.open(&self.pod, &spec.name, self.attempt);
        let configuration = self.configuration(spec, env, room, log.clone()).map_err(|e| config(&e.to_string()))?;
        let container = match sandbox.create_container(configuration).await {
            Ok(container) => container,
            Err(error) => return Err(not_created(error)),
        };
        self.say(spec, "Created", "Container created".to_owned());
        log.create().await;
        match container.start().await {
            Ok(Started { at, differs }) => {
                for difference in differs {
                    self.warn(spec, difference);
                }
                Ok(Launched { container, log, id: self.id(scheme, &spec.name, at), at })
            }
            Err(error) => Err(Refused::Start(not_started(&error))),
        }
    }

    fn warn(&self, spec: &Spec, difference: Difference) {
        let (reason, message) = match difference {
            Difference::Port(address) => {
                let message = format!(
                    "{address} cannot be opened here (taken, or a port below 1024 without the right to it): served on another \
                     port. Guests and Services of this node find it; the host does not, at that address"
                );
                ("PortSubstituted", message)
            }
            Difference::Instances { asked, most } => {
                let message = format!(
                    "annotation wherry.dev/max-instances: {asked} is more than the {most} instances that a namespace has on \
                     this node: the container has {most} at most"
                );
                ("InstancesLimited", message)
            }
        };
        self.ctx.events.record(Said::about(&self.pod, Some(&spec.name), true, reason, message));
    }

    fn say(&self, spec: &Spec, reason: &'static str, message: String) {
        self.ctx.events.record(Said::about(&self.pod, Some(&spec.name), false, reason, message));
    }

    async fn sandbox(&self) -> Result<(&'static str, Arc<dyn Sandbox>), Refused> {
        let Some(backend) = self.ctx.backend(&self.image) else {
            let message = format!(
                "image \"{}\" is a Linux image, not Wasm: this version runs WebAssembly components and modules only \
                 (docs/conformance.md, \"Pods\")",
                self.image.reference
            );
            return Err(Refused::Create { reason: "CreateContainerError", message });
        };
        let mut made = self.sandboxes.lock().await;
        if let Some(found) = made.iter().find(|(name, _)| *name == backend.name()) {
            return Ok(found.clone());
        }
        let (namespace, name, uid) = identity(&self.pod);
        let hostname = self.pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref()).unwrap_or(name);
        let sandbox = backend
            .run_sandbox(SandboxConfig {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
                hostname: hostname.to_owned(),
                network: self.network.clone(),
            })
            .await
            .map_err(not_created)?;
        made.push((backend.name(), sandbox.clone()));
        Ok((backend.name(), sandbox))
    }

    fn configuration(
        &self,
        spec: &Spec,
        env: BTreeMap<String, String>,
        mut room: Room,
        log: Arc<ContainerLog>,
    ) -> Result<ContainerConfig, env::EnvError> {
        let mut expanded = |list: &Option<Vec<String>>| -> Result<Vec<String>, TooLarge> {
            let value = |name: &str| env.get(name).map(String::as_str);
            list.iter().flatten().map(|text| expand(text, &mut room, value)).collect()
        };
        let annotations = self.pod.metadata.annotations.iter().flatten();
        Ok(ContainerConfig {
            name: spec.name.clone(),
            attempt: self.attempt,
            image: self.image.clone(),
            command: expanded(&spec.command)?,
            args: expanded(&spec.args)?,
            working_dir: spec.working_dir.clone(),
            memory_limit: limit(spec, "memory")?.map(|q| unsigned(q.value())),
            cpu_limit: limit(spec, "cpu")?.map(|q| unsigned(q.milli())),
            http_port: http_port(spec),
            log,
            stdin: spec.stdin == Some(true),
            annotations: annotations
                .filter(|(key, _)| key.starts_with(ANNOTATIONS))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            scratch: self.ctx.logs.pod_dir(&self.pod).join(&spec.name).join("scratch"),
            env,
        })
    }

    fn id(&self, scheme: &str, container: &str, at: Timestamp) -> String {
        let mut hash = Sha256::new();
        for part in [identity(&self.pod).2, container, &self.attempt.to_string(), &at.as_nanosecond().to_string()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let mut id = format!("{scheme}://");
        for byte in hash.finalize() {
            id.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or_default()));
        }
        id
    }
}

fn limit(spec: &Spec, name: &str) -> Result<Option<wherry_api::quantity::Quantity>, fields::FieldError> {
    let limits = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    limits.and_then(|limits| limits.get(name)).map(|q| fields::quantity(&q.0)).transpose()
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The port named `http`, else the first one, else 8080.
fn http_port(spec: &Spec) -> u16 {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let named = ports.iter().find(|port| port.name.as_deref() == Some("http"));
    let port = named.or_else(|| ports.first()).map(|port| port.container_port);
    port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_HTTP_PORT)
}

fn config(message: &str) -> Refused {
    Refused::Create { reason: "CreateContainerConfigError", message: message.to_owned() }
}

fn told(error: &BackendError) -> String {
    fault::cut(fault::with_causes(error), fault::STATUS)
}

fn not_created(error: BackendError) -> Refused {
    match error {
        BackendError::CannotRun(_) => Refused::Start(not_started(&error)),
        other => Refused::Create { reason: "CreateContainerError", message: told(&other) },
    }
}

fn not_started(error: &BackendError) -> Exit {
    let reason = match error {
        BackendError::CannotRun(_) => "ContainerCannotRun",
        _ => "StartError",
    };
    Exit { code: NOT_STARTED, reason: reason.to_owned(), message: told(error), finished_at: Timestamp::now() }
}
