//! Which mutating webhooks and policies are asked once more because the object was changed after them
//! (`reinvocationPolicy: IfNeeded`), and whether the whole chain runs again.
//!
//! As in Kubernetes: when a registered one has changed the object, all plugins run a second time, so that those built in see what was
//! added; of those registered only those run again that want to and that the object was changed after. What must stay true:
//! there is no third time.

use std::collections::BTreeSet;

use serde_json::Value;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Policies,
    Webhooks,
}

/// Those of one sort.
#[derive(Debug, Default)]
struct Asked {
    /// Who wants to be asked again and has seen the last change.
    content: Vec<String>,
    due: BTreeSet<String>,
    /// The object as they left it.
    left: Option<Value>,
}

impl Asked {
    /// The object was changed after all that have been asked.
    fn outdate(&mut self) {
        self.due.extend(self.content.drain(..));
    }
}

/// What is known of one write.
#[derive(Debug, Default)]
pub(super) struct Reinvocation {
    second: bool,
    changed: bool,
    policies: Asked,
    webhooks: Asked,
}

impl Reinvocation {
    /// Whether the chain is to run again.
    pub(super) fn again(&mut self) -> bool {
        let again = self.changed && !self.second;
        self.second |= again;
        again
    }

    /// How often the chain has run before, as audit annotations count it.
    pub(super) fn round(&self) -> usize {
        usize::from(self.second)
    }

    fn of(&mut self, sort: Sort) -> &mut Asked {
        match sort {
            Sort::Policies => &mut self.policies,
            Sort::Webhooks => &mut self.webhooks,
        }
    }

    /// Before those of a sort are asked about the object.
    pub(super) fn enter(&mut self, sort: Sort, object: &Value) {
        let second = self.second;
        let asked = self.of(sort);
        if second && asked.left.as_ref() != Some(object) {
            asked.outdate();
        }
    }

    /// Whether one is to be asked in this round.
    pub(super) fn is_due(&mut self, sort: Sort, id: &str) -> bool {
        !self.second || self.of(sort).due.contains(id)
    }

    /// One has been asked; `again`: it wants to be, if need be.
    pub(super) fn asked(&mut self, sort: Sort, id: String, again: bool, changed: bool) {
        self.changed |= changed;
        let asked = self.of(sort);
        if changed {
            asked.outdate();
        }
        if again {
            asked.content.push(id);
        }
    }

    /// After those of a sort have been asked.
    pub(super) fn leave(&mut self, sort: Sort, object: &Value) {
        self.of(sort).left = Some(object.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_wants_to_is_asked_again_if_the_object_was_changed_after_them() {
        let mut state = Reinvocation::default();
        let (before, after) = (json!({"a": 1}), json!({"a": 2}));
        state.enter(Sort::Webhooks, &before);
        for (id, again, changed) in [("first", true, false), ("never", false, false), ("changes", true, true)] {
            assert!(state.is_due(Sort::Webhooks, id));
            state.asked(Sort::Webhooks, id.to_owned(), again, changed);
        }
        state.leave(Sort::Webhooks, &after);
        assert!(state.again());
        state.enter(Sort::Webhooks, &after);
        let due: Vec<_> = ["first", "never", "changes"].map(|id| state.is_due(Sort::Webhooks, id)).into();
        assert_eq!(due, [true, false, false]);
        assert!(!state.again(), "there is no third round");
    }

    #[test]
    fn who_left_the_object_otherwise_than_it_comes_back_is_asked_again() {
        let mut state = Reinvocation::default();
        state.asked(Sort::Policies, "p".to_owned(), true, false);
        state.leave(Sort::Policies, &json!(1));
        state.asked(Sort::Webhooks, "w".to_owned(), false, true);
        assert!(state.again());
        state.enter(Sort::Policies, &json!(2));
        assert!(state.is_due(Sort::Policies, "p"));
        assert!(!Reinvocation::default().again(), "nothing changed");
    }
}
