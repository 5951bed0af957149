//! Why a server did not answer, in a person's words. What the libraries say of it names their own parts.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// What stood between a client and its answer. The text goes on where a server was named: "HOST cannot be reached: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the connection was refused: nothing listens there")]
    Refused,
    #[error("its name cannot be resolved")]
    Name,
    #[error("there is no way to it in the network")]
    Unroutable,
    #[error("it did not answer in time")]
    Late,
    #[error("it closed the connection before it answered")]
    Closed,
    #[error("what listens there does not speak TLS")]
    NotTls,
    #[error("what listens there does not speak HTTP")]
    NotHttp,
    #[error("its certificate is signed by an authority that is not trusted here")]
    Authority,
    #[error("its certificate has expired, or this machine's clock is wrong")]
    Expired,
    #[error("its certificate is not valid yet, or this machine's clock is wrong")]
    Early,
    #[error("its certificate is for another name")]
    Misnamed,
    #[error("its certificate is an authority's (CA:TRUE), as self-signed ones often are, and cannot be a server's")]
    NotServers,
    #[error("its certificate cannot be verified")]
    Certificate,
    #[error("it does not accept this client's certificate")]
    Client,
}

impl Fault {
    /// The fault that an error, or one of its causes, is about; of several the innermost.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        causes(error).filter_map(Self::one).last()
    }

    fn one(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Self::of_io(error);
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Self::of_tls(error);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            let faults = [
                (error.is_timeout(), Self::Late),
                (error.is_incomplete_message(), Self::Closed),
                (error.is_parse(), Self::NotHttp),
            ];
            return faults.into_iter().find_map(|(is, fault)| is.then_some(fault));
        }
        let late = error.is::<tokio::time::error::Elapsed>()
            || error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
        late.then_some(Self::Late)
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Some(Self::Refused),
            Kind::TimedOut => Some(Self::Late),
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Some(Self::Unroutable),
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
                Some(Self::Closed)
            }
            // The standard library has no kind for it.
            _ => error.to_string().starts_with("failed to lookup address").then_some(Self::Name),
        }
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidMessage(_) => Some(Self::NotTls),
            rustls::Error::InvalidCertificate(why) => Some(match why {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::Early,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Misnamed,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Authority,
                // The library has no name for it that others can compare.
                CertificateError::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => Self::NotServers,
                _ => Self::Certificate,
            }),
            rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate,
            ) => Some(Self::Client),
            _ => None,
        }
    }
}

/// What is said of an error: its fault, else its first cause in the libraries' words.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let first = || causes(error).last().map_or_else(|| error.to_string(), ToString::to_string);
    Fault::of(error).map_or_else(first, |fault| fault.to_string())
}

/// An error and what caused it, in one line for a person.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Bytes of a message in a pod's status, as the kubelet cuts those of containers that ended: it may have names that an image gives.
pub const STATUS: usize = 4096;

/// Bytes of an event's message, as Kubernetes bounds it.
pub const EVENT: usize = 1024;

/// The first bytes of a message, with a sign that there were more.
pub fn cut(mut message: String, most: usize) -> String {
    const MORE: char = '\u{2026}';
    if message.len() > most {
        message.truncate(message.floor_char_boundary(most - MORE.len_utf8()));
        message.push(MORE);
    }
    message
}

/// An error and what caused it, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        // The source of an I/O error is the source of the error in it, which would so be passed over.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &'a (dyn Error + 'static)),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(cut("\u{e9}".repeat(4), 8), "\u{e9}".repeat(4));
        assert_eq!(cut("\u{e9}".repeat(5), 8), "\u{e9}\u{e9}\u{2026}");
    }

    fn fault(error: io::Error) -> Option<Fault> {
        Fault::of(&Outer(error))
    }

    #[test]
    fn a_fault_is_found_below_what_libraries_put_around_it() {
        let tls = |error: rustls::Error| fault(io::Error::new(io::ErrorKind::InvalidData, error));
        let certificate = |why| tls(rustls::Error::InvalidCertificate(why));
        assert_eq!(certificate(CertificateError::UnknownIssuer), Some(Fault::Authority));
        assert_eq!(certificate(CertificateError::Expired), Some(Fault::Expired));
        assert_eq!(certificate(CertificateError::NotValidForName), Some(Fault::Misnamed));
        assert_eq!(tls(rustls::InvalidMessage::InvalidContentType.into()), Some(Fault::NotTls));
        assert_eq!(tls(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)), Some(Fault::Client));
        assert_eq!(fault(io::ErrorKind::ConnectionRefused.into()), Some(Fault::Refused));
        assert_eq!(
            fault(io::Error::other("failed to lookup address information: Name or service not known")),
            Some(Fault::Name)
        );
        assert_eq!(fault(io::Error::other("something else")), None);
        assert_eq!(told(&Outer(io::Error::other("something else"))), "something else");
    }
}
