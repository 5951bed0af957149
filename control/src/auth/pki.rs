//! The cluster's own certificate authority, and what it signs.
//!
//! Everything lives in one directory, mode 0700, its files 0600: `ca.crt` and `ca.key`, made once and kept for ten years;
//! `server.crt` and `server.key`, renewed at start when they are near their end or the server's names changed;
//! `front-proxy-ca.crt` and `.key`, an authority of its own for the one certificate with which this server asks servers that
//! extend it, so that nobody whom the cluster's authority knows can speak in others' names;
//! `token.key`, which signs service-account tokens, and `token-*.key`, which did so before. Client certificates are made when asked for and not kept here.
//! What must stay true: a private key is never logged and never leaves this directory except in an [`Identity`] that
//! its caller asked for.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use self::authority::{Authority, Purpose};
use super::files::{private_dir, write_private};
use super::signing::{self, Asked, SigningError, Terms};
use super::{MASTERS, NODE_PREFIX, NODES};

mod authority;

pub use authority::FrontProxy;

const LEAF_LIFE: Duration = Duration::from_hours(365 * 24);
/// A certificate with less than this left is renewed when it is next looked at.
const RENEW_BEFORE: Duration = Duration::from_hours(60 * 24);
/// Certificates are valid from this long ago, for clients whose clock is behind.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// Why the certificates could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} holds no usable certificate or key; restore it, or remove the directory to start with a new authority"
    )]
    Damaged { path: PathBuf },
    #[error("cannot make a key or certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot write the kubeconfig")]
    Kubeconfig(#[from] serde_yaml::Error),
}

/// A certificate chain and its private key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// What rustls wants; `None` if the PEM is not usable.
    pub fn to_der(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<_, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        if chain.is_empty() { None } else { Some((chain, key)) }
    }
}

/// The names under which a server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
}

impl ServerNames {
    /// The API server's: localhost, its Service's names and address, the host's name and the address it listens on.
    pub fn api_server(service: IpAddr, listen: IpAddr, extra: &[String]) -> Self {
        let mut names = Self::default();
        for name in [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ] {
            names.add(name);
        }
        if let Ok(host) = rustix::system::uname().nodename().to_str() {
            names.add(host);
        }
        for ip in [IpAddr::from([127, 0, 0, 1]), service, listen] {
            names.add(&ip.to_string());
        }
        for name in extra {
            names.add(name);
        }
        names
    }

    /// Adds a name or an address; unspecified addresses and names that a certificate cannot hold are left out.
    pub fn add(&mut self, name: &str) {
        match name.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || self.ips.contains(&ip) => {}
            Ok(ip) => self.ips.push(ip),
            Err(_) if name.is_empty() || !name.is_ascii() || self.dns.iter().any(|d| d == name) => {}
            Err(_) => self.dns.push(name.to_owned()),
        }
    }

    fn subject_names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let dns = self.dns.iter().map(|d| Ok(SanType::DnsName(d.as_str().try_into()?)));
        dns.chain(self.ips.iter().map(|ip| Ok(SanType::IpAddress(*ip)))).collect()
    }
}

/// The certificate authorities.
pub struct Pki {
    dir: PathBuf,
    ca: Authority,
    front_proxy: Authority,
    token_key: String,
    older_token_keys: Vec<String>,
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens the authority in `dir`, making what is missing.
    pub fn open(dir: &Path) -> Result<Arc<Self>, PkiError> {
        private_dir(dir).map_err(|source| PkiError::Write { path: dir.into(), source })?;
        Ok(Arc::new(Self {
            dir: dir.into(),
            ca: Authority::open(dir, "ca", "wherry-ca")?,
            front_proxy: Authority::open(dir, "front-proxy-ca", "wherry-front-proxy-ca")?,
            token_key: open_key(&dir.join("token.key"))?,
            older_token_keys: older_keys(dir)?,
        }))
    }

