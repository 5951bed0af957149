//! What a client accepts and what it sends: media types, transformations (Table, PartialObjectMetadata), compression.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use wherry_api::decode::Format;
use wherry_api::patch::PatchType;
use wherry_api::status::ApiError;
use wherry_api::table::IncludeObject;

use super::query::Query;

/// The form in which objects are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Object,
    /// `meta.k8s.io` Table of this version.
    Table { version: &'static str, include: IncludeObject },
    /// `meta.k8s.io` PartialObjectMetadata(List) of this version.
    Metadata { version: &'static str },
}

/// What the answer may look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) form: Form,
    pub(crate) pretty: bool,
    pub(crate) gzip: bool,
}

/// One element of an `Accept` header.
struct Range<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut quality = 1.0;
        let mut parameters = Vec::new();
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            if key == "q" {
                quality = value.parse().unwrap_or(0.0);
            } else {
                parameters.push((key, value.trim_matches('"')));
            }
        }
        Self { media, parameters, quality }
    }

    fn parameter(&self, key: &str) -> &'a str {
        self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }

    /// The form that this element asks for, if the server can make it.
    fn form(&self, include: IncludeObject) -> Option<Form> {
        if !matches!(self.media, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let version = match self.parameter("v") {
            "v1beta1" => "v1beta1",
            "" | "v1" => "v1",
            _ => return None,
        };
        match (self.parameter("as"), self.parameter("g")) {
            ("", _) => Some(Form::Object),
            ("Table", "meta.k8s.io") => Some(Form::Table { version, include }),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => Some(Form::Metadata { version }),
            _ => None,
        }
    }
}

/// Reads `Accept`, `Accept-Encoding`, `pretty` and `includeObject`; `transforms`: whether there is more than the object
/// itself (not for a review, which has no metadata). Error: 406.
pub(crate) fn accepted(headers: &HeaderMap, query: &Query, transforms: bool) -> Result<Accepted, ApiError> {
    let include = include_object(query)?;
    let header = joined(headers, &ACCEPT);
    let form = if header.trim().is_empty() { Form::Object } else { best(&header, include, transforms)? };
    let pretty = match query.flag("pretty").unwrap_or(Some(true)) {
        Some(asked) => asked,
        None => browser(headers),
    };
    let gzip = accepts_gzip(headers);
    Ok(Accepted { form, pretty, gzip })
}

/// Whether an answer may be compressed with gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    joined(headers, &ACCEPT_ENCODING).split(',').map(Range::parse).any(|r| r.media == "gzip" && r.quality > 0.0)
}

/// Whether JSON, without a transformation, is among what the client accepts.
pub(crate) fn accepts_json(headers: &HeaderMap) -> bool {
    let header = joined(headers, &ACCEPT);
    header.trim().is_empty() || best(&header, IncludeObject::default(), true).is_ok()
}

fn best(header: &str, include: IncludeObject, transforms: bool) -> Result<Form, ApiError> {
    let mut ranges: Vec<Range<'_>> = header.split(',').map(Range::parse).filter(|r| r.quality > 0.0).collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
        .iter()
        .find_map(|r| r.form(include).filter(|form| transforms || *form == Form::Object))
        .ok_or_else(|| ApiError::not_acceptable("only the following media types are accepted: application/json"))
}

fn include_object(query: &Query) -> Result<IncludeObject, ApiError> {
    match query.get("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("Object") => Ok(IncludeObject::Object),
        Some("None") => Ok(IncludeObject::None),
        Some(other) => Err(ApiError::bad_request(format!(
            "unrecognized includeObject {other:?}: it must be one of None, Metadata, Object"
        ))),
    }
}

fn browser(headers: &HeaderMap) -> bool {
    let agent = joined(headers, &USER_AGENT);
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
}

fn joined(headers: &HeaderMap, name: &http::HeaderName) -> String {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",")
}

/// The format of a request's object. Error: 415.
pub(crate) fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let header = joined(headers, &CONTENT_TYPE);
    match Range::parse(&header).media {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
        other => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf (got {other})"
        ))),
    }
}

/// The type of a patch. Error: 415.
pub(crate) fn patch_type(headers: &HeaderMap) -> Result<PatchType, ApiError> {
    let header = joined(headers, &CONTENT_TYPE);
    match Range::parse(&header).media {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
             application/apply-patch+yaml",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn form(accept: &'static str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        accepted(&headers, &Query::default(), true).map(|a| a.form).map_err(|e| e.code)
    }

    const TABLE: Form = Form::Table { version: "v1", include: IncludeObject::Metadata };

    #[test]
    fn the_first_servable_form_of_the_highest_quality_wins() {
        for (accept, wanted) in [
            ("", Ok(Form::Object)),
            ("*/*", Ok(Form::Object)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Ok(TABLE)),
            ("application/vnd.kubernetes.protobuf,application/json", Ok(Form::Object)),
            ("application/json;q=0.1, application/json;as=Table;g=meta.k8s.io;v=v1;q=0.9", Ok(TABLE)),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Ok(Form::Object)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Ok(Form::Metadata { version: "v1" })),
            ("application/json;stream=watch", Ok(Form::Object)),
            ("application/vnd.kubernetes.protobuf", Err(406)),
            ("text/html, application/json;q=0", Err(406)),
        ] {
            assert_eq!(form(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn what_has_no_metadata_is_no_table() {
        let asked = |accept: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            accepted(&headers, &Query::default(), false).map(|a| a.form).map_err(|e| e.code)
        };
        assert_eq!(asked("application/json;as=Table;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(asked("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Ok(Form::Object));
    }

    #[test]
    fn a_body_of_an_unknown_type_is_415() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cbor"));
        assert_eq!(format(&headers).unwrap_err().code, 415);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.kubernetes.protobuf"));
        assert_eq!(format(&headers), Ok(Format::Protobuf));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        assert_eq!(format(&headers), Ok(Format::Json));
    }
}
