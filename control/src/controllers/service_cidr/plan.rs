//! What should be done about a range, a Service's address or an IPAddress, and what people are told. Pure.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, ParentReference, ServiceCIDR, ServiceCIDRStatus as Status};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use wherry_api::cel::net::Cidr;

use crate::controllers::write;
use crate::reconcile::Key;
use crate::server::alloc::{self, ALLOCATOR, FAMILY, MANAGED_BY, family};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
/// How long an IPAddress may wait for its Service, as in Kubernetes.
const LONELY: Duration = Duration::from_secs(60);

/// What is done about a range.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Leave,
    Finalizers(Vec<String>),
    Status(Status),
}

/// Whether the range stays until this controller lets it go.
pub(super) fn is_held(range: &ServiceCIDR) -> bool {
    range.metadata.finalizers.iter().flatten().any(|known| known == FINALIZER)
}

/// Whether it matters if addresses need the range.
pub(super) fn asks(range: &ServiceCIDR) -> bool {
    range.metadata.deletion_timestamp.is_some() && is_held(range)
}

pub(super) fn range(range: &ServiceCIDR, needed: bool, now: Timestamp) -> Action {
    if asks(range) && needed {
        return judged(range, "False", "Terminating", IN_USE, now);
    }
    match write::finalizers(&range.metadata, FINALIZER) {
        Some(finalizers) => Action::Finalizers(finalizers),
        None if range.metadata.deletion_timestamp.is_some() => Action::Leave,
        None => judged(range, "True", "", READY, now),
    }
}

fn judged(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> Action {
    let mut conditions = range.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == status) {
        return Action::Leave;
    }
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    });
    Action::Status(Status { conditions: Some(conditions) })
}

/// Kubernetes' rule: neither a range's first address nor, of IPv4, its last one is of a Service.
fn contains(range: Cidr, ip: IpAddr) -> bool {
    let last = match (range.masked().address, ip) {
        (IpAddr::V4(first), IpAddr::V4(_)) => {
            let hosts = u32::MAX.checked_shr(u32::from(range.bits)).unwrap_or_default();
            Some(IpAddr::V4((first.to_bits() | hosts).into()))
        }
        _ => None,
    };
    range.contains_ip(ip) && range.masked().address != ip && last != Some(ip)
}

fn holds(range: &ServiceCIDR, ip: IpAddr) -> bool {
    let cidrs = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|text| Cidr::parse(text)).any(|cidr| contains(cidr, ip))
}

pub(super) fn in_a_range<'a>(ip: IpAddr, ranges: impl IntoIterator<Item = &'a ServiceCIDR>) -> bool {
    ranges.into_iter().any(|range| holds(range, ip))
}

/// Whether the range of this name is the only one that some address is in, of those that do not go without having been
/// judged themselves: of two that are being deleted the first may go for the other's sake, and never both.
pub(super) fn is_needed<'a>(
    name: &str,
    ranges: impl IntoIterator<Item = &'a ServiceCIDR>,
    addresses: impl IntoIterator<Item = &'a IPAddress>,
) -> bool {
    let is_it = |range: &&ServiceCIDR| range.metadata.name.as_deref() == Some(name);
    let (own, mut others): (Vec<_>, Vec<_>) = ranges.into_iter().partition(is_it);
    others.retain(|range| is_held(range));
    let ips = addresses.into_iter().filter_map(ip_of);
    ips.into_iter().any(|ip| own.iter().any(|range| holds(range, ip)) && !others.iter().any(|range| holds(range, ip)))
}

fn ip_of(address: &IPAddress) -> Option<IpAddr> {
    address.metadata.name.as_deref()?.parse().ok()
}

fn label<'a>(address: &'a IPAddress, key: &str) -> Option<&'a str> {
    address.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether the server made it for a Service.
pub(super) fn is_managed(address: &IPAddress) -> bool {
    label(address, MANAGED_BY) == Some(ALLOCATOR)
}

/// The Service that an IPAddress names.
pub(super) fn parent(address: &IPAddress) -> Option<Key> {
    let parent = &address.spec.parent_ref;
    let is_service = parent.group.as_deref().unwrap_or_default().is_empty() && parent.resource == "services";
    is_service.then(|| Key::new(parent.namespace.as_deref().unwrap_or_default(), &parent.name))
}

/// The addresses of a Service that has some.
pub(super) fn cluster_ips(service: &Service) -> Vec<&str> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    spec.cluster_ips.iter().flatten().map(String::as_str).filter(|ip| !matches!(*ip, "" | "None")).collect()
}