    /// The authority's certificate, which clients trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca.pem
    }

    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.ca.der
    }

    /// The private key that signs service-account tokens: ECDSA P-256, PKCS#8 PEM.
    pub fn token_key_pem(&self) -> &str {
        &self.token_key
    }

    /// Keys that signed tokens before: the files `token-*.key` beside it. Rotating is renaming `token.key` to such a name.
    pub fn older_token_keys(&self) -> &[String] {
        &self.older_token_keys
    }

    /// The API server's certificate: the one on disk while it is good for these names, else a new one.
    pub fn server_identity(&self, names: &ServerNames) -> Result<Identity, PkiError> {
        if let Some(kept) = read_identity(&self.dir, "server")?
            && self.still_good(&kept, names, SystemTime::now())
        {
            return Ok(kept);
        }
        write_identity(&self.dir, "server", self.ca.issue(Purpose::Server, "kube-apiserver", None, names)?)
    }

    /// A client certificate for a user in a group.
    pub fn client_identity(&self, user: &str, group: Option<&str>) -> Result<Identity, PkiError> {
        self.ca.issue(Purpose::Client, user, group, &ServerNames::default())
    }

    /// What the server shows to servers that extend it, and what those have to know.
    pub fn front_proxy(&self) -> Result<FrontProxy, PkiError> {
        let names = ServerNames::default();
        Ok(FrontProxy {
            client_ca: self.ca.pem.clone(),
            ca: self.front_proxy.pem.clone(),
            identity: self.front_proxy.issue(Purpose::Client, FrontProxy::NAME, None, &names)?,
        })
    }

    /// The certificate of the front proxies' authority.
    pub fn front_proxy_der(&self) -> &CertificateDer<'static> {
        &self.front_proxy.der
    }

    /// The administrator's certificate.
    pub fn admin_identity(&self) -> Result<Identity, PkiError> {
        self.client_identity("wherry-admin", Some(MASTERS))
    }

    /// A node's client certificate.
    pub fn node_identity(&self, name: &str) -> Result<Identity, PkiError> {
        self.client_identity(&format!("{NODE_PREFIX}{name}"), Some(NODES))
    }

    /// The certificate that a node's own server shows.
    pub fn node_serving_identity(&self, name: &str, addresses: &[IpAddr]) -> Result<Identity, PkiError> {
        let mut names = ServerNames::default();
        names.add(name);
        names.add("localhost");
        for address in addresses {
            names.add(&address.to_string());
        }
        self.ca.issue(Purpose::Server, &format!("{NODE_PREFIX}{name}"), Some(NODES), &names)
    }

    /// Whether this authority signed a certificate that has a while to go; for kubeconfigs kept on disk.
    pub fn keeps(&self, identity: &Identity) -> bool {
        leaf(identity).is_some_and(|der| self.signed(&der, SystemTime::now()))
    }

    /// Signs somebody's request; the answer is DER.
    pub fn sign(&self, asked: &Asked, terms: &Terms) -> Result<Vec<u8>, SigningError> {
        signing::sign(asked, terms, &self.ca.der, self.ca.issuer.key())
    }

    fn still_good(&self, identity: &Identity, names: &ServerNames, now: SystemTime) -> bool {
        let Some(der) = leaf(identity) else { return false };
        let same_key = KeyPair::from_pem(&identity.key).is_ok_and(|key| key_matches(&key, &der));
        same_key && self.signed(&der, now) && names_of(&der).is_some_and(|have| covers(&have, names))
    }

    fn signed(&self, der: &CertificateDer<'_>, now: SystemTime) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
        let Ok((_, authority)) = X509Certificate::from_der(&self.ca.der) else { return false };
        let ends = certificate.validity().not_after.timestamp();
        let wanted = unix(now + RENEW_BEFORE).cast_signed();
        // The authority is ours: an equal name and key identifier are enough here, rustls checks signatures.
        certificate.issuer() == authority.subject() && key_identifiers_match(&certificate, &authority) && ends > wanted
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn leaf(identity: &Identity) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(identity.certificate.as_bytes()).ok()
}

fn key_matches(key: &KeyPair, der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, c)| c.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

