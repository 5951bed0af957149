//! What plugins have to tell besides yes and no: warnings for the client, annotations for the audit log.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::reinvocation::Reinvocation;

/// Of each sort, for one request; an answer carries fewer bytes of warnings than these may have.
const MOST: usize = 64;

/// All webhooks of a request have this long together, as in Kubernetes.
const PATIENCE: Duration = Duration::from_secs(34);

/// Collected while a request is judged.
#[derive(Debug, Default)]
pub struct Notes {
    told: Mutex<Told>,
    reinvocation: Mutex<Reinvocation>,
    /// When its last webhook must have answered; unknown until the first is asked.
    ends: OnceLock<Instant>,
}

#[derive(Debug, Default)]
struct Told {
    warnings: Vec<String>,
    audit: BTreeMap<String, String>,
}

impl Notes {
    /// Sent to the client as a `Warning` header.
    pub fn warn(&self, text: impl Into<String>) {
        let warnings = &mut self.told.lock().warnings;
        if warnings.len() < MOST {
            warnings.push(text.into());
        }
    }

    /// Written beside the request in the audit log; the last of a key counts.
    pub fn audit(&self, key: impl Into<String>, value: impl Into<String>) {
        let (audit, key) = (&mut self.told.lock().audit, key.into());
        if audit.len() < MOST || audit.contains_key(&key) {
            audit.insert(key, value.into());
        }
    }

    /// How long webhooks may still be asked.
    pub(super) fn time_left(&self) -> Duration {
        let now = Instant::now();
        self.ends.get_or_init(|| now + PATIENCE).saturating_duration_since(now)
    }

    /// Who is to be asked again. Not to be held while anybody is asked.
    pub(super) fn reinvocation(&self) -> MutexGuard<'_, Reinvocation> {
        self.reinvocation.lock()
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().warnings)
    }

    pub fn audit_annotations(&self) -> BTreeMap<String, String> {
        self.told.lock().audit.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_and_warnings_are_told_once() {
        let notes = Notes::default();
        for i in 0..2 * MOST {
            notes.warn(format!("warning {i}"));
            notes.audit(format!("key {i}"), "first");
            notes.audit("key 0", "last");
        }
        assert_eq!(notes.take_warnings().len(), MOST);
        assert!(notes.take_warnings().is_empty());
        let audit = notes.audit_annotations();
        assert_eq!((audit.len(), audit["key 0"].as_str()), (MOST, "last"));
    }
}
