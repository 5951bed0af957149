//! The audit log: who asked what of this server, when, from where, and what became of it, as a policy says.
//!
//! [`Audit`] judges a request when it arrives; the pipeline tells the [`Record`] what it learns. What must stay true: without a
//! policy nothing of this runs; an answer is sent after its event is in the file, or the loss is counted; nobody gets around its
//! event by leaving before it; one thread writes.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

pub(crate) use self::answer::{OfAnother, Unanswered};
use self::event::{Arrival, Facts};
use self::log::{Log, LogError};
pub use self::policy::{Level, Stage};
use self::policy::{Policy, PolicyError};
pub use self::rotation::Limits;
use crate::auth::{Attributes, UserInfo};
use crate::server::listen::Connection;
use crate::uuid;

mod answer;
mod event;
mod log;
mod policy;
mod rotation;

/// What happens to a request whose event cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It goes on, and the loss is counted.
    #[default]
    Blocking,
    /// It is refused, if its event is that it was received.
    BlockingStrict,
}

/// What the audit log is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// An `audit.k8s.io/v1` Policy.
    pub policy: PathBuf,
    /// `-`: standard output.
    pub log: PathBuf,
    pub limits: Limits,
    pub mode: Mode,
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the audit log {path} cannot be opened")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Where a request comes from; an extension of requests that come over the network.
#[derive(Clone, Debug)]
pub struct Origin {
    pub address: IpAddr,
    /// Whose credentials it has, if it acts as somebody else.
    pub authenticated: Option<UserInfo>,
    /// `None`: this process.
    pub(crate) connection: Option<Arc<Connection>>,
}

impl Default for Origin {
    /// This process.
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), authenticated: None, connection: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabel {
    plugin: &'static str,
}

/// Kubernetes' numbers about its audit log.
#[derive(Clone, Debug, Default)]
struct Counts {
    events: Counter,
    levels: Family<LevelLabel, Counter>,
    errors: Family<PluginLabel, Counter>,
    rejected: Counter,
}

struct Inner {
    policy: Policy,
    log: Log,
    mode: Mode,
    counts: Counts,
    /// Events that are being written, also those for which nobody waits any more.
    late: TaskTracker,
}

/// The audit log of one server. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

impl Audit {
    /// Reads the policy and opens the log. Blocks.
    pub fn open(config: &Config) -> Result<Self, AuditError> {
        let policy = Policy::read(&config.policy)?;
        Self::start(policy, &config.log, config.limits, config.mode)
    }

    fn start(policy: Policy, path: &Path, limits: Limits, mode: Mode) -> Result<Self, AuditError> {
        let log = Log::open(path, limits).map_err(|source| AuditError::Open { path: path.to_owned(), source })?;
        let inner = Inner { policy, log, mode, counts: Counts::default(), late: TaskTracker::new() };
        Ok(Self(Arc::new(inner)))
    }

    /// Makes the numbers readable at `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let Counts { events, levels, errors, rejected } = self.0.counts.clone();
        registry.register("apiserver_audit_event", "Audit events that were made", events);
        registry.register("apiserver_audit_level", "Requests by the level that the policy gave them", levels);
        registry.register("apiserver_audit_error", "Audit events that were lost", errors);
        registry.register("apiserver_audit_requests_rejected", "Requests that could not be audited", rejected);
    }

    /// Begins the record of a request, if it is to have one. `user` is whom it acts as, nobody if that is not known.
    pub(crate) fn begin(
        &self,
        id: &str,
        attributes: &Attributes,
        request: &Parts,
        user: Option<&UserInfo>,
    ) -> Option<Record> {
        let origin = request.extensions.get::<Origin>().cloned().unwrap_or_default();
        let (own, acts_as) = match &origin.authenticated {
            Some(own) => (Some(own), user),
            None => (user, None),
        };
        let verdict = self.0.policy.judge(own, attributes);
        self.0.counts.levels.get_or_create(&LevelLabel { level: verdict.level.name() }).inc();
        if verdict.level == Level::None {
            return None;
        }
        let arrival = Arrival {
            id: id.to_owned(),
            uri: request.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            verb: attributes.verb.clone(),
            user: event::user(own.unwrap_or(&UserInfo::default())),
            impersonated: acts_as.map(event::user),
            source_ips: event::source_ips(&request.headers, origin.address),
            user_agent: event::agent(&request.headers),
            received: Timestamp::now(),
        };
        Some(Record { audit: self.clone(), facts: Arc::new(Facts::new(verdict, arrival, attributes)) })
    }

    /// Ends the log after what has been recorded. Nothing is recorded afterwards.
    pub async fn close(&self) {
        self.0.late.close();
        self.0.late.wait().await;
        self.0.log.close().await;
    }

    /// Writes the event of a stage, also if who waits for that leaves.
    async fn write(&self, facts: &Facts, stage: Stage) -> Result<(), LogError> {
        match self.begin_write(facts, stage) {
            Some(written) => written.await.unwrap_or(Err(LogError::Closed)),
            None => Ok(()),
        }
    }

    /// Begins to. `None`: there is no such event.
    fn begin_write(&self, facts: &Facts, stage: Stage) -> Option<JoinHandle<Result<(), LogError>>> {
        let runtime = Handle::try_current().ok()?;
        if facts.verdict.omit_stages.contains(&stage) {
            return None;
        }
        self.0.counts.events.inc();
        let (audit, id, line) = (self.clone(), facts.id().to_owned(), facts.line(stage));
        let write = async move {
            let written = match line {
                Ok(line) => audit.0.log.write(line).await,
                Err(error) => Err(LogError::Write(Arc::new(error.into()))),
            };
            if let Err(error) = &written {
                audit.0.counts.errors.get_or_create(&PluginLabel { plugin: "log" }).inc();
                tracing::debug!(error = error as &dyn std::error::Error, id, "an audit event is lost");
            }
            written
        };
        Some(self.0.late.spawn_on(write, &runtime))
    }
}

