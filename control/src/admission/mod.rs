//! Admission: what may change or refuse a write after it is authorized and decoded, whatever its kind.
//!
//! [`Plugin::mutate`] runs before defaults, [`Plugin::validate`] after validation; a delete is only validated. What is asked
//! of a subresource with a document of its own (an Eviction, a Scale, the options of an exec) is judged as that document. The
//! chain is fixed; a plugin that has no say answers `Ok`.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use self::metrics::Timer;
use self::reinvocation::Reinvocation;
use crate::auth::{Authorizer, UserInfo};
use crate::cache::Cache;
use crate::outbound::Outbound;

mod configured;
mod default_class;
mod limit_ranger;
mod metrics;
mod mountable_secrets;
mod namespace_lifecycle;
mod notes;
mod pod_security;
mod priority;
mod reinvocation;
mod requester;
mod resource_quota;
mod runtime_class;
mod service_account;
mod service_ranges;
pub mod storage_protection;
mod tolerations;

pub use configured::Kinds;
pub use default_class::DefaultClass;
pub use limit_ranger::LimitRanger;
pub use metrics::{Durations, Step};
pub use namespace_lifecycle::NamespaceLifecycle;
pub use notes::Notes;
pub use pod_security::PodSecurity;
pub use priority::Priority;
pub use requester::Requester;
pub use resource_quota::{Charge, ResourceQuota};
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub use service_ranges::ServiceRanges;
pub use storage_protection::StorageProtection;
pub use tolerations::DefaultTolerations;

/// What is about to happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A stream to the object is opened.
    Connect,
}

/// What the client asks for besides, as far as it says so.
#[derive(Clone, Copy, Debug)]
pub enum Options<'a> {
    /// Of a create or an update.
    Write { field_manager: &'a str, field_validation: &'a str },
    /// `DeleteOptions` without their type.
    Delete(&'a Value),
}

/// The write that is judged.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What the path names.
    pub resource: &'a Descriptor,
    /// The kind that the objects have: `resource`, or what the subresource exchanges.
    pub kind: &'a Descriptor,
    /// What the client's path named; another version than `resource` where a webhook or policy asked for that.
    pub requested: &'a Descriptor,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty if it is yet to be generated.
    pub name: &'a str,
    pub user: &'a UserInfo,
    pub operation: Operation,
    pub dry_run: bool,
    pub options: Options<'a>,
    /// What an update replaces, while the new object is being changed.
    pub old: Option<&'a Value>,
    /// For what a plugin tells besides its verdict.
    pub notes: &'a Notes,
}

impl Request<'_> {
    /// Whether the objects are of the resource's own kind.
    fn is_whole(&self) -> bool {
        std::ptr::eq(self.kind, self.resource)
    }

    /// Whether this is the creation of such an object.
    fn creates(&self, group: &str, plural: &str) -> bool {
        self.operation == Operation::Create && self.subresource.is_empty() && self.resource.is(group, plural)
    }

    /// 403 about the object.
    fn forbidden(&self, why: impl fmt::Display) -> ApiError {
        ApiError::forbidden(self.resource, self.name, why)
    }
}

/// One admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync + fmt::Debug {
    /// As Kubernetes calls it.
    fn name(&self) -> &'static str;

    /// May change the object that is about to be written; it has not been defaulted yet.
    async fn mutate(&self, _request: &Request<'_>, _object: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Judges the finished object (`None`: a delete) and what it replaces (`None`: a create).
    async fn validate(
        &self,
        _request: &Request<'_>,
        _new: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}

/// All plugins, in order.
#[derive(Clone, Debug)]
pub struct Chain {
    plugins: Arc<[(Box<dyn Plugin>, Timer)]>,
    durations: Durations,
}

impl Chain {
    /// What every server has.
    fn standard(cache: &Cache) -> Vec<Box<dyn Plugin>> {
        vec![
            Box::new(NamespaceLifecycle::new(cache.clone())),
            Box::new(LimitRanger::new(cache.clone())),
            Box::new(ServiceAccount::new(cache.clone())),
            Box::new(Priority::new(cache.clone())),
            Box::new(DefaultTolerations),
            Box::new(Requester),
            Box::new(RuntimeClass::new(cache.clone())),
            Box::new(DefaultClass::storage(cache.clone())),
            Box::new(DefaultClass::ingress(cache.clone())),
            Box::new(StorageProtection),
            Box::new(PodSecurity::new(cache.clone())),
        ]
    }

    /// What every server has, then what is registered with it.
    pub fn configured(
        cache: &Cache,
        outbound: &Outbound,
        authorizer: &Arc<dyn Authorizer>,
        kinds: Kinds,
        ranges: ServiceRanges,
        durations: Durations,
    ) -> Self {
        let mut plugins = Self::standard(cache);
        plugins.push(Box::new(ranges));
        plugins.extend(configured::plugins(cache, outbound, authorizer, kinds, &durations));
        Self { plugins: plugins.into_iter().map(|plugin| (plugin, Timer::default())).collect(), durations }
    }

    pub async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        let began = Instant::now();
        *request.notes.reinvocation() = Reinvocation::default();
        let answer = self.rounds(request, object).await;
        self.durations.step(Step::Admit, request.operation, answer.is_err(), began.elapsed());
        answer
    }

    async fn rounds(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        loop {
            for (plugin, timer) in self.plugins.iter() {
                let start = Instant::now();
                let answer = plugin.mutate(request, object).await;
                let (rejected, took) = (answer.is_err(), start.elapsed());
                timer.observe(&self.durations, plugin.name(), Step::Admit, request.operation, rejected, took);
                answer?;
            }
            if !request.notes.reinvocation().again() {
                return Ok(());
            }
        }
    }

    pub async fn validate(
        &self,
        request: &Request<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (operation, began) = (request.operation, Instant::now());
        let mut answer = Ok(());
        for (plugin, timer) in self.plugins.iter() {
            let start = Instant::now();
            answer = plugin.validate(request, new, old).await;
            let (rejected, took) = (answer.is_err(), start.elapsed());
            timer.observe(&self.durations, plugin.name(), Step::Validate, operation, rejected, took);
            if rejected {
                break;
            }
        }
        self.durations.step(Step::Validate, operation, answer.is_err(), began.elapsed());
        answer
    }
}
