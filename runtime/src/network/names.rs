//! Name resolution for guests, in the host: the cluster's zone (`svc`, `svc.ns`, `svc.ns.svc`, `svc.ns.svc.cluster.local`,
//! headless pods) without a packet; for others there is the host's [resolver](super::resolver). Follows Kubernetes' DNS-based
//! service discovery.

use std::net::{IpAddr, Ipv4Addr};

use super::PodIdentity;
use super::services::{Named, Services};

/// The cluster's domain.
const DOMAIN: &str = "cluster.local";

/// Bytes of a name at most, without the dot of the root.
const LONGEST: usize = 253;

/// Whether this can be a name, or an address.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.trim_end_matches('.').len() <= LONGEST && text.len() <= LONGEST + 1
}

/// What the cluster's zone says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Addresses(Vec<IpAddr>),
    /// An ExternalName Service: look this up instead.
    Elsewhere(String),
    /// The name is in the cluster's zone and does not exist.
    NoSuchName,
    /// The zone has nothing to say.
    NotOurs,
}

/// Looks a name up in the cluster's zone, as a pod's resolver would with its search path.
pub(super) fn in_cluster(services: &Services, pod: &PodIdentity, own: Ipv4Addr, name: &str) -> Answer {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = name.parse::<IpAddr>() {
        return Answer::Addresses(vec![address]);
    }
    if name == "localhost" {
        return Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    if name == pod.name {
        return Answer::Addresses(vec![own.into()]);
    }
    let (inside, certain) = match name.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.')) {
        Some(inside) => (inside, true),
        None => (name.as_str(), false),
    };
    let labels: Vec<&str> = inside.split('.').collect();
    let found = match labels.as_slice() {
        [service] if !certain => lookup(services, &pod.namespace, service, None),
        [service, namespace] if !certain => lookup(services, namespace, service, None)
            .or_else(|| lookup(services, &pod.namespace, namespace, Some(service))),
        [service, namespace, "svc"] => lookup(services, namespace, service, None),
        [host, service, namespace, "svc"] => lookup(services, namespace, service, Some(host)),
        [host, service, namespace] if !certain => lookup(services, namespace, service, Some(host)),
        [address, _namespace, "pod"] => address.replace('-', ".").parse().ok().map(|ip| Answer::Addresses(vec![ip])),
        _ => None,
    };
    found.unwrap_or(if certain { Answer::NoSuchName } else { Answer::NotOurs })
}

/// A Service's addresses, or those of its endpoint `host`.
fn lookup(services: &Services, namespace: &str, service: &str, host: Option<&str>) -> Option<Answer> {
    let Named { cluster_ip, external_name, endpoints, .. } = services.named(namespace, service)?;
    if let (Some(target), None) = (external_name, host) {
        return Some(Answer::Elsewhere(target));
    }
    let addresses: Vec<IpAddr> = match (cluster_ip, host) {
        (Some(address), None) => vec![address.into()],
        (_, host) => endpoints
            .iter()
            .filter(|(address, name)| host.is_none_or(|host| name.as_deref() == Some(host) || dashed(*address) == host))
            .map(|(address, _)| *address)
            .collect(),
    };
    Some(if addresses.is_empty() { Answer::NoSuchName } else { Answer::Addresses(addresses) })
}

fn dashed(address: IpAddr) -> String {
    address.to_string().replace('.', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str) -> Answer {
        let services = Services::default();
        let web = Named { cluster_ip: Some(Ipv4Addr::new(127, 1, 0, 5)), ..Named::default() };
        services.replace("shop", "web", Some(web));
        let endpoints = [("127.64.0.1", Some("db-0")), ("127.64.0.2", Some("db-1"))];
        let endpoints = endpoints.map(|(a, h)| (a.parse().unwrap(), h.map(str::to_owned)));
        services.replace("shop", "db", Some(Named { endpoints: endpoints.into(), ..Named::default() }));
        services.replace("shop", "out", Some(Named { external_name: Some("example.com".into()), ..Named::default() }));
        let pod = PodIdentity { namespace: "shop".into(), name: "me-1".into(), uid: "u".into() };
        in_cluster(&services, &pod, Ipv4Addr::new(127, 64, 0, 9), name)
    }

    fn addresses(list: &[&str]) -> Answer {
        Answer::Addresses(list.iter().map(|a| a.parse().unwrap()).collect())
    }

    #[test]
    fn a_service_has_the_names_that_kubernetes_gives_it() {
        for name in
            ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local.", "WEB"]
        {
            assert_eq!(answer(name), addresses(&["127.1.0.5"]), "{name}");
        }
    }

    #[test]
    fn a_headless_service_is_its_endpoints_and_each_has_a_name() {
        assert_eq!(answer("db"), addresses(&["127.64.0.1", "127.64.0.2"]));
        assert_eq!(answer("db-1.db.shop.svc.cluster.local"), addresses(&["127.64.0.2"]));
        assert_eq!(answer("db-1.db"), addresses(&["127.64.0.2"]));
        assert_eq!(answer("127-64-0-1.db.shop.svc"), addresses(&["127.64.0.1"]));
    }

    #[test]
    fn the_pod_itself_localhost_and_literals_resolve() {
        assert_eq!(answer("me-1"), addresses(&["127.64.0.9"]));
        assert_eq!(answer("localhost"), addresses(&["127.0.0.1"]));
        assert_eq!(answer("10.1.2.3"), addresses(&["10.1.2.3"]));
        assert_eq!(answer("127-64-0-3.shop.pod.cluster.local"), addresses(&["127.64.0.3"]));
    }

    #[test]
    fn the_zone_is_certain_about_itself_and_silent_about_the_world() {
        assert_eq!(answer("none.shop.svc.cluster.local"), Answer::NoSuchName);
        assert_eq!(answer("web.other.svc.cluster.local"), Answer::NoSuchName);
        assert_eq!(answer("example.com"), Answer::NotOurs);
        assert_eq!(answer("out"), Answer::Elsewhere("example.com".into()));
    }
}
