//! Reading a manifest: which kind of image it is (design: "Images"), and which platform of an index to take.

use std::collections::BTreeMap;

use oci_distribution::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use serde::Deserialize;

use super::ImageConfig;

/// Media types that manifests are asked for in.
pub const ACCEPTED: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Config of a CNCF Wasm artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Its layer.
pub const WASM_LAYER: &str = "application/wasm";

/// What a manifest turned out to be.
#[derive(Debug)]
pub enum Form {
    /// CNCF Wasm artifact: one layer that is the component or module.
    Artifact { layer: OciDescriptor },
    /// Docker-style Wasm image: layers of files, the entrypoint names the `.wasm`.
    Files { layers: Vec<OciDescriptor>, config: ImageConfig },
    /// A Linux image.
    Native { config: ImageConfig },
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is not one: {0}")]
    Parse(serde_json::Error),
    #[error("the image's config is not one: {0}")]
    Config(serde_json::Error),
    #[error("a Wasm artifact has one layer of type {WASM_LAYER}, this one has {}", types(.0))]
    Layers(Vec<String>),
    #[error("the index has no entry for wasm or {0}; it has {1}")]
    Platform(String, String),
    #[error("layers of type {0} are not supported by this version; push the component with `wherry push`")]
    OldForm(String),
}

fn types(layers: &[String]) -> String {
    if layers.is_empty() { "none".to_owned() } else { layers.join(", ") }
}

/// Parses a manifest or an index.
pub fn parse(bytes: &[u8]) -> Result<OciManifest, ManifestError> {
    serde_json::from_slice(bytes).map_err(ManifestError::Parse)
}

/// The digest of an index's entry for this machine: `wasm` first, then `linux/ARCH`.
pub fn choose(index: &oci_distribution::manifest::OciImageIndex) -> Result<String, ManifestError> {
    let native = format!("linux/{}", architecture());
    let name = |entry: &oci_distribution::manifest::ImageIndexEntry| {
        entry.platform.as_ref().map_or_else(|| "unknown".to_owned(), |p| format!("{}/{}", p.os, p.architecture))
    };
    let find = |wanted: &dyn Fn(&str) -> bool| index.manifests.iter().find(|entry| wanted(&name(entry)));
    find(&|platform| platform.ends_with("/wasm"))
        .or_else(|| find(&|platform| platform == native))
        .map(|entry| entry.digest.clone())
        .ok_or_else(|| {
            ManifestError::Platform(native.clone(), index.manifests.iter().map(name).collect::<Vec<_>>().join(", "))
        })
}

/// This machine's architecture in OCI's (Go's) words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Deserialize, Default)]
struct ConfigFile {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<Run>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// Whether a manifest is a CNCF artifact, so that its config need not be read.
pub fn is_artifact(manifest: &OciImageManifest) -> bool {
    manifest.config.media_type == WASM_CONFIG
}

/// All that an image is made of: its config and its layers.
pub fn blobs(manifest: &OciImageManifest) -> impl Iterator<Item = &OciDescriptor> {
    [&manifest.config].into_iter().chain(&manifest.layers)
}

/// Bytes of a blob, as its manifest says; more than there can be, if that is no number of bytes.
pub fn size(blob: &OciDescriptor) -> u64 {
    u64::try_from(blob.size).unwrap_or(u64::MAX)
}

/// Bytes of blobs together.
pub fn total<'a>(blobs: impl IntoIterator<Item = &'a OciDescriptor>) -> u64 {
    blobs.into_iter().fold(0, |sum, blob| sum.saturating_add(size(blob)))
}

/// Tells the form from the manifest and its config.
pub fn form(manifest: &OciImageManifest, config: &[u8]) -> Result<Form, ManifestError> {
    if is_artifact(manifest) {
        return match manifest.layers.as_slice() {
            [layer] if layer.media_type == WASM_LAYER => Ok(Form::Artifact { layer: layer.clone() }),
            layers => Err(ManifestError::Layers(layers.iter().map(|layer| layer.media_type.clone()).collect())),
        };
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| layer.media_type.contains("wasm")) {
        return Err(ManifestError::OldForm(layer.media_type.clone()));
    }
    let file: ConfigFile = serde_json::from_slice(config).map_err(ManifestError::Config)?;
    let wasm = file.architecture == "wasm"
        || matches!(file.os.as_str(), "wasi" | "wasip1" | "wasip2")
        || says_compat(manifest.annotations.as_ref());
    let config = image_config(file.config.unwrap_or_default());
    Ok(if wasm { Form::Files { layers: manifest.layers.clone(), config } } else { Form::Native { config } })
}

fn says_compat(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations
        .and_then(|all| all.get("module.wasm.image/variant"))
        .is_some_and(|variant| variant == "compat" || variant == "compat-smart")
}

fn image_config(run: Run) -> ImageConfig {
    let env = run.env.unwrap_or_default();
    ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: env.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        working_dir: run.working_dir.filter(|dir| !dir.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(config: &str, layers: &[&str]) -> OciImageManifest {
        let layers: Vec<_> = layers.iter().map(|m| json!({"mediaType": m, "digest": "sha256:1", "size": 1})).collect();
        serde_json::from_value(json!({"schemaVersion": 2, "config": {"mediaType": config, "digest": "sha256:0", "size": 1}, "layers": layers})).unwrap()
    }

    const OCI: &str = "application/vnd.oci.image.config.v1+json";
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    #[test]
    fn each_form_is_recognised_by_what_the_manifest_says() {
        assert!(matches!(form(&manifest(WASM_CONFIG, &[WASM_LAYER]), b"{}"), Ok(Form::Artifact { .. })));
        let wasm = br#"{"os":"wasi","architecture":"wasm","config":{"Entrypoint":["/app.wasm"],"Env":["A=b=c"]}}"#;
        let Ok(Form::Files { config, .. }) = form(&manifest(OCI, &[TAR]), wasm) else { panic!("not files") };
        assert_eq!(
            (config.entrypoint, config.env),
            (vec!["/app.wasm".to_owned()], vec![("A".to_owned(), "b=c".to_owned())])
        );
        let linux = br#"{"os":"linux","architecture":"amd64","config":{}}"#;
        assert!(matches!(form(&manifest(OCI, &[TAR]), linux), Ok(Form::Native { .. })));
    }

    #[test]
    fn an_artifact_with_two_layers_is_refused() {
        assert!(matches!(
            form(&manifest(WASM_CONFIG, &[WASM_LAYER, WASM_LAYER]), b"{}"),
            Err(ManifestError::Layers(types)) if types.len() == 2
        ));
    }

    #[test]
    fn wasm_is_chosen_before_linux() {
        let entry = |os: &str, arch: &str, digest: &str| json!({"mediaType": "m", "digest": digest, "size": 1, "platform": {"os": os, "architecture": arch}});
        let index =
            json!({"schemaVersion": 2, "manifests": [entry("linux", architecture(), "l"), entry("wasi", "wasm", "w")]});
        assert_eq!(choose(&serde_json::from_value(index).unwrap()).unwrap(), "w");
        let none = json!({"schemaVersion": 2, "manifests": [entry("windows", "amd64", "x")]});
        assert!(choose(&serde_json::from_value(none).unwrap()).unwrap_err().to_string().contains("windows/amd64"));
    }
}
