//! Addresses and ports have one owner, whatever writes do to each other.

use wherry_api::registry::Registry;
use wherry_api::strategy::Part;

use super::service::cluster_ip;
use super::*;

/// A pool, and the ranges that are ready.
struct All {
    pool: Pool,
    ready: Vec<Ready>,
    /// Addresses of IPAddresses that somebody made.
    reserved: Vec<Ipv4Addr>,
}

impl All {
    fn taken(&self) -> usize {
        self.pool.taken.lock().len()
    }

    fn release(&self, uid: &str) {
        self.pool.release(&Key::from_stored("core/services/a/one"), uid);
    }
}

fn allocators(cidr: &str) -> All {
    All { pool: Pool::new(30000..=30003), ready: vec![Ready::of(&[cidr])], reserved: Vec::new() }
}

fn begin(all: &All, name: &str, spec: Value, old: Option<&Value>) -> Result<(Value, Hold), String> {
    let registry = Registry::builtin();
    let resource = registry.by_plural("", "v1", "services").unwrap();
    let mut service = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
    if let Some(old) = old {
        resource.strategy.prepare_update(&mut service, old, Part::Main);
    }
    let key = Key::new(&resource.group_resource(), "a", name);
    let stored = Stored { ready: &all.ready, taken: &|address| all.reserved.contains(&address) };
    let hold = all.pool.begin(resource, &key, &mut service, old, &stored).map_err(|e| e.message)?;
    Ok((service, hold))
}

#[test]
fn an_address_has_one_owner_until_it_is_released() {
    let all = allocators("10.0.0.0/24");
    let (service, hold) = begin(&all, "one", json!({"clusterIP": "10.0.0.7"}), None).unwrap();
    assert_eq!(service.pointer("/spec/clusterIPs/0"), Some(&json!("10.0.0.7")));
    hold.keep();
    let refused = begin(&all, "two", json!({"clusterIP": "10.0.0.7"}), None).unwrap_err();
    assert!(refused.contains("failed to allocate IP 10.0.0.7: provided IP is already allocated"), "{refused}");
    let refused = begin(&all, "two", json!({"clusterIP": "10.0.1.7"}), None).unwrap_err();
    let why = "failed to allocate IP 10.0.1.7: the provided network does not match the current range";
    assert!(refused.contains(why), "{refused}");
    all.release("");
    assert!(begin(&all, "two", json!({"clusterIP": "10.0.0.7"}), None).is_ok());
}

#[test]
fn a_write_that_does_not_happen_takes_nothing() {
    let all = allocators("10.0.0.0/24");
    drop(begin(&all, "one", json!({"type": "NodePort", "ports": [{"port": 80}]}), None).unwrap());
    assert!(all.taken() == 0);
}

#[test]
fn a_write_that_fails_leaves_what_another_write_of_the_same_service_took() {
    let all = allocators("10.0.0.0/24");
    let spec = json!({"type": "NodePort", "clusterIP": "10.0.0.7", "ports": [{"port": 80, "nodePort": 30001}]});
    let (_, slower) = begin(&all, "one", spec.clone(), None).unwrap();
    let (_, faster) = begin(&all, "one", spec.clone(), None).unwrap();
    faster.keep();
    drop(slower);
    assert!(begin(&all, "two", spec, None).unwrap_err().contains("already allocated"));
    all.release("");
    assert!(all.taken() == 0);
}

#[test]
fn the_end_of_a_service_frees_nothing_of_the_next_one_of_its_name() {
    let all = allocators("10.0.0.0/24");
    let (_, hold) = begin(&all, "one", json!({"type": "NodePort", "ports": [{"port": 80}]}), None).unwrap();
    hold.keep();
    all.release("an older uid");
    assert_eq!(all.taken(), 2);
}

#[test]
fn a_full_range_is_said_and_no_address_is_given_twice() {
    let all = allocators("10.0.0.0/27");
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..29 {
        let (service, hold) = begin(&all, &format!("s{n}"), json!({}), None).unwrap();
        assert!(seen.insert(cluster_ip(&service).to_owned()));
        hold.keep();
    }
    assert!(!seen.contains("10.0.0.1"), "the first address is the kubernetes Service's");
    let full = "Internal error occurred: failed to allocate a serviceIP: range is full";
    assert_eq!(begin(&all, "more", json!({}), None).unwrap_err(), full);
}

