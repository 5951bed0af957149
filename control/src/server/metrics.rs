//! `/metrics`: the numbers of requests, as Kubernetes names them, those that parts of the server offer, and the process's.
//!
//! Label values come from the registry and from fixed lists, never from a client's text, so the number of series is
//! bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use super::body::{self, Body};
use super::request;
use crate::admission::Durations;

/// Seconds; from a cached GET to a LIST of everything.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What a request was. `resource` and `subresource` must be names that the server serves, or empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Labels {
    /// As Kubernetes writes it here: `GET`, `LIST`, `POST`, `APPLY`, …
    pub verb: &'static str,
    /// `All`, or empty.
    pub dry_run: &'static str,
    /// `resource`, `namespace`, `cluster`; empty for what is no resource's.
    pub scope: &'static str,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InFlightLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    group: String,
    version: String,
    resource: String,
}

/// What answers: the label `component`.
const COMPONENT: &str = "apiserver";

/// A number that is read when it is asked for.
pub struct Number {
    /// In Prometheus' form, with its unit: `wherry_store_bytes`.
    pub name: &'static str,
    pub help: &'static str,
    /// What the number is of, as the label `resource`; for one alone use [`Number::one`].
    pub read: Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>,
}

impl Number {
    /// A number without labels.
    pub fn one(name: &'static str, help: &'static str, read: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self { name, help, read: Box::new(move || vec![(String::new(), read())]) }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Collector for Number {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (of, value) in (self.read)() {
            if of.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&[("resource", of)])?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// All numbers of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    inflight: Family<InFlightLabels, Gauge<i64, AtomicI64>>,
    watch_events: Family<WatchLabels, Counter>,
    admission: Durations,
}

/// Of a request that was not answered, as Kubernetes has it: its deadline and its client's leave are one there.
const UNANSWERED: u16 = 504;
/// The same of one whose answer has no end.
const NOT_BEGUN: u16 = 0;

/// A request that is counted once, when it is answered or given up.
#[derive(Debug)]
pub struct Counted {
    metrics: Metrics,
    /// What is known of it.
    pub labels: Labels,
    begun: Instant,
    code: Option<u16>,
}

impl Counted {
    /// It was answered.
    pub fn answered(mut self, code: u16) {
        self.code = Some(code);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let labels = std::mem::take(&mut self.labels);
        let endless = labels.verb == "WATCH" || request::lasts(&labels.subresource);
        let code = self.code.unwrap_or(if endless { NOT_BEGUN } else { UNANSWERED });
        self.metrics.observe(labels, code, self.begun.elapsed());
    }
}

/// Counts a request as being served until it is dropped.
#[derive(Debug)]
pub struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// With the numbers of other parts beside the server's and the process's own.
    pub fn new(numbers: Vec<Number>) -> Self {
        Self::with(numbers, |_| {})
    }

    /// The same; `register` adds numbers that keep themselves.
    pub fn with(numbers: Vec<Number>, register: impl FnOnce(&mut Registry)) -> Self {
        let requests = Family::default();
        let durations: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let inflight = Family::<InFlightLabels, Gauge<i64, AtomicI64>>::default();
        let watch_events = Family::<WatchLabels, Counter>::default();
        let admission = Durations::default();
        let mut registry = Registry::default();
        registry.register("apiserver_request", "Requests by what they asked and how they ended", requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to the beginning of the answer",
            durations.clone(),
        );
        registry.register("apiserver_current_inflight_requests", "Requests being served", inflight.clone());
        registry.register("apiserver_watch_events", "Events sent to watches", watch_events.clone());
        admission.register(&mut registry);
        register(&mut registry);
        for number in numbers.into_iter().chain(process()) {
            registry.register_collector(Box::new(number));
        }
        Self { registry: Arc::new(registry), requests, durations, inflight, watch_events, admission }
    }

    /// Counts a request while it is served.
    pub fn start(&self, method: &Method) -> InFlight {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let labels = InFlightLabels { request_kind: if reads { "readOnly" } else { "mutating" } };
        let gauge = self.inflight.get_or_create(&labels).clone();
        gauge.inc();
        InFlight(gauge)
    }

    /// Counts a request when it is answered, or left by its client.
    pub fn begun(&self, labels: Labels) -> Counted {
        Counted { metrics: self.clone(), labels, begun: Instant::now(), code: None }
    }

    /// Counts the events of watches of a kind.
    pub fn watch_events(&self, resource: &Descriptor) -> Counter {
        let labels = WatchLabels {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
        };
        self.watch_events.get_or_create(&labels).clone()
    }

    /// The numbers of admission.
    pub fn admission(&self) -> &Durations {
        &self.admission
    }

    /// Counts a request. A watch's duration is not one, so it is left out of the histogram.
    fn observe(&self, labels: Labels, code: u16, took: Duration) {
        let Labels { verb, dry_run, scope, group, version, resource, subresource } = labels;
        let labels =
            DurationLabels { verb, dry_run, group, version, resource, subresource, scope, component: COMPONENT };
        if verb != "WATCH" {
            self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        }
        let DurationLabels { group, version, resource, subresource, component, .. } = labels;
        let labels = RequestLabels { verb, dry_run, group, version, resource, subresource, scope, component, code };
        self.requests.get_or_create(&labels).inc();
    }

    /// Answers a GET of `/metrics`.
    pub fn respond(&self) -> Result<Response<Body>, ApiError> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).map_err(ApiError::internal)?;
        let mut response = Response::new(body::full(out));
        let media = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, media);
        Ok(response)
    }
}

