//! An authority on disk, and the certificates that it makes.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{CLOCK_SKEW, Identity, LEAF_LIFE, PkiError, ServerNames, read_identity, unix, write_identity};

const CA_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Server,
    Client,
}

/// As whom the server asks servers that extend it, and whom they have to trust for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxy {
    /// The authority of users' certificates, PEM.
    pub client_ca: String,
    /// The authority of `identity` and of nothing else, PEM.
    pub ca: String,
    pub identity: Identity,
}

impl FrontProxy {
    /// The common name of the front proxy's certificate.
    pub const NAME: &str = "front-proxy-client";
}

/// An authority's certificate and key.
pub(super) struct Authority {
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads `NAME.crt` and `NAME.key`, or makes them.
    pub(super) fn open(dir: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        let identity = match read_identity(dir, name)? {
            Some(identity) => identity,
            None => write_identity(dir, name, make_authority(common_name)?)?,
        };
        let damaged = |suffix: &str| PkiError::Damaged { path: dir.join(format!("{name}.{suffix}")) };
        let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).map_err(|_| damaged("crt"))?;
        let key = KeyPair::from_pem(&identity.key).map_err(|_| damaged("key"))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| damaged("crt"))?;
        Ok(Self { pem: identity.certificate, der, issuer })
    }

    pub(super) fn issue(
        &self,
        purpose: Purpose,
        user: &str,
        group: Option<&str>,
        names: &ServerNames,
    ) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(user, group, LEAF_LIFE);
        params.subject_alt_names = names.subject_names()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn make_authority(common_name: &str) -> Result<Identity, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = params(common_name, None, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(user: &str, group: Option<&str>, life: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let epoch = date_time_ymd(1970, 1, 1);
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(unix(now - CLOCK_SKEW));
    params.not_after = epoch + Duration::from_secs(unix(now + life));
    params.distinguished_name = name;
    params
}
