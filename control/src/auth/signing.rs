//! Certificates for requests that somebody else made: the subject and the key are copied from the request byte for byte,
//! everything else is the signer's.
//!
//! Written out in DER because a subject may have several organizations (groups), which the builder of this process's own
//! certificates cannot hold. What must stay true: a request whose signature does not prove its key is never signed.

use std::time::SystemTime;

use jiff::Timestamp;
use rcgen::SigningKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Why a request cannot be read or signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("unable to parse csr: it is no PEM block of type CERTIFICATE REQUEST with a PKCS #10 request")]
    Request,
    #[error(
        "unable to parse csr: its subject has a common name or an organization that is neither UTF-8 nor ASCII text"
    )]
    Subject,
    #[error("unable to parse csr: its signature does not match its key")]
    Proof,
    #[error("the authority's key is none that can sign requests (ECDSA P-256)")]
    Authority,
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// How many alternative names of each kind there are.
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
    /// In DER: subject, public key and (without its wrapping) the alternative names.
    subject: Vec<u8>,
    public_key: Vec<u8>,
    names: Option<Vec<u8>>,
}

impl Asked {
    /// Reads a PEM request and checks that its sender holds the key.
    pub fn parse(pem: &[u8]) -> Result<Self, SigningError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| SigningError::Request)?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| SigningError::Request)?;
        request.verify_signature().map_err(|_| SigningError::Proof)?;
        let info = &request.certification_request_info;
        let mut asked = Self {
            common_name: common_name(&info.subject)?.unwrap_or_default(),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            organizations: organizations(&info.subject)?,
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                asked.count(&names.general_names);
                asked.names = Some(encoded_names(&names.general_names)?);
            }
        }
        Ok(asked)
    }

    fn count(&mut self, names: &[GeneralName<'_>]) {
        let of = |kind: fn(&GeneralName<'_>) -> bool| names.iter().filter(|name| kind(name)).count();
        self.dns_names = of(|name| matches!(name, GeneralName::DNSName(_)));
        self.addresses = of(|name| matches!(name, GeneralName::IPAddress(_)));
        self.emails = of(|name| matches!(name, GeneralName::RFC822Name(_)));
        self.uris = of(|name| matches!(name, GeneralName::URI(_)));
    }
}

/// Whom a subject names: the last of its common names, as in Go. What is approved and who is authenticated must be the same
/// user, so both read it here.
/// An encoding that is not read here, and elsewhere might be, is an error.
pub(super) fn common_name(subject: &X509Name<'_>) -> Result<Option<String>, SigningError> {
    Ok(texts(subject.iter_common_name())?.pop())
}

/// The groups of whom a subject names, under the same rule.
pub(super) fn organizations(subject: &X509Name<'_>) -> Result<Vec<String>, SigningError> {
    texts(subject.iter_organization())
}

fn texts<'a>(attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Result<Vec<String>, SigningError> {
    attributes.map(|a| a.as_str().map(str::to_owned).map_err(|_| SigningError::Subject)).collect()
}

/// What the signer decides.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Key usages in Kubernetes' words (`digital signature`, `client auth`, …).
    pub usages: Vec<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Signs a request; the answer is DER.
pub fn sign(
    asked: &Asked,
    terms: &Terms,
    authority: &CertificateDer<'_>,
    key: &rcgen::KeyPair,
) -> Result<Vec<u8>, SigningError> {
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(SigningError::Authority);
    }
    let (_, authority) = X509Certificate::from_der(authority).map_err(|_| SigningError::Authority)?;
    let until = terms.until.as_second().min(authority.validity().not_after.timestamp());
    // ecdsa-with-SHA256.
    let algorithm = sequence(&[object_id(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])]);
    let body = sequence(&[
        // Version 3.
        tagged(0xa0, &[tagged(0x02, &[vec![2]])]),
        serial(),
        algorithm.clone(),
        authority.subject().as_raw().to_vec(),
        sequence(&[time(terms.from.as_second()), time(until)]),
        asked.subject.clone(),
        asked.public_key.clone(),
        tagged(0xa3, &[extensions(asked, terms, &authority)]),
    ]);
    let signature = key.sign(&body)?;
    Ok(sequence(&[body, algorithm, bit_string(0, &signature)]))
}

/// DER as PEM.
pub fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Whether a certificate (PEM) has ended.
pub fn has_ended(pem: &[u8]) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem) else { return false };
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default().as_second();
    X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| certificate.validity().not_after.timestamp() < now)
}