#[test]
fn node_ports_are_kept_by_an_update_and_freed_by_a_change_of_type() {
    let all = allocators("10.0.0.0/24");
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30001}]});
    let (first, hold) = begin(&all, "one", spec.clone(), None).unwrap();
    hold.keep();
    let (again, hold) = begin(&all, "one", spec, Some(&first)).unwrap();
    assert_eq!(first, again);
    hold.keep();
    let ports = json!([{"port": 80}, {"port": 81, "nodePort": 30001}]);
    let (plain, hold) = begin(&all, "one", json!({"type": "ClusterIP", "ports": ports}), Some(&first)).unwrap();
    hold.keep();
    assert_eq!(plain.pointer("/spec/ports/1/nodePort"), None);
    assert_eq!(items(&plain).len(), 1);
    assert_eq!(all.taken(), 1);
    let refused = begin(&all, "two", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}), None);
    assert!(refused.unwrap_err().contains("The range of valid ports is 30000-30003"));
}

#[test]
fn a_load_balancer_that_has_no_ports_chosen_owns_those_that_it_asks_for() {
    let all = allocators("10.0.0.0/24");
    let ports = json!([{"port": 80, "nodePort": 30001}, {"port": 81}]);
    let spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports});
    let (_, hold) =
        begin(&all, "one", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}), None).unwrap();
    assert!(begin(&all, "two", spec.clone(), None).unwrap_err().contains("provided port is already allocated"));
    drop(hold);
    let (service, _hold) = begin(&all, "two", spec, None).unwrap();
    assert_eq!(service.pointer("/spec/ports/1/nodePort"), None);
    let spec =
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1, "nodePort": 80}]});
    assert!(begin(&all, "three", spec, None).unwrap_err().contains("The range of valid ports is"));
    // What no node opens belongs to nobody.
    let named = json!({"spec": {"type": "ExternalName", "ports": [{"port": 80, "nodePort": 30001}]}});
    assert!(items(&named).is_empty());
}

#[test]
fn the_protocols_of_a_port_have_one_node_port() {
    let all = allocators("10.0.0.0/24");
    let port = |name: &str, number: u16, protocol: &str| json!({"name": name, "port": number, "protocol": protocol});
    let spec = |ports: &[&Value]| json!({"type": "NodePort", "clusterIP": "10.0.0.7", "ports": ports});
    let given = |service: &Value| ports(service).iter().filter_map(node_port).collect::<Vec<_>>();
    let (tcp, udp, web) = (port("tcp", 53, "TCP"), port("udp", 53, "UDP"), port("web", 80, "TCP"));
    let (first, hold) = begin(&all, "one", spec(&[&tcp, &web]), None).unwrap();
    hold.keep();
    let (second, hold) = begin(&all, "one", spec(&[&tcp, &web, &udp]), Some(&first)).unwrap();
    hold.keep();
    let [a, b, c] = given(&second)[..] else { panic!("{second}") };
    assert!(a == c && a != b, "{second}");
    let (again, hold) = begin(&all, "one", spec(&[&tcp, &web, &udp]), Some(&second)).unwrap();
    hold.keep();
    assert_eq!((given(&again), all.taken()), (given(&second), 3));
    all.release("");
    assert_eq!(all.taken(), 0);

    // Also one that is asked for later in the list, unless another port of the protocol has it.
    let (mut asked, mut other) = (udp, port("other", 99, "TCP"));
    asked["nodePort"] = json!(30001);
    let (made, _hold) = begin(&all, "one", spec(&[&tcp, &asked]), None).unwrap();
    assert_eq!(given(&made), [30001, 30001]);
    other["nodePort"] = json!(30001);
    let (made, _hold) = begin(&all, "one", spec(&[&tcp, &asked, &other]), None).unwrap();
    assert!(given(&made)[0] != 30001, "{made}");
}

