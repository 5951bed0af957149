//! Kinds that are stored and judged and of which nothing comes: who creates such an object is told so. A kind's descriptor says
//! it, and says it no longer with the change that makes something act on it.

use super::Descriptor;

/// Why nothing comes of a kind's objects, where people would expect that something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// What acts on them in Kubernetes is not there yet.
    Yet,
    /// As in Kubernetes, a controller acts on them that somebody has to install.
    Alone,
}

impl Descriptor {
    /// Who creates an object is warned that nothing comes of it.
    #[must_use]
    pub fn idle(mut self, why: Idle) -> Self {
        self.idle = Some(why);
        self
    }

    /// What who creates an object is warned of because of its kind alone.
    pub fn idle_warning(&self) -> Option<String> {
        let kind = &self.kind;
        self.idle.map(|why| match why {
            Idle::Yet => format!("nothing acts on {kind} yet: it is stored only (docs/conformance.md)"),
            Idle::Alone => {
                format!("nothing acts on {kind} unless a controller for it is installed (docs/conformance.md)")
            }
        })
    }
}
