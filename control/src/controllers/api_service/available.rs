//! The condition `Available`: whether requests for a group version can be answered.
//!
//! This server's own are. A server behind a Service must have an endpoint and answer for its group version, asked as requests
//! to it will be; it is asked again when Service or endpoints change, and every half minute.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::select_ok;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use kube::{Api, ResourceExt};
use tokio::time::timeout;

use super::plan::{self, Behind, Verdict};
use super::unavailable::Unavailable;
use crate::auth::UserInfo;
use crate::controllers::write;
use crate::controllers::{Context, FromContext};
use crate::outbound::{ClientConfig, Outbound};
use crate::reconcile::driver::itself;
use crate::reconcile::kinds::SERVICE_NAME;
use crate::reconcile::{Controller, Error, Key, Queue, Shared};
use crate::server::body;

/// For an answer to one question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at once, each perhaps to another endpoint: one good answer is enough.
const QUESTIONS: usize = 5;

#[derive(Debug)]
pub struct Availability {
    shared: Arc<Shared>,
    outbound: Option<Outbound>,
    unavailable: Unavailable,
}

impl FromContext for Availability {
    fn new(context: &Context) -> Self {
        let unavailable = context.metrics.unavailable.clone();
        Self { shared: context.shared.clone(), outbound: context.config.outbound.clone(), unavailable }
    }
}

impl Availability {
    async fn judge(&self, spec: &APIServiceSpec) -> Verdict {
        let Some(behind) = Behind::of(spec) else { return Verdict::here() };
        let service = self.shared.services.get(&Key::new(&behind.namespace, &behind.name));
        let mut slices = self.shared.endpoint_slices.grouped_by(&behind.name);
        slices.retain(|slice| slice.metadata.namespace.as_deref() == Some(&*behind.namespace));
        if let Some(missing) = plan::misses(&behind, service.as_deref(), &slices) {
            return missing;
        }
        let Some(outbound) = &self.outbound else { return Verdict::passed() };
        match answers(outbound, spec).await {
            Ok(()) => Verdict::passed(),
            Err(why) => Verdict::silent(why),
        }
    }
}

/// Whether the server behind an APIService serves its group version.
async fn answers(outbound: &Outbound, spec: &APIServiceSpec) -> Result<(), String> {
    let value = serde_json::to_value(spec).map_err(|error| error.to_string())?;
    let config = ClientConfig::of_api_service(&value).map_err(|error| error.to_string())?;
    let (group, version) = (spec.group.as_deref().unwrap_or_default(), spec.version.as_deref().unwrap_or_default());
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let questions = (0..QUESTIONS).map(|_| ask(outbound, &config, &path).boxed());
    select_ok(questions).await.map(drop)
}

async fn ask(outbound: &Outbound, config: &ClientConfig, path: &str) -> Result<(), String> {
    let url = config.url(path);
    let failing = |why: &dyn std::fmt::Display| format!("failing or missing response from {url}: {why}");
    let request = Request::get(path).body(body::empty()).map_err(|error| failing(&error))?;
    let answer = timeout(PATIENCE, outbound.send_identified(config, &UserInfo::aggregator(), request)).await;
    let answer = answer.map_err(|_| format!("timed out waiting for {url}"))?.map_err(|error| failing(&error))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(failing(&format_args!("bad status from {url}: {}", answer.status().as_u16())))
}

impl Controller for Availability {
    type Key = Key;
    const NAME: &'static str = "apiservice-available";
    const RESYNC: Duration = Duration::from_secs(30);

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.api_services.subscribe(itself(queue));
        let behind = |queue: &Queue<Key>, shared: &Arc<Shared>| {
            let (to, shared) = (queue.clone(), shared.clone());
            move |namespace: Option<&str>, name: &str| {
                for service in shared.api_services.grouped_by(name) {
                    let reference = service.spec.as_ref().and_then(|spec| spec.service.as_ref());
                    if reference.is_some_and(|reference| reference.namespace.as_deref() == namespace) {
                        to.add(Key::of(&*service));
                    }
                }
            }
        };
        let told = behind(queue, &self.shared);
        self.shared.services.subscribe(move |change| {
            if let Some(service) = change.latest() {
                told(service.metadata.namespace.as_deref(), service.metadata.name.as_deref().unwrap_or_default());
            }
        });
        let told = behind(queue, &self.shared);
        self.shared.endpoint_slices.subscribe(move |change| {
            for slice in change.sides() {
                if let Some(service) = slice.labels().get(SERVICE_NAME) {
                    told(slice.metadata.namespace.as_deref(), service);
                }
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.api_services.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.shared.api_services.get(key) else {
            self.unavailable.forget(&key.name);
            return Ok(None);
        };
        let Some(spec) = &service.spec else { return Ok(None) };
        let verdict = self.judge(spec).await;
        let shown = service.status.clone().unwrap_or_default();
        let status = plan::judged(&shown, verdict.clone(), Timestamp::now());
        self.unavailable.is(&key.name, !verdict.available);
        if status != shown {
            tracing::debug!(name = key.name.as_ref(), reason = verdict.reason, "an APIService's availability changed");
            let api: Api<APIService> = Api::all(self.shared.client.clone());
            write::status(&api, &self.shared.api_services, &service, &shown, &status).await?;
            if plan::is_available(&shown) && !verdict.available {
                self.unavailable.fell(&key.name, verdict.reason);
            }
        }
        match verdict.reason {
            // Asked again sooner than the timer would.
            "FailedDiscoveryCheck" => Err(Error::Unfinished(verdict.message)),
            _ => Ok(None),
        }
    }
}