/// The process's own numbers, named as Prometheus' clients name them.
fn process() -> [Number; 4] {
    [
        Number::one("process_resident_memory_bytes", "Resident memory", || status("VmRSS")),
        Number::one("process_virtual_memory_bytes", "Virtual memory", || status("VmSize")),
        Number::one("process_open_fds", "Open file descriptors", || {
            std::fs::read_dir("/proc/self/fd").map_or(0.0, |entries| count(entries.count()))
        }),
        Number::one("process_threads", "Threads", || {
            std::fs::read_dir("/proc/self/task").map_or(0.0, |entries| count(entries.count()))
        }),
    ]
}

/// A field of `/proc/self/status` in bytes; 0 where there is none.
fn status(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes: usize = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    count(kilobytes.saturating_mul(1024))
}

/// Counts are far below 2^53, where a double is still exact.
#[allow(clippy::cast_precision_loss)]
pub fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn requests_and_numbers_are_scraped() {
        let objects = Number {
            name: "wherry_cache_objects",
            help: "Objects in the cache",
            read: Box::new(|| vec![("pods".to_owned(), 3.0)]),
        };
        let revision = Number::one("wherry_store_revision", "Revision", || 7.0);
        let metrics = Metrics::new(vec![objects, revision]);
        let labels = Labels {
            verb: "LIST",
            scope: "cluster",
            resource: "pods".to_owned(),
            version: "v1".to_owned(),
            ..Labels::default()
        };
        metrics.observe(labels, 200, Duration::from_millis(3));
        let _serving = metrics.start(&Method::GET);
        let body = metrics.respond().unwrap().into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&body).unwrap();
        for line in [
            r#"apiserver_request_total{verb="LIST",dry_run="",group="",version="v1",resource="pods",subresource="",scope="cluster",component="apiserver",code="200"} 1"#,
            r#"apiserver_request_duration_seconds_bucket{le="0.005",verb="LIST",dry_run="",group="",version="v1",resource="pods",subresource="",scope="cluster",component="apiserver"} 1"#,
            r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#,
            r#"wherry_cache_objects{resource="pods"} 3.0"#,
            "wherry_store_revision 7.0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(status("VmRSS") > 0.0);
    }
}
