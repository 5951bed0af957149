//! Documents as compressed bytes, and the parts that a large one is put together from.
//!
//! A part is compressed by itself, up to a byte's end and without looking at what stands before it, so that parts in a row are
//! one valid stream: a document of which one part changed costs that part.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Ten bytes before the compressed text: magic number, method, no flags, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block.
const END: [u8; 2] = [0x03, 0x00];

/// An OpenAPI document, gzip-compressed, with a strong ETag that is a hash of its contents.
#[derive(Clone, Debug)]
pub struct Document {
    pub gzip: Bytes,
    /// Hexadecimal, without quotes.
    pub etag: String,
    /// The text, while somebody reads it: all who do share one.
    plain: Arc<Mutex<Weak<Vec<u8>>>>,
}

/// A text that several hold.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A piece of a document's text.
#[derive(Debug)]
pub(super) struct Part {
    deflated: Bytes,
    check: Crc,
    hash: [u8; 32],
}

impl Part {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        // Writing to a Vec cannot fail. A flush ends the block at a byte.
        let _ = encoder.write_all(text).and_then(|()| encoder.flush());
        let mut check = Crc::new();
        check.update(text);
        Self { deflated: Bytes::copy_from_slice(encoder.get_ref()), check, hash: Sha256::digest(text).into() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.check.amount() == 0
    }
}

impl Document {
    /// The document of this tree.
    pub fn new(value: &Value) -> Self {
        Self::of([&Part::new(value.to_string().as_bytes())])
    }

    /// The document whose text is that of the parts, one after the other.
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Self {
        let mut gzip = HEADER.to_vec();
        let (mut check, mut hash) = (Crc::new(), Sha256::new());
        for part in parts {
            gzip.extend_from_slice(&part.deflated);
            check.combine(&part.check);
            hash.update(part.hash);
        }
        gzip.extend_from_slice(&END);
        gzip.extend_from_slice(&check.sum().to_le_bytes());
        gzip.extend_from_slice(&check.amount().to_le_bytes());
        let mut etag = String::with_capacity(64);
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(etag, "{byte:02X}");
        }
        Self { gzip: gzip.into(), etag, plain: Arc::default() }
    }

    /// The text, for a client that does not take gzip. Takes milliseconds.
    pub fn plain(&self) -> Bytes {
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        let text = plain.upgrade().unwrap_or_else(|| {
            let mut text = Vec::new();
            // What `of` has written can be read.
            let _ = GzDecoder::new(self.gzip.as_ref()).read_to_end(&mut text);
            Arc::new(text)
        });
        *plain = Arc::downgrade(&text);
        Bytes::from_owner(Shared(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_a_row_are_one_document() {
        let texts = ["{\"a\": 1, ", "", "\"b\": [1, 2, 3, 1, 2, 3], ", "\"c\": \"a\"}"];
        let document = Document::of(&texts.map(|text| Part::new(text.as_bytes())));
        assert_eq!(document.plain(), texts.concat().into_bytes());
        let (one, other) = (document.plain(), document.clone().plain());
        assert_eq!(one.as_ptr(), other.as_ptr(), "those who read at the same time share the text");
        assert_eq!(document.etag, Document::of(&texts.map(|text| Part::new(text.as_bytes()))).etag);
        assert_ne!(document.etag, Document::of(&texts.map(|text| Part::new(text.as_bytes()))[..3]).etag);
        let tree: Value = serde_json::from_str(&texts.concat()).unwrap();
        assert_eq!(Document::new(&tree).plain(), tree.to_string().into_bytes());
    }
}
