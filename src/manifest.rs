//! Manifests from files, folders, URLs and standard input: parsed with line and column, and images that are paths found.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use wherry_api::decode::{self, Decoded};
use wherry_runtime::fault;

/// How long a manifest may take to come from a URL, and how large it may be.
const FETCH: Duration = Duration::from_secs(60);
const LARGEST: usize = 32 << 20;

/// One object of a manifest and where it came from.
#[derive(Clone, Debug)]
pub struct Document {
    pub object: Value,
    /// For messages: the file's name, and the document's number in it.
    pub origin: String,
    /// What paths in it are relative to; none for a manifest from a URL, which may name no files of this machine.
    pub folder: Option<PathBuf>,
}

impl Document {
    pub fn api_version(&self) -> &str {
        self.object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.object.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    fn metadata(&self, field: &str) -> Option<&str> {
        self.object.get("metadata")?.get(field)?.as_str()
    }

    pub fn name(&self) -> &str {
        self.metadata("name").unwrap_or_default()
    }

    /// What is said of it in front of an error.
    pub fn described(&self) -> String {
        let name = match (self.name(), self.metadata("generateName").unwrap_or_default()) {
            ("", "") => "without a name".to_owned(),
            ("", prefix) => format!("{prefix}…"),
            (name, _) => name.to_owned(),
        };
        format!("{} {name} ({})", self.kind(), self.origin)
    }

    /// Its name. Error: it has none, which `action` needs.
    pub fn needed_name(&self, action: &str) -> anyhow::Result<&str> {
        match (self.name(), self.metadata("generateName")) {
            ("", Some(_)) => bail!(
                "metadata.generateName gives a new name to each creation, so there is nothing to {action}: set metadata.name, or \
                 use `kubectl create`"
            ),
            ("", None) => bail!("metadata.name is needed to {action} an object"),
            (name, _) => Ok(name),
        }
    }

    pub fn namespace(&self) -> Option<&str> {
        self.metadata("namespace")
    }
}

/// Reads everything that `-f` names, in order: a file, a folder's `.yaml`, `.yml` and `.json` files by name, a URL, or `-`.
pub async fn read(sources: &[String]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for source in sources {
        if source.starts_with("http://") || source.starts_with("https://") {
            let text = fetch(source).await.with_context(|| format!("{source} cannot be fetched"))?;
            documents.extend(parse(&text, source, None)?);
            continue;
        }
        if source == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input is not UTF-8 text")?;
            documents.extend(parse(&text, "standard input", Some(&std::env::current_dir()?))?);
            continue;
        }
        for path in files(Path::new(source))? {
            let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))?;
            let folder = path.parent().unwrap_or(Path::new(""));
            documents.extend(parse(&text, &path.display().to_string(), Some(folder))?);
        }
    }
    if documents.is_empty() {
        bail!("there are no objects in {}", sources.join(", "));
    }
    Ok(documents)
}

/// The text at a URL.
async fn fetch(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().timeout(FETCH).user_agent("wherry").build()?;
    let failed = |error: reqwest::Error| anyhow!(fault::told(&error));
    let mut response = client.get(url).send().await.map_err(failed)?;
    if !response.status().is_success() {
        bail!("the server answered {}", response.status());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST {
            bail!("it is larger than {} MiB", LARGEST >> 20);
        }
    }
    String::from_utf8(bytes).context("it is not UTF-8 text")
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let metadata = fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found: Vec<PathBuf> = fs::read_dir(path)
        .with_context(|| format!("{} cannot be read", path.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"))
        .collect();
    found.sort();
    Ok(found)
}

/// Parses YAML documents (JSON is YAML); a `List` is its items.
fn parse(text: &str, origin: &str, folder: Option<&Path>) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    let parts = decode::documents(text).map_err(|error| {
        let message = error.message.strip_prefix("error converting YAML to JSON: yaml: ").unwrap_or(&error.message);
        anyhow!("{origin} is not YAML: {message}")
    })?;
    for (index, Decoded { object: value, warnings }) in parts.into_iter().enumerate() {
        let origin = if index == 0 { origin.to_owned() } else { format!("{origin}, document {}", index + 1) };
        if !warnings.is_empty() {
            bail!("{origin}: {}", warnings.join(", "));
        }
        let items = match value.get("items").and_then(Value::as_array) {
            Some(items) if value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) => {
                items.clone()
            }
            _ => vec![value],
        };
        for object in items {
            let document = Document { object, origin: origin.clone(), folder: folder.map(Path::to_owned) };
            if document.api_version().is_empty() || document.kind().is_empty() {
                bail!("{origin}: an object needs apiVersion and kind");
            }
            documents.push(document);
        }
    }
    Ok(documents)
}

