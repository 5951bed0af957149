//! The schema of one version: as it treats objects, and as OpenAPI shows it.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::schema::structural::{self, Structural, publish};

/// The schema of one version of a custom resource.
#[derive(Debug)]
pub struct Schema {
    structural: Structural,
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
        Self { structural, written: written.cloned() }
    }

    pub fn structural(&self) -> &Structural {
        &self.structural
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