pub(super) fn has(service: &Service, ip: IpAddr) -> bool {
    cluster_ips(service).into_iter().any(|text| text.parse() == Ok(ip))
}

/// Reason and message of an event.
type Told = (&'static str, String);

pub(super) fn out_of_range(ip: IpAddr) -> Told {
    let family = family(ip);
    let what =
        format!("Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service");
    ("ClusterIPOutOfRange", what)
}

/// What is done about a Service's IPAddress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    /// Only a person can.
    Leave,
    Remake,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad(Option<Told>, Fix),
}

/// Judges the IPAddress of a Service's address. `owns`: whether another Service has that address.
pub(super) fn of_service(
    service: &Service,
    ip: IpAddr,
    address: Option<&IPAddress>,
    owns: impl Fn(&Key) -> bool,
) -> Verdict {
    let (family, own) = (family(ip), Key::of(service));
    let Some(address) = address else {
        let what = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
        return Verdict::Bad(Some(("ClusterIPNotAllocated", what)), Fix::Remake);
    };
    match parent(address) {
        Some(parent) if parent == own => {}
        Some(parent) if owns(&parent) => {
            let what = format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service");
            return Verdict::Bad(Some(("ClusterIPAlreadyAllocated", what)), Fix::Leave);
        }
        _ => {
            let what = format!("the ClusterIP [{family}]: {ip} for Service {own} has a wrong reference; repairing");
            return Verdict::Bad(Some(("ClusterIPNotAllocated", what)), Fix::Remake);
        }
    }
    if is_managed(address) && label(address, FAMILY) == Some(family) {
        return Verdict::Good;
    }
    Verdict::Bad(None, Fix::Remake)
}

/// The IPAddress of a Service's address.
pub(super) fn address(service: &Service, ip: IpAddr) -> IPAddress {
    let Key { namespace, name } = Key::of(service);
    alloc::address(ip, &namespace, &name)
}

/// What is done about an IPAddress that may have lost its Service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leak {
    None,
    /// Its Service may come yet.
    Wait(Duration),
    Remove(&'static str, String),
}

/// Judges an IPAddress; `service` is the one that it names.
pub(super) fn of_address(address: &IPAddress, service: Option<&Service>, now: Timestamp) -> Leak {
    let (name, ip) = (address.metadata.name.as_deref().unwrap_or_default(), ip_of(address));
    let Some(ip) = ip.filter(|_| is_managed(address)) else { return Leak::None };
    let Some(parent) = parent(address) else {
        let what = shown(&address.spec.parent_ref);
        let what =
            format!("IPAddress {name} appears to have been modified, not referencing a Service {what}: cleaning up");
        return Leak::Remove("IPAddressNotAllocated", what);
    };
    match service {
        Some(service) if has(service, ip) => Leak::None,
        Some(_) => {
            let what = format!("IPAddress: {name} for Service {parent} has a wrong reference; cleaning up");
            Leak::Remove("IPAddressWrongReference", what)
        }
        None => {
            let since = address.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
            let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            if age <= LONELY {
                return Leak::Wait(LONELY.saturating_sub(age) + Duration::from_secs(1));
            }
            let what = format!("IPAddress: {name} for Service {parent} appears to have leaked: cleaning up");
            Leak::Remove("IPAddressNotAllocated", what)
        }
    }
}

