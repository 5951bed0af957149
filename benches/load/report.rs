//! What a run saw, as numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Answer;

/// What one client, or all of them, saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Microseconds from asking to the whole answer, of answers below 400.
    took: Vec<u64>,
    bytes: u64,
    /// How many other answers there were, by status; 0: none came.
    failed: BTreeMap<u16, u64>,
}

impl Seen {
    pub(crate) fn add(&mut self, answer: &anyhow::Result<Answer>, took: Duration) {
        match answer {
            Ok(answer) if answer.status < 400 => {
                self.took.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                self.bytes += answer.bytes as u64;
            }
            Ok(answer) => *self.failed.entry(answer.status).or_default() += 1,
            Err(_) => *self.failed.entry(0).or_default() += 1,
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.took.extend(other.took);
        self.bytes += other.bytes;
        for (status, count) in other.failed {
            *self.failed.entry(status).or_default() += count;
        }
    }

    /// As JSON; `over` is how long it all took.
    pub(crate) fn report(mut self, over: Duration) -> Value {
        self.took.sort_unstable();
        let seconds = over.as_secs_f64();
        json!({
            "requests": self.took.len(),
            "seconds": seconds,
            "per_second": self.took.len() as f64 / seconds,
            "bytes_per_answer": self.bytes / (self.took.len() as u64).max(1),
            "p50_ms": self.quantile(0.50),
            "p90_ms": self.quantile(0.90),
            "p99_ms": self.quantile(0.99),
            "max_ms": self.quantile(1.0),
            "failed": self.failed.into_iter().map(|(status, count)| (status.to_string(), count)).collect::<BTreeMap<_, _>>(),
        })
    }

    fn quantile(&self, part: f64) -> Option<f64> {
        let last = self.took.len().checked_sub(1)?;
        let place = (part * last as f64).round() as usize;
        self.took.get(place).map(|micros| *micros as f64 / 1000.0)
    }
}