fn key_identifiers_match(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    use x509_parser::extensions::ParsedExtension::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
    let wanted = authority.extensions().iter().find_map(|e| match e.parsed_extension() {
        SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    let named = certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
        AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    wanted.is_some() && wanted == named
}

fn names_of(der: &CertificateDer<'_>) -> Option<ServerNames> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = ServerNames::default();
    for name in &certificate.subject_alternative_name().ok()??.value.general_names {
        match name {
            GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(octets) => names.ips.push(ip_of(octets)?),
            _ => {}
        }
    }
    Some(names)
}

fn ip_of(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn covers(have: &ServerNames, wanted: &ServerNames) -> bool {
    wanted.dns.iter().all(|d| have.dns.contains(d)) && wanted.ips.iter().all(|ip| have.ips.contains(ip))
}

fn read_identity(dir: &Path, name: &str) -> Result<Option<Identity>, PkiError> {
    let certificate = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        // The key is written first, so a certificate without one has lost it; for the authority that is fatal.
        (Some(_), None) if name.ends_with("ca") => Err(PkiError::Damaged { path: dir.join(format!("{name}.key")) }),
        _ => Ok(None),
    }
}

fn write_identity(dir: &Path, name: &str, identity: Identity) -> Result<Identity, PkiError> {
    for (suffix, contents) in [("key", &identity.key), ("crt", &identity.certificate)] {
        let path = dir.join(format!("{name}.{suffix}"));
        write_private(&path, contents.as_bytes()).map_err(|source| PkiError::Write { path, source })?;
    }
    Ok(identity)
}

fn open_key(path: &Path) -> Result<String, PkiError> {
    if let Some(pem) = read(path)? {
        KeyPair::from_pem(&pem).map_err(|_| PkiError::Damaged { path: path.into() })?;
        return Ok(pem);
    }
    let pem = KeyPair::generate()?.serialize_pem();
    write_private(path, pem.as_bytes()).map_err(|source| PkiError::Write { path: path.into(), source })?;
    Ok(pem)
}

fn older_keys(dir: &Path) -> Result<Vec<String>, PkiError> {
    let unreadable = |source| PkiError::Read { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for file in fs::read_dir(dir).map_err(unreadable)? {
        let name = file.map_err(unreadable)?.file_name();
        if name.to_str().is_some_and(|name| name.strip_suffix(".key").is_some_and(|stem| stem.starts_with("token-"))) {
            paths.push(dir.join(name));
        }
    }
    paths.sort();
    let mut keys = Vec::new();
    for path in paths {
        let pem = read(&path)?.unwrap_or_default();
        KeyPair::from_pem(&pem).map_err(|_| PkiError::Damaged { path })?;
        keys.push(pem);
    }
    Ok(keys)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(extra: &str) -> ServerNames {
        ServerNames::api_server([10, 96, 0, 1].into(), [127, 0, 0, 1].into(), &[extra.to_owned()])
    }

    #[test]
    fn the_authority_and_the_servers_certificate_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let identity = first.server_identity(&names("a")).unwrap();
        let second = Pki::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.token_key_pem(), second.token_key_pem());
        assert_eq!(second.server_identity(&names("a")).unwrap(), identity);
    }

    #[test]
    fn a_new_name_or_a_near_end_renews_the_servers_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let identity = pki.server_identity(&names("a")).unwrap();
        assert_ne!(pki.server_identity(&names("b.example")).unwrap(), identity);
        assert!(pki.still_good(&identity, &names("a"), SystemTime::now()));
        assert!(!pki.still_good(&identity, &names("a"), SystemTime::now() + LEAF_LIFE - RENEW_BEFORE + CLOCK_SKEW));
    }

    #[test]
    fn a_certificate_of_another_authority_is_not_kept() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let identity = Pki::open(one.path()).unwrap().admin_identity().unwrap();
        assert!(!Pki::open(two.path()).unwrap().keeps(&identity));
        assert!(Pki::open(one.path()).unwrap().keeps(&identity));
    }

    #[test]
    fn a_lost_authority_key_is_an_error_not_a_new_authority() {
        let dir = tempfile::tempdir().unwrap();
        Pki::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Pki::open(dir.path()), Err(PkiError::Damaged { .. })));
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Pki::open(dir.path()).unwrap().server_identity(&names("a")).unwrap();
        for file in fs::read_dir(dir.path()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
    }
}
