//! How lists, maps and structs merge: what Kubernetes' sources say in comments and struct tags, as one table.
//!
//! `merge.tsv` is the only place to change when a release adds a merge key.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("merge.tsv");

/// Definitions (without their package) that are always replaced as a whole by server-side apply.
const ATOMIC_STRUCTS: [&str; 22] = [
    "ConfigMapKeySelector",
    "CrossVersionObjectReference",
    "EndpointAddress",
    "EndpointPort",
    "LabelSelector",
    "LocalObjectReference",
    "NamedRuleWithOperations",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "ParamKind",
    "ParamRef",
    "ResourceFieldSelector",
    "RoleRef",
    "ScopeSelector",
    "ScopedResourceSelectorRequirement",
    "SecretKeySelector",
    "SecretReference",
    "Subject",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
];

/// How server-side apply tracks the owners of a list or map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Structure {
    /// What the type says: a struct or map by key, a list as a whole.
    #[default]
    ByType,
    /// A list whose items are known by their `keys`.
    ListMap,
    /// A list of scalars without order.
    ListSet,
    Atomic,
}

/// How a field merges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    pub structure: Structure,
    /// Keys of a list map.
    pub keys: Vec<&'static str>,
    /// A strategic merge patch merges the list instead of replacing it.
    pub patch_merge: bool,
    /// A strategic merge patch may list the keys to keep (`$retainKeys`).
    pub retain_keys: bool,
    /// The key by which a strategic merge patch finds an item.
    pub patch_merge_key: Option<&'static str>,
}

impl Merge {
    /// `x-kubernetes-patch-strategy`, or `""`.
    pub fn patch_strategy(&self) -> &'static str {
        match (self.patch_merge, self.retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => "",
        }
    }
}

/// Facts by definition, then by field.
static FACTS: LazyLock<HashMap<&'static str, HashMap<&'static str, Merge>>> = LazyLock::new(|| {
    let mut facts = HashMap::<_, HashMap<_, _>>::new();
    for (definition, field, merge) in TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(parse) {
        facts.entry(definition).or_default().insert(field, merge);
    }
    facts
});

fn parse(line: &'static str) -> Option<(&'static str, &'static str, Merge)> {
    let mut columns = line.split('\t');
    let (definition, field) = (columns.next()?, columns.next()?);
    let structure = match columns.next()? {
        "list map" => Structure::ListMap,
        "list set" => Structure::ListSet,
        "list atomic" | "map atomic" => Structure::Atomic,
        _ => Structure::ByType,
    };
    let keys = columns.next().unwrap_or_default().split(',').filter(|key| !key.is_empty()).collect();
    let strategy = columns.next().unwrap_or_default();
    let merge = Merge {
        structure,
        keys,
        patch_merge: strategy.split(',').any(|s| s == "merge"),
        retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
        patch_merge_key: columns.next().filter(|key| !key.is_empty()),
    };
    Some((definition, field, merge))
}

/// The facts of a definition's field, if it has any.
pub fn merge(definition: &str, field: &str) -> Option<&'static Merge> {
    FACTS.get(definition)?.get(field)
}

/// Whether server-side apply replaces a definition as a whole.
pub fn is_atomic(definition: &str) -> bool {
    let short = definition.rsplit('.').next().unwrap_or(definition);
    ATOMIC_STRUCTS.binary_search(&short).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let rows = TABLE.lines().filter(|l| l.starts_with("io.k8s.")).count();
        assert_eq!(FACTS.values().map(HashMap::len).sum::<usize>(), rows + 1, "every row, and the line of titles");
        let ports = merge("io.k8s.api.core.v1.Container", "ports").unwrap();
        assert_eq!(ports.keys, ["containerPort", "protocol"]);
        assert_eq!((ports.patch_strategy(), ports.patch_merge_key), ("merge", Some("containerPort")));
        assert_eq!(merge("io.k8s.api.core.v1.PodSpec", "volumes").unwrap().patch_strategy(), "merge,retainKeys");
        assert!(is_atomic("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"));
        assert!(ATOMIC_STRUCTS.is_sorted());
    }
}