/// As Kubernetes prints a reference.
fn shown(parent: &ParentReference) -> String {
    let (group, namespace) = (parent.group.as_deref(), parent.namespace.as_deref());
    format!(
        "&ParentReference{{Group:{},Resource:{},Namespace:{},Name:{},}}",
        group.unwrap_or_default(),
        parent.resource,
        namespace.unwrap_or_default(),
        parent.name
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cidr(name: &str, cidrs: &[&str]) -> ServiceCIDR {
        let metadata = json!({"name": name, "finalizers": [FINALIZER]});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"cidrs": cidrs}})).unwrap()
    }

    fn deleting(mut range: ServiceCIDR) -> ServiceCIDR {
        range.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        range
    }

    fn service(name: &str, ip: &str) -> Service {
        let spec = json!({"clusterIP": ip, "clusterIPs": [ip]});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_gets_its_finalizer_and_then_its_condition() {
        let mut object = cidr("one", &["10.0.0.0/24"]);
        object.metadata.finalizers = None;
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(range(&object, false, now), Action::Finalizers(vec![FINALIZER.to_owned()]));
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let Action::Status(status) = range(&object, false, now) else { panic!("no status") };
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!((condition.status.as_str(), condition.message.as_str()), ("True", READY));
        object.status = Some(status);
        assert_eq!(range(&object, false, now), Action::Leave);
        let mut object = deleting(object);
        let Action::Status(status) = range(&object, true, now) else { panic!("no status") };
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Terminating"));
        object.status = Some(status);
        assert_eq!(range(&object, true, now), Action::Leave);
        assert_eq!(range(&object, false, now), Action::Finalizers(Vec::new()));
        object.metadata.finalizers = None;
        assert_eq!(range(&object, false, now), Action::Leave);
    }

    #[test]
    fn a_range_is_needed_while_an_address_is_in_no_other() {
        let (small, large) = (cidr("small", &["10.0.0.0/24"]), cidr("large", &["10.0.0.0/16", "fd00::/112"]));
        let of = |text: &str| address(&service("web", text), ip(text));
        let needed = |name: &str, text: &str| is_needed(name, [&small, &large], [&of(text)]);
        assert!(!needed("small", "10.0.0.7") && !needed("large", "10.0.0.7"), "each covers for the other");
        assert!(needed("large", "10.0.1.7") && needed("large", "fd00::7"));
        assert!(!needed("small", "10.9.0.7"), "it is in none of them");
        assert!(needed("large", "10.0.0.255"), "a range's last address is none of its own");
        assert!(is_needed("small", [&small], [&of("10.0.0.7")]));
    }

    #[test]
    fn of_two_ranges_that_are_being_deleted_one_stays_for_their_addresses() {
        let (mut first, second) =
            (deleting(cidr("first", &["10.0.0.0/24"])), deleting(cidr("second", &["10.0.0.0/16"])));
        let own = address(&service("web", "10.0.0.7"), ip("10.0.0.7"));
        assert!(!is_needed("first", [&first, &second], [&own]), "the second is asked, too, before it goes");
        // It is still there for somebody else's sake, and goes without being asked again.
        first.metadata.finalizers = Some(vec!["example.com/kept".to_owned()]);
        assert!(is_needed("second", [&first, &second], [&own]));
    }

    #[test]
    fn a_services_address_has_its_ip_address() {
        let (web, own) = (service("web", "10.0.0.7"), ip("10.0.0.7"));
        let good = address(&web, own);
        assert_eq!(of_service(&web, own, Some(&good), |_| false), Verdict::Good);
        let reason = |verdict: Verdict| match verdict {
            Verdict::Bad(told, fix) => (told.map(|(reason, _)| reason), fix),
            Verdict::Good => panic!("it is good"),
        };
        assert_eq!(reason(of_service(&web, own, None, |_| false)), (Some("ClusterIPNotAllocated"), Fix::Remake));
        let others = address(&service("other", "10.0.0.7"), own);
        let judge = |owned: bool| reason(of_service(&web, own, Some(&others), |_| owned));
        assert_eq!(judge(true), (Some("ClusterIPAlreadyAllocated"), Fix::Leave));
        assert_eq!(judge(false), (Some("ClusterIPNotAllocated"), Fix::Remake));
        let mut unlabelled = good;
        unlabelled.metadata.labels = None;
        assert_eq!(reason(of_service(&web, own, Some(&unlabelled), |_| false)), (None, Fix::Remake));
    }

    #[test]
    fn an_ip_address_without_its_service_goes_after_a_minute() {
        let (web, own) = (service("web", "10.0.0.7"), ip("10.0.0.7"));
        let mut made = address(&web, own);
        made.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let after = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        assert_eq!(of_address(&made, Some(&web), after(90)), Leak::None);
        assert!(matches!(of_address(&made, None, after(30)), Leak::Wait(time) if time.as_secs() == 31));
        let gone = |leak: Leak| match leak {
            Leak::Remove(reason, what) => (reason, what),
            other => panic!("{other:?}"),
        };
        let (reason, what) = gone(of_address(&made, None, after(90)));
        assert_eq!(reason, "IPAddressNotAllocated");
        assert_eq!(what, "IPAddress: 10.0.0.7 for Service a/web appears to have leaked: cleaning up");
        assert_eq!(gone(of_address(&made, Some(&service("web", "10.0.0.8")), after(0))).0, "IPAddressWrongReference");
        made.spec.parent_ref.resource = "gateways".to_owned();
        let (_, what) = gone(of_address(&made, None, after(0)));
        assert!(what.contains("&ParentReference{Group:,Resource:gateways,Namespace:a,Name:web,}"), "{what}");
        made.metadata.labels = None;
        assert_eq!(of_address(&made, None, after(90)), Leak::None, "somebody else's");
    }
}
