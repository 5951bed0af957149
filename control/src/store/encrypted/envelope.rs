//! The form of a sealed value: `k8s:enc:aesgcm:v1:NAME:REVISION:` and then salt, nonce and ciphertext.
//!
//! The revision stands outside, because the engine's writer puts it in after the value was sealed; everything else of the
//! object is inside. Each value has an AES-256-GCM key of its own, derived (HKDF-SHA256) from the configured one and a
//! random salt: with 28 random bytes per value, how often a key is used needs no bound (random nonces alone would have to
//! stop at 2^32 writes). The additional data is the value's key path, so that one object's value cannot stand in for
//! another's. What is not protected: an older value of the same object, put back by who can write the file.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use bytes::Bytes;

use super::super::{Encoded, Key};

/// What every sealed value begins with, whatever sealed it; no JSON document does.
pub(super) const SEALED: &[u8] = b"k8s:enc:";
const PREFIX: &str = "k8s:enc:aesgcm:v1:";
const SALT: usize = 16;
const NONCE: usize = 12;
/// Separates these keys from others that may be derived of the same secret.
const PURPOSE: &[&[u8]] = &[b"wherry store value v1"];

/// Why a value cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(
        "it is encrypted with the key {name:?}, which the encryption configuration does not have: add that key to its \
         providers again, after the first, and start once more; nothing was changed"
    )]
    UnknownKey { name: String },
    #[error(
        "it is encrypted with a key named {name:?}, but not with the one that the encryption configuration has under that \
         name (or the data was changed): put the old key back, and start once more; nothing was changed"
    )]
    WrongKey { name: String },
    #[error(
        "it is not encrypted, and the encryption configuration has no `identity` provider for it: add `- identity: {{}}` \
         to the providers, after the first, and start once more; nothing was changed"
    )]
    Plain,
    #[error("it is encrypted in a way that this version does not know ({prefix:?})")]
    UnknownForm { prefix: String },
    #[error("the random generator or the cipher failed")]
    Cipher,
}

/// A key of the configuration.
pub(super) struct SealKey {
    pub(super) name: String,
    pub(super) secret: Vec<u8>,
}

impl SealKey {
    fn derive(&self, salt: &[u8]) -> Result<LessSafeKey, SealError> {
        let secret = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let key = secret.expand(PURPOSE, &AES_256_GCM).map_err(|_| SealError::Cipher)?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    }

    /// Seals an object for its place.
    pub(super) fn seal(&self, key: &Key, value: &Encoded) -> Result<Encoded, SealError> {
        let mut random = [0; SALT + NONCE];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| SealError::Cipher)?;
        let (salt, nonce) = random.split_at(SALT);
        let mut sealed = u32::try_from(value.splice).map_err(|_| SealError::Cipher)?.to_be_bytes().to_vec();
        sealed.extend_from_slice(&value.bytes);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Cipher)?;
        let place = Aad::from(key.as_str().as_bytes());
        self.derive(salt)?.seal_in_place_append_tag(nonce, place, &mut sealed).map_err(|_| SealError::Cipher)?;
        let mut bytes = format!("{PREFIX}{}:", self.name).into_bytes();
        let splice = bytes.len();
        bytes.push(b':');
        bytes.extend_from_slice(&random);
        bytes.append(&mut sealed);
        Ok(Encoded { bytes, splice })
    }
}

/// A sealed value's parts.
pub(super) struct Envelope<'a> {
    pub(super) name: &'a str,
    /// Decimal, as the engine wrote it.
    revision: &'a str,
    salt: &'a [u8],
    nonce: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, SealError> {
        let unknown = || {
            let end = value.iter().position(|b| !b.is_ascii_graphic()).unwrap_or(value.len()).min(64);
            let prefix = String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned();
            SealError::UnknownForm { prefix }
        };
        let rest = value.strip_prefix(PREFIX.as_bytes()).ok_or_else(unknown)?;
        let mut parts = rest.splitn(3, |b| *b == b':');
        let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok()).ok_or_else(unknown);
        let (name, revision) = (text()?, text()?);
        let body = parts.next().ok_or_else(unknown)?;
        let (salt, body) = body.split_at_checked(SALT).ok_or_else(unknown)?;
        let (nonce, sealed) = body.split_at_checked(NONCE).ok_or_else(unknown)?;
        Ok(Self { name, revision, salt, nonce, sealed })
    }

    /// The finished object, if this key sealed it for this place.
    pub(super) fn open(&self, with: &SealKey, key: &Key) -> Result<Bytes, SealError> {
        let wrong = || SealError::WrongKey { name: self.name.to_owned() };
        let nonce = Nonce::try_assume_unique_for_key(self.nonce).map_err(|_| wrong())?;
        let mut buffer = self.sealed.to_vec();
        let place = Aad::from(key.as_str().as_bytes());
        let plain = with.derive(self.salt)?.open_in_place(nonce, place, &mut buffer).map_err(|_| wrong())?;
        let (splice, object) = plain.split_first_chunk::<4>().ok_or_else(wrong)?;
        let splice = usize::try_from(u32::from_be_bytes(*splice)).map_err(|_| wrong())?;
        let (head, tail) = object.split_at_checked(splice).ok_or_else(wrong)?;
        Ok(Bytes::from([head, self.revision.as_bytes(), tail].concat()))
    }
}
