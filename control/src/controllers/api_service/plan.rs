//! What should be done about an APIService of this server, and what a server's state means for its condition. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition as Condition, APIServiceSpec as Spec, APIServiceStatus as Status,
};
use wherry_api::kinds::apiregistration::priorities::Priority;

/// Says who looks after an APIService.
pub const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";

/// How an APIService is looked after: the label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manage {
    /// Made and mended once, when the control plane starts: whoever changes it later is left alone.
    OnStart,
    /// Always as it should be.
    Always,
}

impl Manage {
    pub fn value(self) -> &'static str {
        match self {
            Self::OnStart => "onstart",
            Self::Always => "true",
        }
    }

    fn of(service: &APIService) -> Option<Self> {
        let value = service.metadata.labels.as_ref()?.get(LABEL)?;
        [Self::OnStart, Self::Always].into_iter().find(|manage| manage.value() == value)
    }
}

/// What is done about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Leave,
    Create,
    Mend,
    Delete,
}

/// How far the controller is with a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// It was there when the controller started.
    pub at_start: bool,
    /// It has been looked after once.
    pub settled: bool,
}

/// The spec of an APIService without a server behind it.
pub fn local(group: &str, version: &str, priority: Priority) -> Spec {
    Spec {
        group: Some(group.to_owned()),
        version: Some(version.to_owned()),
        group_priority_minimum: priority.group,
        version_priority: priority.version,
        ..Spec::default()
    }
}

/// Kubernetes' table: an APIService that nobody manages is its owner's; what is managed on start is touched once.
pub fn decide(wanted: Option<&(Manage, Spec)>, present: Option<&APIService>, known: Known) -> Action {
    match (wanted, present) {
        (None, None) => Action::Leave,
        (Some((Manage::OnStart, _)), _) if known.settled => Action::Leave,
        (Some(_), None) => Action::Create,
        (wanted, Some(present)) => match (Manage::of(present), wanted) {
            (None, _) => Action::Leave,
            (Some(Manage::OnStart), _) if !known.at_start || known.settled => Action::Leave,
            (Some(_), None) => Action::Delete,
            (Some(_), Some((_, spec))) => {
                if same(spec, present) {
                    Action::Leave
                } else {
                    Action::Mend
                }
            }
        },
    }
}

fn same(wanted: &Spec, present: &APIService) -> bool {
    present.spec.as_ref().is_some_and(|spec| {
        // Kubernetes writes the empty group as an absent one.
        let group = |spec: &Spec| spec.group.clone().unwrap_or_default();
        let insecure = spec.insecure_skip_tls_verify.unwrap_or_default();
        group(spec) == group(wanted)
            && spec.version == wanted.version
            && spec.service.is_none()
            && spec.ca_bundle.is_none()
            && !insecure
            && (spec.group_priority_minimum, spec.version_priority)
                == (wanted.group_priority_minimum, wanted.version_priority)
    })
}

/// What the condition `Available` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }

    /// This server answers for itself.
    pub fn here() -> Self {
        Self { available: true, reason: "Local", message: "Local APIServices are always available".to_owned() }
    }

    pub fn passed() -> Self {
        Self { available: true, reason: "Passed", message: "all checks passed".to_owned() }
    }

    /// The server behind it does not serve the group version.
    pub fn silent(why: String) -> Self {
        Self::no("FailedDiscoveryCheck", why)
    }
}

/// Where the server behind an APIService is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    pub namespace: String,
    pub name: String,
    pub port: i32,
}

impl Behind {
    pub fn of(spec: &Spec) -> Option<Self> {
        let service = spec.service.as_ref()?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(Self { namespace: text(&service.namespace), name: text(&service.name), port: service.port.unwrap_or(443) })
    }
}

/// What is wrong with the Service and its endpoints; `None`: the server can be asked.
pub fn misses(behind: &Behind, service: Option<&Service>, slices: &[Arc<EndpointSlice>]) -> Option<Verdict> {
    let Behind { namespace, name, port } = behind;
    let Some(service) = service else {
        return Some(Verdict::no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    let spec = service.spec.as_ref();
    if !matches!(spec.and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP"), "ClusterIP") {
        return None;
    }
    let mut ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let Some(found) = ports.find(|candidate| candidate.port == *port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Verdict::no("ServicePortError", message));
    };
    let port_name = found.name.as_deref().unwrap_or_default();
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Verdict::no("EndpointsNotFound", message));
    }
    if slices.iter().any(|slice| has_ready(slice, port_name)) {
        return None;
    }
    let message =
        format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
    Some(Verdict::no("MissingEndpoints", message))
}

fn has_ready(slice: &EndpointSlice, port: &str) -> bool {
    let ready = |conditions: Option<bool>| conditions.unwrap_or(true);
    let endpoints = slice.endpoints.iter().flatten();
    let mut states = endpoints.map(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready));
    let mut ports = slice.ports.iter().flatten();
    states.any(ready) && ports.any(|p| p.name.as_deref().unwrap_or_default() == port && p.port.is_some())
}

/// Whether a status says that the APIService can be used.
pub fn is_available(status: &Status) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Available" && condition.status == "True")
}

/// The status with this verdict; its time moves when the condition's status does.
pub fn judged(shown: &Status, verdict: Verdict, now: Timestamp) -> Status {
    let mut status = shown.clone();
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().position(|condition| condition.type_ == "Available");
    let held = if verdict.available { "True" } else { "False" };
    let since = before.and_then(|at| conditions.get(at)).filter(|condition| condition.status == held);
    let condition = Condition {
        type_: "Available".to_owned(),
        status: held.to_owned(),
        reason: Some(verdict.reason.to_owned()),
        message: Some(verdict.message),
        last_transition_time: since.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
    };
    match before.and_then(|at| conditions.get_mut(at)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
    status
}
