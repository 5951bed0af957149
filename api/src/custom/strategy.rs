//! What every custom resource does beyond being stored: defaults and validation by its schema.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Schema;
use crate::field::{ErrorList, Path};
use crate::kinds::tree::split_status;
use crate::object;
use crate::resource::ScalePaths;
use crate::status::ApiError;
use crate::strategy::{Part, Strategy};

/// The behaviour of one version.
#[derive(Debug)]
pub(super) struct Custom {
    schema: Arc<Schema>,
    scale: Option<ScalePaths>,
}

impl Custom {
    pub(super) fn new(schema: Arc<Schema>, scale: Option<ScalePaths>) -> Self {
        Self { schema, scale }
    }

    /// What `/scale` shows must be numbers of replicas.
    fn validate_scale(&self, object: &Value, errors: &mut ErrorList) {
        let Some(scale) = &self.scale else { return };
        for (path, name) in [(&scale.spec_replicas, "specReplicasPath"), (&scale.status_replicas, "statusReplicasPath")]
        {
            let path = path.trim_start_matches('.');
            let Some(value) = object::at(object, path).filter(|value| !value.is_null()) else { continue };
            let field = path.split('.').fold(Path::default(), |parent, part| parent.child(part));
            match value.as_i64() {
                None => errors.invalid(&field, value, &format!("must be an integer, as {name} says")),
                Some(number) if number < 0 => {
                    errors.invalid(&field, &json!(number), "should be a non-negative integer");
                }
                Some(number) if number > i64::from(i32::MAX) => {
                    errors.invalid(&field, &json!(number), "should be less than or equal to 2147483647");
                }
                Some(_) => {}
            }
        }
    }
}

impl Strategy for Custom {
    /// As far as there is room: who writes asks with [`Strategy::try_default`].
    fn default(&self, object: &mut Value) {
        let _ = self.schema.structural().apply_defaults(object);
    }

    fn try_default(&self, object: &mut Value) -> Result<(), ApiError> {
        let grown = self.schema.structural().apply_defaults(object);
        grown.map_err(|error| ApiError::new(413, "RequestEntityTooLarge", error.to_string()))
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        self.schema.validate(object, None, errors);
        self.validate_scale(object, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        if part == Part::Status {
            split_status(new, old, part);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _: Part, errors: &mut ErrorList) {
        self.schema.validate(new, Some(old), errors);
        self.validate_scale(new, errors);
    }
}