/// Whether an image is a file beside the manifest.
pub fn is_path(image: &str) -> bool {
    ["./", "../", "/", "file:"].iter().any(|prefix| image.starts_with(prefix))
}

/// Whether an image may be a file beside the manifest though it is written like an image of Docker Hub: `app.wasm`.
pub fn may_be_file(image: &str) -> bool {
    !image.contains(['/', ':', '@']) && Path::new(image).extension().is_some_and(|e| e == "wasm")
}

/// The containers' `image` values of an object, wherever its pod template is.
pub fn images(object: &mut Value) -> Vec<&mut Value> {
    let spec = ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec", "/template/spec", "/spec"]
        .into_iter()
        .find(|path| object.pointer(path).is_some_and(|spec| spec.get("containers").is_some()));
    let Some(Value::Object(spec)) = spec.and_then(|path| object.pointer_mut(path)) else { return Vec::new() };
    spec.iter_mut()
        .filter(|(field, _)| matches!(field.as_str(), "containers" | "initContainers" | "ephemeralContainers"))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
        .filter_map(|container| container.get_mut("image"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_that_does_not_parse_says_where() {
        let error = parse("a: 1\nb: [2\nc: 3\n", "x.yaml", None).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("x.yaml is not YAML: ") && text.contains("line"), "{text}");
        assert!(!text.contains("JSON"), "{text}");
    }

    #[test]
    fn a_list_is_its_items_and_empty_documents_are_nothing() {
        let text = "---\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n";
        let documents = parse(text, "x", None).unwrap();
        assert_eq!(documents.iter().map(Document::name).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_bare_name_that_ends_in_wasm_may_be_a_file() {
        assert!(may_be_file("app.wasm"));
        for image in ["app", "app.wasm:v1", "team/app.wasm", "app.wasm@sha256:00", "./app.wasm", ".wasm"] {
            assert!(!may_be_file(image), "{image}");
        }
    }

    #[test]
    fn what_has_no_name_is_described_and_refused() {
        let of = |metadata: Value| Document {
            object: serde_json::json!({"kind": "Pod", "metadata": metadata}),
            origin: "x.yaml".to_owned(),
            folder: None,
        };
        let (none, generated) = (of(serde_json::json!({})), of(serde_json::json!({"generateName": "web-"})));
        assert_eq!(none.described(), "Pod without a name (x.yaml)");
        assert_eq!(generated.described(), "Pod web-… (x.yaml)");
        assert!(none.needed_name("apply").unwrap_err().to_string().contains("metadata.name is needed to apply"));
        assert!(generated.needed_name("apply").unwrap_err().to_string().contains("metadata.generateName"));
    }

    #[test]
    fn images_are_found_in_every_kind_of_template() {
        for text in [
            r#"{"spec":{"containers":[{"image":"a"}],"initContainers":[{"image":"b"}]}}"#,
            r#"{"spec":{"template":{"spec":{"containers":[{"image":"a"},{"image":"b"}]}}}}"#,
            r#"{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"a"},{"image":"b"}]}}}}}}"#,
        ] {
            let mut object: Value = serde_json::from_str(text).unwrap();
            assert_eq!(images(&mut object).len(), 2, "{text}");
        }
        assert_eq!(images(&mut serde_json::json!({"data": {}})).len(), 0);
    }
}
