//! The schema of one version: as it treats objects, and as OpenAPI shows it.

use serde_json::Value;

use crate::cel::rules::Rules;
use crate::field::{ErrorList, Path};
use crate::schema::structural::{self, Structural, publish};

/// The schema of one version of a custom resource.
#[derive(Debug)]
pub struct Schema {
    structural: Structural,
    /// `x-kubernetes-validations`.
    rules: Option<Rules>,
    /// As the definition has it; `None`: there is none, and anything is kept.
    written: Option<Value>,
}

impl Schema {
    /// Reads a schema that validation has accepted.
    pub(super) fn parse(written: Option<&Value>) -> Self {
        let structural = match written {
            Some(schema) => structural::parse(schema, &Path::default(), &mut ErrorList::default()),
            None => Structural { preserve_unknown_fields: true, ..Structural::default() },
        };
        let rules = Rules::compile(&structural, &Path::default(), &mut ErrorList::default());
        Self { structural, rules, written: written.cloned() }
    }

    pub fn structural(&self) -> &Structural {
        &self.structural
    }

    /// Judges an object, and what it does to `old`.
    pub(super) fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
        let mut found = ErrorList::default();
        match old {
            None => self.structural.validate(object, &mut found),
            Some(old) => self.structural.validate_update(object, old, &mut found),
        }
        // A rule counts on the types that the schema gives.
        if let Some(rules) = self.rules.as_ref().filter(|_| found.is_empty()) {
            rules.validate(object, old, &mut found);
        }
        (&found).into_iter().cloned().for_each(|error| errors.push(error));
    }

    /// Removes the fields that the schema does not know, and returns their paths (`spec.a[0].b`).
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        self.structural.prune(object)
    }

    /// The definition as OpenAPI shows it, without `x-kubernetes-group-version-kind`.
    pub fn published(&self, version: publish::Version) -> Value {
        publish::definition(self.written.as_ref(), version)
    }
}
