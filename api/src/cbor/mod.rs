//! CBOR (RFC 8949) as Kubernetes speaks it since 1.32: the same trees as JSON's, in a form that is smaller and quicker to
//! read.
//!
//! Texts are byte strings, as Go's need not be UTF-8; what is written is deterministic: shortest forms, keys in the order
//! of their bytes. Every body begins with the tag that says that it is CBOR. What is read may be written otherwise (texts,
//! parts of unknown length, tags); what has no form in JSON is refused.

mod read;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use self::read::{CborError, Reader, hex};
pub use self::write::{SELF_DESCRIBED, encode, entry, head_of_map};
