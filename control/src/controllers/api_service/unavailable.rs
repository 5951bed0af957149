//! Which APIServices do not answer, and how often one stopped, with the names and labels of Kubernetes' aggregator.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

/// One per process; clones share the numbers. Bound: the APIServices that there are.
#[derive(Clone, Debug, Default)]
pub struct Unavailable(Arc<Mutex<BTreeMap<String, Seen>>>);

/// What is known of one APIService.
#[derive(Debug, Default)]
struct Seen {
    unavailable: bool,
    /// How often it stopped being available, by the reason.
    times: BTreeMap<&'static str, u32>,
}

impl Unavailable {
    /// Notes how an APIService stands.
    pub fn is(&self, name: &str, unavailable: bool) {
        self.0.lock().entry(name.to_owned()).or_default().unavailable = unavailable;
    }

    /// Counts that one is available no more.
    pub fn fell(&self, name: &str, reason: &'static str) {
        *self.0.lock().entry(name.to_owned()).or_default().times.entry(reason).or_default() += 1;
    }

    pub fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

impl Collector for Unavailable {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        const GAUGE: &str = "aggregator_unavailable_apiservice";
        // Not a counter's name, which would be the gauge's.
        const COUNTER: &str = "aggregator_unavailable_apiservice_total";
        let all = self.0.lock();
        let mut gauge =
            encoder.encode_descriptor(GAUGE, "APIServices that are unavailable", None, MetricType::Gauge)?;
        for (name, seen) in all.iter() {
            gauge.encode_family(&[("name", name.as_str())])?.encode_gauge(&i64::from(seen.unavailable))?;
        }
        let help = "How often APIServices became unavailable, by the reason";
        let mut counter = encoder.encode_descriptor(COUNTER, help, None, MetricType::Unknown)?;
        for (name, seen) in all.iter() {
            for (reason, times) in &seen.times {
                let labels = [("name", name.as_str()), ("reason", *reason)];
                counter.encode_family(&labels)?.encode_gauge(&i64::from(*times))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn each_service_is_told_of_while_it_is_there() {
        let (numbers, mut registry) = (Unavailable::default(), Registry::default());
        registry.register_collector(Box::new(numbers.clone()));
        numbers.is("v1.", false);
        numbers.is("v1.a.example", true);
        numbers.fell("v1.a.example", "MissingEndpoints");
        numbers.is("v1.b.example", true);
        numbers.forget("v1.b.example");
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE aggregator_unavailable_apiservice gauge",
                "aggregator_unavailable_apiservice{name=\"v1.\"} 0",
                "aggregator_unavailable_apiservice{name=\"v1.a.example\"} 1",
                "# TYPE aggregator_unavailable_apiservice_total unknown",
                "aggregator_unavailable_apiservice_total{name=\"v1.a.example\",reason=\"MissingEndpoints\"} 1",
                "# EOF",
            ]
        );
    }
}