fn extensions(asked: &Asked, terms: &Terms, authority: &X509Certificate<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    let usages: Vec<&str> = terms.usages.iter().map(String::as_str).collect();
    let bits = KEY_USAGES.iter().filter(|(name, _)| usages.contains(name)).fold(0, |bits, (_, bit)| bits | bit);
    if bits != 0 {
        let [first, second] = u16::to_be_bytes(bits);
        let (unused, bytes) = if second == 0 {
            (first.trailing_zeros(), vec![first])
        } else {
            (second.trailing_zeros(), vec![first, second])
        };
        all.push(extension(0x0f, true, &bit_string(u8::try_from(unused).unwrap_or_default(), &bytes)));
    }
    let purposes: Vec<Vec<u8>> = PURPOSES
        .iter()
        .filter(|(name, _)| usages.contains(name))
        // id-kp and the purpose's number.
        .map(|(_, number)| object_id(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, *number]))
        .collect();
    if !purposes.is_empty() {
        all.push(extension(0x25, false, &sequence(&purposes)));
    }
    // No authority of its own.
    all.push(extension(0x13, true, &sequence(&[])));
    let identifier = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    if let Some(identifier) = identifier {
        all.push(extension(0x23, false, &sequence(&[tagged(0x80, &[identifier])])));
    }
    if let Some(names) = &asked.names {
        all.push(extension(0x11, false, names));
    }
    sequence(&all)
}

/// Kubernetes' names of the bits of X.509's key usage, the first bit highest.
const KEY_USAGES: [(&str, u16); 11] = [
    ("signing", 0x8000),
    ("digital signature", 0x8000),
    ("content commitment", 0x4000),
    ("key encipherment", 0x2000),
    ("data encipherment", 0x1000),
    ("key agreement", 0x0800),
    ("cert sign", 0x0400),
    ("crl sign", 0x0200),
    ("encipher only", 0x0100),
    ("decipher only", 0x0080),
    ("ocsp", 0),
];
/// Kubernetes' names of extended key usages, and their last numbers.
const PURPOSES: [(&str, u8); 9] = [
    ("server auth", 1),
    ("client auth", 2),
    ("code signing", 3),
    ("email protection", 4),
    ("s/mime", 4),
    ("ipsec end system", 5),
    ("ipsec tunnel", 6),
    ("ipsec user", 7),
    ("timestamping", 8),
];

/// An extension of id-ce.
fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![object_id(&[0x55, 0x1d, number])];
    if critical {
        parts.push(tagged(0x01, &[vec![0xff]]));
    }
    parts.push(tagged(0x04, &[value.to_vec()]));
    sequence(&parts)
}

