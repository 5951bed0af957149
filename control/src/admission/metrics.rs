//! How long admission takes, with Kubernetes' names and labels: each plugin, each webhook, and each step as a whole.
//!
//! What must stay true: the number of series is bounded; a plugin's histogram is looked up once.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Operation;

/// Seconds, as in Kubernetes; a webhook may take longer than a plugin.
const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Webhooks that are told apart; those that are registered later are counted together.
const WEBHOOKS: usize = 256;

/// Which half of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Admit,
    Validate,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: String,
    operation: &'static str,
    rejected: bool,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Whole {
    operation: &'static str,
    rejected: bool,
    r#type: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The numbers of one server. Clones share them.
#[derive(Clone)]
pub struct Durations {
    plugins: Histograms<Named>,
    webhooks: Histograms<Named>,
    steps: Histograms<Whole>,
    /// Bound: [`WEBHOOKS`].
    known: Arc<Mutex<HashSet<String>>>,
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durations").field("webhooks", &self.known.lock().len()).finish_non_exhaustive()
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            plugins: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            webhooks: Family::new_with_constructor(|| Histogram::new(WEBHOOK_BUCKETS)),
            steps: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            known: Arc::default(),
        }
    }
}

impl Durations {
    pub fn register(&self, registry: &mut Registry) {
        let name = |what: &str| format!("apiserver_admission_{what}_admission_duration_seconds");
        registry.register(name("controller"), "Time of an admission plugin", self.plugins.clone());
        registry.register(name("webhook"), "Time of an admission webhook", self.webhooks.clone());
        registry.register(name("step"), "Time of all of a step of admission", self.steps.clone());
    }

    pub fn step(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let labels = Whole { operation: operation.name(), rejected, r#type: step.name() };
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub fn webhook(&self, name: &str, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let mut known = self.known.lock();
        let told = known.contains(name) || (known.len() < WEBHOOKS && known.insert(name.to_owned()));
        drop(known);
        let name = if told { name } else { "other" }.to_owned();
        let labels = Named { name, operation: operation.name(), rejected, r#type: step.name() };
        self.webhooks.get_or_create(&labels).observe(took.as_secs_f64());
    }

    fn plugin(&self, name: &str, step: Step, operation: Operation, rejected: bool) -> Histogram {
        let labels = Named { name: name.to_owned(), operation: operation.name(), rejected, r#type: step.name() };
        self.plugins.get_or_create(&labels).clone()
    }
}

/// One plugin's histograms, by step, operation and outcome.
#[derive(Debug, Default)]
pub(super) struct Timer([OnceLock<Histogram>; 16]);

impl Timer {
    pub(super) fn observe(
        &self,
        durations: &Durations,
        name: &str,
        step: Step,
        operation: Operation,
        rejected: bool,
        took: Duration,
    ) {
        let operation_index = match operation {
            Operation::Create => 0,
            Operation::Update => 1,
            Operation::Delete => 2,
            Operation::Connect => 3,
        };
        let index = usize::from(step == Step::Validate) * 8 + operation_index * 2 + usize::from(rejected);
        if let Some(cell) = self.0.get(index) {
            let histogram = cell.get_or_init(|| durations.plugin(name, step, operation, rejected));
            histogram.observe(took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_time_is_told_by_kubernetes_names() {
        let (durations, timer, mut registry) = (Durations::default(), Timer::default(), Registry::default());
        durations.register(&mut registry);
        timer.observe(&durations, "Priority", Step::Admit, Operation::Create, false, Duration::from_millis(1));
        timer.observe(&durations, "Priority", Step::Validate, Operation::Delete, true, Duration::from_millis(1));
        timer.observe(&durations, "Priority", Step::Admit, Operation::Connect, false, Duration::from_millis(1));
        timer.observe(&durations, "Priority", Step::Validate, Operation::Create, false, Duration::from_millis(1));
        for number in 0..=WEBHOOKS {
            let name = format!("w{number}.example.com");
            durations.webhook(&name, Step::Validate, Operation::Update, false, Duration::from_millis(1));
        }
        durations.step(Step::Admit, Operation::Create, false, Duration::from_millis(1));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"controller_admission_duration_seconds_count{name="Priority",operation="CREATE",rejected="false",type="admit"} 1"#,
            r#"controller_admission_duration_seconds_count{name="Priority",operation="CONNECT",rejected="false",type="admit"} 1"#,
            r#"controller_admission_duration_seconds_count{name="Priority",operation="CREATE",rejected="false",type="validate"} 1"#,
            r#"controller_admission_duration_seconds_count{name="Priority",operation="DELETE",rejected="true",type="validate"} 1"#,
            r#"webhook_admission_duration_seconds_count{name="w0.example.com",operation="UPDATE",rejected="false",type="validate"} 1"#,
            r#"webhook_admission_duration_seconds_count{name="other",operation="UPDATE",rejected="false",type="validate"} 1"#,
            r#"step_admission_duration_seconds_count{operation="CREATE",rejected="false",type="admit"} 1"#,
        ] {
            assert!(text.contains(&format!("apiserver_admission_{line}")), "{line} is not in\n{text}");
        }
    }
}
