//! Long lists in pages, as the distribution specification has them: `n` and `last`, and a `Link` to the next.
//!
//! What must stay true: a page is bounded, in its entries, in the bytes of its answer and in what is read for it; whoever
//! follows the links sees every entry once.

use std::io;

use serde_json::Value;

use super::call::{Call, Parameters};
use super::digest::Digest;
use super::disk::Disk;
use super::error::RegistryError;
use super::manifest;
use super::route::Repository;

/// The most entries in one page.
const MAX_PAGE: usize = 1000;
/// Bytes of descriptors after which a page of referrers ends: annotations are copied into them, up to those of one manifest
/// more.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of manifests that are read for a page of referrers, up to one manifest more.
const READ_BYTES: usize = 32 << 20;

fn limit(query: &Parameters) -> Result<usize, RegistryError> {
    let asked = query.get("n").map(str::parse::<usize>).transpose();
    Ok(asked.map_err(|_| RegistryError::Parameter("n"))?.unwrap_or(MAX_PAGE).min(MAX_PAGE))
}

fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// One page of sorted names, and the `Link` to the next.
pub(super) fn page(all: Vec<String>, call: &Call, path: &str) -> Result<(Vec<String>, Option<String>), RegistryError> {
    let limit = limit(&call.query)?;
    let after = call.query.get("last").unwrap_or_default();
    let mut rest = all.into_iter().filter(|name| name.as_str() > after);
    let page: Vec<String> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let link = page.last().filter(|_| more).map(|last| {
        let limit = limit.to_string();
        let namespace = call.namespace().map(|namespace| ("namespace", namespace));
        let pairs = namespace.into_iter().chain([("n", limit.as_str()), ("last", last.as_str())]);
        format!("<{path}?{}>; rel=\"next\"", query(pairs))
    });
    Ok((page, link))
}

/// A request for what is attached to a manifest.
#[derive(Debug)]
pub(super) struct Referrers {
    pub(super) artifact_type: Option<String>,
    limit: usize,
    after: Option<Digest>,
}

/// Their descriptors, and the query of the next page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) found: Vec<Value>,
    pub(super) next: Option<String>,
}

impl Referrers {
    pub(super) fn parse(query: &Parameters) -> Result<Self, RegistryError> {
        let after = query.get("last").map(str::parse).transpose();
        Ok(Self {
            artifact_type: query.get("artifactType").map(str::to_owned),
            limit: limit(query)?,
            after: after.map_err(|_| RegistryError::Parameter("last"))?,
        })
    }

    pub(super) fn page(&self, disk: &Disk, repository: &Repository, subject: &Digest) -> io::Result<Page> {
        let all = disk.referrers(repository, subject)?;
        let after = self.after.as_ref().map(Digest::hex);
        let (mut page, mut bytes, mut read) = (Page::default(), 0, 0);
        let mut last: Option<&Digest> = None;
        for digest in all.iter().filter(|digest| Some(digest.hex()) > after) {
            if page.found.len() >= self.limit || bytes >= PAGE_BYTES || read >= READ_BYTES {
                page.next = last.map(|last| self.query(last));
                break;
            }
            last = Some(digest);
            let Some(stored) = disk.manifest(repository, digest)? else { continue };
            read += stored.bytes.len();
            let descriptor = manifest::referrer(&stored.bytes, &stored.media_type, digest);
            if let Some(descriptor) = descriptor.filter(|found| self.wants(found)) {
                bytes += descriptor.to_string().len();
                page.found.push(descriptor);
            }
        }
        Ok(page)
    }

    fn wants(&self, descriptor: &Value) -> bool {
        let is = descriptor.get("artifactType").and_then(Value::as_str);
        self.artifact_type.as_deref().is_none_or(|wanted| is == Some(wanted))
    }

    fn query(&self, last: &Digest) -> String {
        let (limit, last) = (self.limit.to_string(), last.to_string());
        let wanted = self.artifact_type.as_deref().map(|wanted| ("artifactType", wanted));
        query(wanted.into_iter().chain([("n", limit.as_str()), ("last", last.as_str())]))
    }
}