fn encoded_names(names: &[GeneralName<'_>]) -> Result<Vec<u8>, SigningError> {
    let encoded = names.iter().map(|name| match name {
        GeneralName::RFC822Name(text) => Ok(tagged(0x81, &[text.as_bytes().to_vec()])),
        GeneralName::DNSName(text) => Ok(tagged(0x82, &[text.as_bytes().to_vec()])),
        GeneralName::URI(text) => Ok(tagged(0x86, &[text.as_bytes().to_vec()])),
        GeneralName::IPAddress(octets) => Ok(tagged(0x87, &[octets.to_vec()])),
        _ => Err(SigningError::Request),
    });
    Ok(sequence(&encoded.collect::<Result<Vec<_>, _>>()?))
}

fn serial() -> Vec<u8> {
    // Positive, and without leading zeros: 126 random bits below a set one.
    let number = (rand::random::<u128>() >> 2) | (1 << 126);
    tagged(0x02, &[number.to_be_bytes().to_vec()])
}

/// Dates until 2049 are UTCTime, later ones GeneralizedTime.
fn time(second: i64) -> Vec<u8> {
    let at = Timestamp::from_second(second).unwrap_or_default();
    let date = at.strftime("%Y%m%d%H%M%SZ").to_string();
    match date.strip_prefix("20") {
        Some(short) if date.as_str() < "2050" => tagged(0x17, &[short.as_bytes().to_vec()]),
        _ => tagged(0x18, &[date.into_bytes()]),
    }
}

fn object_id(bytes: &[u8]) -> Vec<u8> {
    tagged(0x06, &[bytes.to_vec()])
}

fn bit_string(unused: u8, bytes: &[u8]) -> Vec<u8> {
    tagged(0x03, &[vec![unused], bytes.to_vec()])
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(0x30, parts)
}

fn tagged(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let length: usize = parts.iter().map(Vec::len).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let digits = bytes.iter().position(|b| *b != 0).and_then(|at| bytes.get(at..)).unwrap_or_default();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            out.extend_from_slice(digits);
        }
    }
    out.extend(parts.iter().flatten());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authn;

    fn request(subject: &[(rcgen::DnType, &str)], names: &[&str]) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serialize_request(&key).unwrap().pem().unwrap().into_bytes()
    }

    fn terms(usages: &[&str]) -> Terms {
        let from = Timestamp::now();
        Terms {
            usages: usages.iter().map(|u| (*u).to_owned()).collect(),
            from,
            until: from + jiff::SignedDuration::from_hours(1),
        }
    }

    #[test]
    fn of_several_common_names_the_last_counts() {
        let name = |text: &str| {
            let part = sequence(&[object_id(&[0x55, 0x04, 0x03]), tagged(0x0c, &[text.as_bytes().to_vec()])]);
            tagged(0x31, &[part])
        };
        let der = sequence(&[name("system:kube-controller-manager"), name("system:node:n1")]);
        let (_, subject) = X509Name::from_der(&der).unwrap();
        assert_eq!(common_name(&subject).unwrap().as_deref(), Some("system:node:n1"));
    }

    #[test]
    fn a_subject_that_others_may_read_otherwise_is_refused() {
        const T61_STRING: u8 = 0x14;
        let part = |id: u8, form: u8, text: &str| {
            let pair = sequence(&[object_id(&[0x55, 0x04, id]), tagged(form, &[text.as_bytes().to_vec()])]);
            tagged(0x31, &[pair])
        };
        let der = sequence(&[part(0x0a, 0x0c, "system:nodes"), part(0x0a, T61_STRING, "system:masters")]);
        let (_, subject) = X509Name::from_der(&der).unwrap();
        assert!(matches!(organizations(&subject), Err(SigningError::Subject)));
        let der = sequence(&[part(0x03, T61_STRING, "jane")]);
        let (_, subject) = X509Name::from_der(&der).unwrap();
        assert!(matches!(common_name(&subject), Err(SigningError::Subject)));
    }

    #[test]
    fn a_signed_request_is_a_certificate_that_its_authority_vouches_for() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::auth::pki::Pki::open(dir.path()).unwrap();
        // The second organization under a type of its own, as the builder keeps one per type.
        let second = rcgen::DnType::CustomDnType(vec![2, 5, 4, 10]);
        let subject = [(rcgen::DnType::CommonName, "jane"), (rcgen::DnType::OrganizationName, "dev"), (second, "ops")];
        let asked = Asked::parse(&request(&subject, &["a.example", "10.0.0.1"])).unwrap();
        assert_eq!((asked.common_name.as_str(), asked.dns_names, asked.addresses), ("jane", 1, 1));
        let der = pki.sign(&asked, &terms(&["digital signature", "key encipherment", "client auth"])).unwrap();
        let again = CertificateDer::from_pem_slice(pem(&der).as_bytes()).unwrap();
        let (rest, certificate) = X509Certificate::from_der(&again).unwrap();
        assert!(rest.is_empty());
        let organizations: Vec<_> = certificate.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(organizations, ["dev", "ops"]);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.value.digital_signature() && usage.value.key_encipherment() && !usage.value.key_cert_sign());
        assert!(!certificate.is_ca());
        let peer = authn::judge(&*authn::client_verifier(pki.ca_der()).unwrap(), &again, &[]);
        let authn::Peer::User { user, .. } = peer else { panic!("{peer:?}") };
        assert_eq!((user.name.as_str(), &user.groups[..2]), ("jane", &["dev".to_owned(), "ops".to_owned()][..]));
    }

    #[test]
    fn a_request_for_somebody_elses_key_is_not_read() {
        let pem = String::from_utf8(request(&[(rcgen::DnType::CommonName, "jane")], &[])).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut changed = der.to_vec();
        let at = changed.windows(4).position(|w| w == b"jane").unwrap();
        changed[at] = b'j' + 1;
        let text = super::pem(&changed).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert!(matches!(Asked::parse(text.as_bytes()), Err(SigningError::Proof)));
        assert!(matches!(Asked::parse(b"nonsense"), Err(SigningError::Request)));
    }

    proptest::proptest! {
        #[test]
        fn lengths_are_der(length in 0_usize..70_000) {
            let out = tagged(0x04, &[vec![0; length]]);
            let (rest, _) = x509_parser::der_parser::der::parse_der_octetstring(&out).unwrap();
            assert!(rest.is_empty());
        }
    }
}
