//! What a client accepts and what it sends: media types, transformations (Table, PartialObjectMetadata), compression.
//!
//! Everything is made as JSON; [`super::forms`] turns an answer into another media type.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, IF_NONE_MATCH, USER_AGENT};
use http_body::Body as _;
use wherry_api::decode::Format;
use wherry_api::patch::PatchType;
use wherry_api::resource::{Descriptor, SchemaSource};
use wherry_api::status::ApiError;
use wherry_api::table::IncludeObject;

use super::body::Body;
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

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Media {
    #[default]
    Json,
    Yaml,
    /// A watch: a sequence of items.
    Cbor,
}

/// What is asked: not everything can be answered in every form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Of objects with metadata.
    Objects,
    /// Of what has no metadata (a review): it is no table.
    Plain,
    /// A stream of events.
    Events,
}

/// What the answer may look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) form: Form,
    pub(crate) media: Media,
    pub(crate) pretty: bool,
    pub(crate) gzip: bool,
}

impl Accepted {
    /// Whether an answer in JSON, as it is made, may be compressed: another form is compressed when it has it.
    pub(crate) fn packs(self) -> bool {
        self.gzip && self.media == Media::Json
    }
}

/// One element of an `Accept` header.
pub(super) struct Range<'a> {
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

    /// `""` if it has none of that name.
    pub(super) fn parameter(&self, key: &str) -> &'a str {
        self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }

    fn media(&self, answer: Answer) -> Option<Media> {
        match (self.media, answer) {
            ("application/json" | "application/*" | "*/*", _) => Some(Media::Json),
            ("application/cbor", _) | ("application/cbor-seq", Answer::Events) => Some(Media::Cbor),
            // There is no stream of YAML.
            ("application/yaml", Answer::Objects | Answer::Plain) => Some(Media::Yaml),
            _ => None,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.media(Answer::Plain) == Some(Media::Json)
    }

    /// The form that this element asks for, if the server can make it.
    fn form(&self, include: IncludeObject) -> Option<Form> {
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

/// Reads `Accept`, `Accept-Encoding`, `pretty` and `includeObject`. Error: 406.
pub(crate) fn accepted(headers: &HeaderMap, query: &Query, answer: Answer) -> Result<Accepted, ApiError> {
    let include = include_object(query)?;
    let header = joined(headers, &ACCEPT);
    let nothing = header.trim().is_empty();
    let (media, form) = if nothing { (Media::Json, Form::Object) } else { best(&header, include, answer)? };
    let pretty = match query.flag("pretty").unwrap_or(Some(true)) {
        Some(asked) => asked,
        None => browser(headers),
    };
    let gzip = accepts_gzip(headers);
    // Only JSON can be told from pretty JSON.
    Ok(Accepted { form, media, pretty: pretty && media == Media::Json, gzip })
}

/// Whether an answer may be compressed with gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    joined(headers, &ACCEPT_ENCODING).split(',').map(Range::parse).any(|r| r.media == "gzip" && r.quality > 0.0)
}

/// Whether JSON, without a transformation, is among what the client accepts.
pub(crate) fn accepts_json(headers: &HeaderMap) -> bool {
    let header = joined(headers, &ACCEPT);
    header.trim().is_empty() || ranges(&header).iter().any(Range::is_json)
}

/// 406 for where there is nothing but JSON.
pub(crate) fn only_json() -> ApiError {
    ApiError::not_acceptable("only the following media types are accepted: application/json")
}

/// What `fits` makes of what the client likes best of that of which it makes something; `None` if it accepts none of it.
/// Without an `Accept` header it is asked about `*/*`.
pub(super) fn preferred<T>(headers: &HeaderMap, fits: impl Fn(&Range<'_>) -> Option<T>) -> Option<T> {
    let header = joined(headers, &ACCEPT);
    let header = if header.trim().is_empty() { "*/*" } else { &header };
    ranges(header).iter().find_map(fits)
}

/// Whether the client has what this tag names (`If-None-Match`).
pub(crate) fn has(headers: &HeaderMap, etag: &str) -> bool {
    let known = joined(headers, &IF_NONE_MATCH);
    known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

/// What is accepted at all, by preference.
fn ranges(header: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = header.split(',').map(Range::parse).filter(|r| r.quality > 0.0).collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

fn best(header: &str, include: IncludeObject, answer: Answer) -> Result<(Media, Form), ApiError> {
    let fits = |form: &Form| answer != Answer::Plain || *form == Form::Object;
    let found = ranges(header).iter().find_map(|r| Some((r.media(answer)?, r.form(include).filter(fits)?)));
    found.ok_or_else(|| {
        let all = if answer == Answer::Events { "application/cbor-seq" } else { "application/yaml, application/cbor" };
        ApiError::not_acceptable(format!("only the following media types are accepted: application/json, {all}"))
    })
}

fn include_object(query: &Query) -> Result<IncludeObject, ApiError> {
    let text = query.get("includeObject").unwrap_or_default();
    IncludeObject::from_query(text).ok_or_else(|| {
        ApiError::bad_request(format!("unrecognized includeObject {text:?}: it must be one of None, Metadata, Object"))
    })
}

fn browser(headers: &HeaderMap) -> bool {
    let agent = joined(headers, &USER_AGENT);
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
}

fn joined(headers: &HeaderMap, name: &http::HeaderName) -> String {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",")
}

const UNKNOWN: &str = "the body of the request was in an unknown format - accepted media types include: ";

/// Whether a request's body is sent as it is. Error: 415 for one that is packed, as Kubernetes reads none either.
pub(crate) fn plain(headers: &HeaderMap, body: &Body) -> Result<(), ApiError> {
    let encoding = joined(headers, &CONTENT_ENCODING);
    let packed =
        encoding.split(',').map(str::trim).find(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
    match packed.filter(|_| !body.is_end_stream()) {
        Some(name) => Err(ApiError::unsupported_media_type(format!(
            "the body of the request is encoded as {name:?}, which is not supported: send it without Content-Encoding"
        ))),
        None => Ok(()),
    }
}

/// The format of a request's object. Nobody but built-in kinds has numbers for fields, which protobuf needs. Error: 415.
pub(crate) fn format(headers: &HeaderMap, resource: &Descriptor) -> Result<Format, ApiError> {
    let header = joined(headers, &CONTENT_TYPE);
    let built_in = matches!(resource.schema, SchemaSource::BuiltIn(_));
    match Range::parse(&header).media {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/cbor" => Ok(Format::Cbor),
        "application/vnd.kubernetes.protobuf" if built_in => Ok(Format::Protobuf),
        _ => {
            let protobuf = if built_in { ", application/vnd.kubernetes.protobuf" } else { "" };
            Err(ApiError::unsupported_media_type(format!(
                "{UNKNOWN}application/json, application/yaml, application/cbor{protobuf}"
            )))
        }
    }
}

/// The type of a patch, and how it is written. Error: 415.
pub(crate) fn patch_type(headers: &HeaderMap, resource: &Descriptor) -> Result<(PatchType, Format), ApiError> {
    let header = joined(headers, &CONTENT_TYPE);
    // Nobody but a built-in kind says how its lists merge.
    let built_in = matches!(resource.schema, SchemaSource::BuiltIn(_));
    match Range::parse(&header).media {
        "application/json-patch+json" => Ok((PatchType::Json, Format::Json)),
        "application/merge-patch+json" => Ok((PatchType::Merge, Format::Json)),
        "application/strategic-merge-patch+json" if built_in => Ok((PatchType::Strategic, Format::Json)),
        "application/apply-patch+yaml" => Ok((PatchType::Apply, Format::Yaml)),
        "application/apply-patch+cbor" => Ok((PatchType::Apply, Format::Cbor)),
        _ => {
            let strategic = if built_in { "application/strategic-merge-patch+json, " } else { "" };
            Err(ApiError::unsupported_media_type(format!(
                "{UNKNOWN}application/json-patch+json, application/merge-patch+json, \
                 {strategic}application/apply-patch+yaml, application/apply-patch+cbor"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn form(accept: &'static str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        accepted(&headers, &Query::default(), Answer::Objects).map(|a| a.form).map_err(|e| e.code)
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
    fn a_tag_is_known_in_whatever_form_a_client_sends_it() {
        let known =
            |tags: &'static str| has(&HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(tags))]), "\"a\"");
        assert!(["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"].into_iter().all(known));
        assert!(!known("\"b\"") && !known("a") && !has(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn rows_have_the_metadata_of_their_objects_unless_something_else_is_asked() {
        let read = |query: &str| include_object(&Query::parse(Some(query))).map_err(|e| e.code);
        assert_eq!(read(""), Ok(IncludeObject::Metadata));
        assert_eq!(read("includeObject=Object"), Ok(IncludeObject::Object));
        assert_eq!(read("includeObject=None"), Ok(IncludeObject::None));
        assert_eq!(read("includeObject=object"), Err(400));
    }

    #[test]
    fn what_has_no_metadata_is_no_table() {
        let asked = |accept: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            accepted(&headers, &Query::default(), Answer::Plain).map(|a| a.form).map_err(|e| e.code)
        };
        assert_eq!(asked("application/json;as=Table;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(asked("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Ok(Form::Object));
    }

    #[test]
    fn the_media_type_follows_what_is_accepted_and_what_is_asked() {
        let media = |accept: &'static str, answer| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            accepted(&headers, &Query::default(), answer).map(|a| a.media).map_err(|e| e.code)
        };
        for (accept, objects, events) in [
            ("application/yaml", Ok(Media::Yaml), Err(406)),
            ("application/yaml, application/json;q=0.5", Ok(Media::Yaml), Ok(Media::Json)),
            ("application/cbor", Ok(Media::Cbor), Ok(Media::Cbor)),
            ("application/cbor-seq", Err(406), Ok(Media::Cbor)),
            ("application/cbor;as=Table;g=meta.k8s.io;v=v1", Ok(Media::Cbor), Ok(Media::Cbor)),
            (
                "application/vnd.kubernetes.protobuf, application/cbor;q=0.9, */*;q=0.8",
                Ok(Media::Cbor),
                Ok(Media::Cbor),
            ),
        ] {
            assert_eq!(media(accept, Answer::Objects), objects, "{accept}");
            assert_eq!(media(accept, Answer::Events), events, "{accept}");
        }
        let yaml = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/yaml"))]);
        assert!(!accepts_json(&yaml) && accepts_json(&HeaderMap::new()));
    }

    #[test]
    fn a_body_of_an_unknown_type_is_415() {
        let pods = wherry_api::kinds::core::pod::descriptor();
        let of = |media: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media))]);
            format(&headers, &pods).map_err(|error| error.code)
        };
        assert_eq!(of("application/cbor"), Ok(Format::Cbor));
        assert_eq!(of("application/cbor-seq"), Err(415));
        assert_eq!(of("application/vnd.kubernetes.protobuf"), Ok(Format::Protobuf));
        assert_eq!(of("application/json; charset=utf-8"), Ok(Format::Json));
        assert_eq!(of("text/plain"), Err(415));
    }
}
