//! ClusterRole: rules everywhere, or in the namespaces of the RoleBindings that name it. With an aggregation rule its rules
//! are those of other ClusterRoles, and a controller writes them.

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::Value;

use super::{role, rules};
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::cells;
use crate::kinds::tree::{list, some};
use crate::resource::Descriptor;
use crate::strategy::{NameRule, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ClusterRole>()
        .columns(vec![cells::name(), role::created()])
        .create_on_update()
        .no_generation()
        .strategy(ClusterRoleStrategy)
}

#[derive(Debug)]
struct ClusterRoleStrategy;

impl Strategy for ClusterRoleStrategy {
    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        rules::validate(object, false, errors);
        let Some(aggregation) = some(object, "/aggregationRule") else { return };
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = list(aggregation, "/clusterRoleSelectors");
        if selectors.is_empty() {
            errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (index, selector) in selectors.iter().enumerate() {
            validate_selector(selector, &path.index(index), errors);
        }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn an_aggregation_selects_something() {
        let judge = |rule: Value| complaints(|e| ClusterRoleStrategy.validate(&json!({"aggregationRule": rule}), e));
        assert_eq!(
            judge(json!({})),
            ["aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
              aggregationRule is non-nil"]
        );
        assert!(judge(json!({"clusterRoleSelectors": [{"matchLabels": {"a/b": "true"}}]})).is_empty());
        assert_eq!(judge(json!({"clusterRoleSelectors": [{"matchLabels": {"a/b": "x y"}}]})).len(), 1);
    }
}
