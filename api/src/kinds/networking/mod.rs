//! `networking.k8s.io/v1`.

pub(in crate::kinds) mod cidr;
pub mod ingress;
pub mod ingressclass;
pub mod ipaddress;
pub mod networkpolicy;
pub mod servicecidr;
