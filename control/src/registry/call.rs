//! What a request says beside its path and body: method, headers, parameters, and the ranges in them.

use http::header::CONTENT_RANGE;
use http::request::Parts;
use http::{HeaderMap, Method};

use super::error::RegistryError;

/// The parts of a request beside its path and body.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) query: Parameters,
}

impl Call {
    pub(super) fn of(parts: Parts) -> Self {
        Self { query: Parameters::parse(parts.uri.query()), method: parts.method, headers: parts.headers }
    }

    pub(super) fn reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Of what the catalog is asked for.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.query.get("namespace").filter(|namespace| !namespace.is_empty())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Where the chunk begins that is sent, if the client says so.
    pub(super) fn chunk_start(&self) -> Result<Option<u64>, RegistryError> {
        self.header(CONTENT_RANGE.as_str()).map(chunk_start).transpose()
    }
}

/// The query's parameters.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(query: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// The start of a chunk's `Content-Range: START-END` (a prefix of `bytes ` and a size are tolerated).
fn chunk_start(text: &str) -> Result<u64, RegistryError> {
    let range = text.trim_start_matches("bytes").trim_start_matches([' ', '=']);
    let (start, end) = range.split_once('-').ok_or(RegistryError::Parameter("Content-Range"))?;
    let end = end.split('/').next().unwrap_or_default();
    match (start.parse(), end.parse::<u64>()) {
        (Ok(start), Ok(_)) => Ok(start),
        _ => Err(RegistryError::Parameter("Content-Range")),
    }
}

/// Start and length of a `Range: bytes=…`. Several ranges, or another unit, are answered with everything.
pub(super) fn byte_range(text: &str, size: u64) -> Result<Option<(u64, u64)>, RegistryError> {
    let Some(range) = text.trim().strip_prefix("bytes=") else { return Ok(None) };
    let Some((first, last)) = range.split_once('-') else { return Ok(None) };
    let outside = RegistryError::Range { size };
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(size)),
        (Ok(start), Err(_)) if last.is_empty() => (start, size),
        (Err(_), Ok(0)) if first.is_empty() => return Err(outside),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Ok(None),
    };
    if start < end { Ok(Some((start, end - start))) } else { Err(outside) }
}
