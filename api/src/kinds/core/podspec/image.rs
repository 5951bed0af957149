//! Image references, as far as the API looks into them: the tag that decides the pull policy, and paths that only
//! `wherry apply` understands.

use serde_json::json;

use crate::field::{ErrorList, Path};

/// Why a path is no image here.
pub const PATH_REFUSED: &str = "a path can be used only in a manifest given to `wherry apply -f` or `wherry up -f`, \
     which package it; push the component with `wherry push` and name it by reference";

/// Whether an image names a file beside the manifest.
pub fn is_path(image: &str) -> bool {
    ["./", "../", "/", "file:"].iter().any(|start| image.starts_with(start))
}

/// The pull policy of an image for which none is given: `Always` if its tag is `latest`, said or not.
pub fn default_pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// Judges an image.
pub fn validate(image: &str, path: &Path, errors: &mut ErrorList) {
    if image.is_empty() {
        errors.required(path, "");
    } else if is_path(image) {
        errors.invalid(path, &json!(image), PATH_REFUSED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_the_pull_policy() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("localhost:5000/x", "Always"),
            ("localhost:5000/x:v1", "IfNotPresent"),
            ("x@sha256:00", "IfNotPresent"),
            ("x:latest@sha256:00", "Always"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_path_is_refused_with_the_way_out() {
        for image in ["../x.wasm", "./x.wasm", "/x.wasm", "file:x.wasm"] {
            let mut errors = ErrorList::default();
            validate(image, &Path::new("image"), &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts, [format!("image: Invalid value: {image:?}: {PATH_REFUSED}")]);
        }
        let mut errors = ErrorList::default();
        validate("registry.example/x/y:1", &Path::new("image"), &mut errors);
        assert!(errors.is_empty());
    }
}