/// The record of one request. Clones are of the same.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    audit: Audit,
    facts: Arc<Facts>,
}

impl Record {
    pub(crate) fn level(&self) -> Level {
        self.facts.verdict.level
    }

    /// The authorizer's yes, and why.
    pub(crate) fn allowed(&self, reason: String) {
        self.decided("allow", reason);
    }

    pub(crate) fn forbidden(&self, reason: String) {
        self.decided("forbid", reason);
    }

    fn decided(&self, decision: &str, reason: String) {
        let pairs = [("decision", decision.to_owned()), ("reason", reason)];
        self.annotate(pairs.map(|(key, value)| (format!("authorization.k8s.io/{key}"), value)));
    }

    pub(crate) fn annotate(&self, annotations: impl IntoIterator<Item = (String, String)>) {
        self.facts.annotate(annotations);
    }

    /// What the client sent, decoded.
    pub(crate) fn requested(&self, object: &Value) {
        self.facts.requested(object);
    }

    /// The name that the server generates for what is created.
    pub(crate) fn named(&self, name: &str) {
        self.facts.named(name);
    }

    /// Says that the request is here. Error: the mode forbids to go on without having said so.
    pub(crate) async fn received(&self) -> Result<(), LogError> {
        let written = self.audit.write(&self.facts, Stage::RequestReceived).await;
        if self.audit.0.mode == Mode::BlockingStrict && written.is_err() {
            self.audit.0.counts.rejected.inc();
            return written;
        }
        Ok(())
    }

    /// The request's handler panicked; there is no other answer.
    pub(crate) async fn panicked(&self, what: &str) {
        self.facts.failed("InternalError", format!("APIServer panic'd: {what}"), 500);
        let _ = self.audit.write(&self.facts, Stage::Panic).await;
    }

    /// The request was refused because nobody knows who sends it.
    pub(crate) async fn unauthenticated(&self, message: String) {
        self.facts.failed("Unauthorized", message, 401);
        let _ = self.audit.write(&self.facts, Stage::ResponseStarted).await;
    }
}

/// What a request is called in the log and in its answer: as its client says, or anew.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let asked = headers.get("audit-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    let fits = !asked.is_empty() && asked.len() <= ID && asked.chars().all(usual);
    if fits { asked.to_owned() } else { uuid::random() }
}

/// Bytes of an id that a client chooses.
const ID: usize = 64;

/// What a request that is not believed showed, in Kubernetes' words.
pub(crate) fn attempted(headers: &HeaderMap, certificate: bool) -> String {
    let text = headers.get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default().trim();
    let scheme = text.split_once(' ').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let scheme = scheme.filter(|scheme| matches!(scheme.as_str(), "basic" | "bearer"));
    let methods: Vec<String> = scheme.into_iter().chain(certificate.then(|| "x509".to_owned())).collect();
    if methods.is_empty() {
        return "Authentication failed, no credentials provided".to_owned();
    }
    format!("Authentication failed, attempted: {}", methods.join(", "))
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use crate::server::metrics::Metrics;

    impl Audit {
        /// Makes metrics with this log's numbers.
        pub(crate) fn register_in(&self, metrics: &mut Metrics) {
            *metrics = Metrics::with(Vec::new(), |registry| self.register(registry));
        }
    }

    /// An audit log into `path` by a policy in YAML without its head. What the server itself does is not recorded.
    pub(crate) fn audit(policy: &str, path: &Path, mode: Mode) -> Audit {
        let policy = policy.replacen("rules: [", "rules: [{level: None, users: ['system:apiserver']}, ", 1);
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}");
        let limits = Limits { size: 1 << 30, backups: 0, age: std::time::Duration::ZERO };
        Audit::start(Policy::parse(&text, path).unwrap(), path, limits, mode).unwrap()
    }
}