#[test]
fn a_load_balancer_of_local_traffic_has_a_port_where_health_is_asked() {
    let all = allocators("10.0.0.0/24");
    let spec = |policy: &str, more: Value| {
        let mut spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}],
            "allocateLoadBalancerNodePorts": false});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let local = |more: Value| spec("Local", more);
    let (first, hold) = begin(&all, "one", local(json!({})), None).unwrap();
    hold.keep();
    let given = health_port(&first).unwrap();
    assert!((30000..=30003).contains(&given) && all.taken() == 2);
    let (again, hold) = begin(&all, "one", local(json!({})), Some(&first)).unwrap();
    hold.keep();
    assert_eq!(health_port(&again), Some(given), "an update that leaves it out keeps it");

    let why = |port: i64, why: &str| format!("failed to allocate requested HealthCheck NodePort {port}: {why}");
    let refused = begin(&all, "two", local(json!({"healthCheckNodePort": given})), None).unwrap_err();
    assert!(refused.ends_with(&why(given, "provided port is already allocated")), "{refused}");
    let refused = begin(&all, "two", local(json!({"healthCheckNodePort": 80})), None).unwrap_err();
    let range = "provided port is not in the valid range. The range of valid ports is 30000-30003";
    assert!(refused.ends_with(&why(80, range)), "{refused}");
    let open = json!([{"port": 80, "nodePort": given}]);
    assert!(begin(&all, "two", spec("Cluster", json!({"ports": open})), None).is_err());
    let refused = begin(&all, "one", local(json!({"ports": open})), Some(&first)).unwrap_err();
    assert!(refused.contains("spec.ports[0].nodePort: Invalid value"), "{refused}");
    let free = (30000..=30003).find(|port| *port != given).unwrap();
    let both = json!({"ports": [{"port": 80, "nodePort": free}], "healthCheckNodePort": free});
    assert!(
        begin(&all, "two", local(both), None).unwrap_err().starts_with("Internal error"),
        "one port for two things"
    );

    let (plain, hold) = begin(&all, "one", spec("Cluster", json!({})), Some(&first)).unwrap();
    hold.keep();
    assert_eq!((health_port(&plain), all.taken()), (None, 1));
}

#[test]
fn headless_and_named_services_have_no_address() {
    let all = allocators("10.0.0.0/24");
    let (headless, _hold) = begin(&all, "one", json!({"clusterIP": "None"}), None).unwrap();
    assert_eq!(headless.pointer("/spec/clusterIPs"), Some(&json!(["None"])));
    let (named, _hold) = begin(&all, "two", json!({"type": "ExternalName", "externalName": "x.y"}), None).unwrap();
    assert_eq!(named.pointer("/spec/clusterIP"), None);
    assert!(all.taken() == 0);
}

#[test]
fn other_ranges_are_taken_from_when_the_first_is_full_and_for_who_asks() {
    let mut all = allocators("10.0.0.0/29");
    all.ready.push(Ready::of(&["10.9.0.0/28"]));
    let addresses: Vec<_> = (0..8)
        .map(|n| {
            let (service, hold) = begin(&all, &format!("s{n}"), json!({}), None).unwrap();
            hold.keep();
            cluster_ip(&service).to_owned()
        })
        .collect();
    assert_eq!(addresses.iter().filter(|a| a.starts_with("10.0.0.")).count(), 5, "{addresses:?}");
    assert_eq!(addresses.iter().filter(|a| a.starts_with("10.9.0.")).count(), 3, "{addresses:?}");
    let asked = (1..15).map(|n| format!("10.9.0.{n}")).find(|a| !addresses.contains(a)).unwrap();
    let (_, hold) = begin(&all, "asked", json!({"clusterIP": asked}), None).unwrap();
    assert_eq!(hold.new.as_ref().map(|(address, _)| address.to_string()), Some(asked));
}

#[test]
fn an_address_that_somebody_reserved_is_not_given() {
    let mut all = allocators("10.0.0.0/29");
    all.reserved = (2..6).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
    let refused = begin(&all, "one", json!({"clusterIP": "10.0.0.2"}), None).unwrap_err();
    assert!(refused.contains("provided IP is already allocated"), "{refused}");
    let (service, _hold) = begin(&all, "one", json!({}), None).unwrap();
    assert_eq!(cluster_ip(&service), "10.0.0.6");
    assert!(begin(&all, "two", json!({}), None).unwrap_err().contains("range is full"));
}

#[test]
fn a_service_keeps_its_address_when_the_range_is_gone() {
    let mut all = allocators("10.0.0.0/24");
    let (first, hold) = begin(&all, "one", json!({"clusterIP": "10.0.0.7"}), None).unwrap();
    hold.keep();
    all.ready.clear();
    let (again, hold) = begin(&all, "one", json!({"clusterIP": "10.0.0.7"}), Some(&first)).unwrap();
    assert!(hold.new.is_none() && hold.frees.is_empty(), "nothing is written but the Service");
    assert_eq!(first, again);
}

#[test]
fn a_second_family_is_refused_by_name() {
    let all = allocators("10.0.0.0/24");
    let refused = begin(&all, "one", json!({"clusterIP": "fd00::7"}), None).unwrap_err();
    assert!(refused.contains(r#"spec.clusterIPs[0]: Invalid value: ["fd00::7"]: IPv6 is not configured"#), "{refused}");
    let both = json!({"clusterIPs": ["10.0.0.7", "fd00::7"]});
    let refused = begin(&all, "one", both, None).unwrap_err();
    assert!(refused.contains("when multiple cluster IPs are specified"), "{refused}");
}
