//! What the registry must know of a manifest: its media type, what it refers to, and what it is attached to.

use http::HeaderValue;
use serde_json::Value;

use super::digest::Digest;
use super::error::RegistryError;

/// Media types of lists of manifests.
const INDEXES: &[&str] =
    &["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Two names of 127 characters, and what is between them (RFC 6838).
const LONGEST_TYPE: usize = 255;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A manifest that was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Parsed {
    pub media_type: String,
    /// Config and layers, or the manifests of an index, which the repository must have.
    pub blobs: Vec<Digest>,
    pub manifests: Vec<Digest>,
    pub subject: Option<Digest>,
}

/// Reads a manifest that is being pushed with a content type.
pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Parsed, RegistryError> {
    let invalid = |why: &str| RegistryError::ManifestInvalid(why.to_owned());
    let value: Value = serde_json::from_slice(bytes).map_err(|error| invalid(&format!("it is not JSON: {error}")))?;
    if !value.is_object() {
        return Err(invalid("it is not an object"));
    }
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let own = value.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let media_type = match (content_type, own) {
        ("", "") => IMAGE,
        ("", own) => own,
        (sent, own) if own.is_empty() || own == sent => sent,
        (sent, own) => return Err(invalid(&format!("its media type is {own:?}, but it was sent as {sent:?}"))),
    };
    if media_type.len() > LONGEST_TYPE || HeaderValue::from_str(media_type).is_err() {
        return Err(invalid("its media type is none"));
    }
    let index = INDEXES.contains(&media_type) || (value.get("manifests").is_some() && value.get("layers").is_none());
    let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
    if index {
        for entry in list(&value, "manifests") {
            manifests.push(descriptor(entry)?);
        }
    } else {
        blobs.push(descriptor(value.get("config").ok_or_else(|| invalid("it has no config"))?)?);
        for layer in list(&value, "layers").filter(|layer| list(layer, "urls").next().is_none()) {
            blobs.push(descriptor(layer)?);
        }
    }
    let subject = value.get("subject").filter(|s| !s.is_null()).map(descriptor).transpose()?;
    Ok(Parsed { media_type: media_type.to_owned(), blobs, manifests, subject })
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn descriptor(value: &Value) -> Result<Digest, RegistryError> {
    let text = value.get("digest").and_then(Value::as_str).unwrap_or_default();
    text.parse().map_err(|_| RegistryError::ManifestInvalid(format!("{text:?} is not a digest")))
}

/// What a stored manifest is about.
#[derive(Debug, Default)]
pub(crate) struct Refers {
    /// Every digest that it names.
    pub to: Vec<Digest>,
    pub subject: Option<Digest>,
}

pub(crate) fn references(bytes: &[u8]) -> Refers {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Refers::default() };
    let entries = value.get("config").into_iter().chain(list(&value, "layers")).chain(list(&value, "manifests"));
    Refers {
        to: entries.filter_map(|entry| descriptor(entry).ok()).collect(),
        subject: value.get("subject").and_then(|subject| descriptor(subject).ok()),
    }
}

/// The descriptor under which a manifest is listed among its subject's referrers.
pub(crate) fn referrer(bytes: &[u8], media_type: &str, digest: &Digest) -> Option<Value> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let artifact = value.get("artifactType").or_else(|| value.pointer("/config/mediaType")).cloned();
    let mut descriptor = serde_json::json!({
        "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len(),
    });
    if let Value::Object(map) = &mut descriptor {
        map.extend(artifact.map(|artifact| ("artifactType".to_owned(), artifact)));
        map.extend(value.get("annotations").cloned().map(|annotations| ("annotations".to_owned(), annotations)));
    }
    Some(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_manifest_names_its_config_and_layers_and_an_index_its_manifests() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let image = json!({
            "config": {"digest": a.to_string()},
            "layers": [{"digest": b.to_string()}, {"digest": a.to_string(), "urls": ["https://elsewhere"]}],
        });
        let parsed = parse(image.to_string().as_bytes(), "").unwrap();
        assert_eq!((parsed.blobs, parsed.media_type.as_str()), (vec![a.clone(), b.clone()], IMAGE));
        let index = json!({"manifests": [{"digest": b.to_string()}]});
        assert_eq!(parse(index.to_string().as_bytes(), INDEXES[0]).unwrap().manifests, [b]);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for (text, content_type) in [
            ("", ""),
            ("[]", ""),
            ("{}", IMAGE),
            (r#"{"config":{"digest":"x"}}"#, IMAGE),
            (r#"{"mediaType":"other","manifests":[]}"#, INDEXES[0]),
            // What could not be sent back in a header.
            (r#"{"mediaType":"a/b\n","manifests":[]}"#, ""),
            (&format!(r#"{{"mediaType":"a/{}","manifests":[]}}"#, "b".repeat(LONGEST_TYPE)), ""),
        ] {
            assert!(matches!(parse(text.as_bytes(), content_type), Err(RegistryError::ManifestInvalid(_))), "{text}");
        }
    }
}
