//! What the shared caches keep of each kind, and how they group it.
//!
//! Dropped is only what no component reads: ownership records of fields, and the copy of the manifest that
//! `kubectl apply` keeps in an annotation.

use std::fmt::Debug;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Resource;
use serde::de::DeserializeOwned;
use wherry_api::kinds::core::podspec::access::{MOUNT_PATH, VOLUME_PREFIX};

/// Set by `kubectl apply`: the manifest as text.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// On an EndpointSlice: the Service that it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A kind that can be cached.
pub trait Kind: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {
    /// What else than its owner the object belongs to: a pod's node, the name of a slice's Service.
    fn group(&self) -> Option<&str> {
        None
    }

    /// Drops what nobody reads.
    fn trim(&mut self) {
        trim_metadata(self);
    }
}

fn trim_metadata<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

impl Kind for Pod {
    fn group(&self) -> Option<&str> {
        self.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Vectors that grew while they were parsed give their slack back, and the volume that admission adds to every pod goes:
    /// it is kilobytes per pod.
    fn trim(&mut self) {
        trim_metadata(self);
        if let Some(spec) = &mut self.spec {
            drop_access(spec);
            spec.containers.shrink_to_fit();
            for container in &mut spec.containers {
                shrink(&mut container.env);
                shrink(&mut container.ports);
                shrink(&mut container.volume_mounts);
            }
            shrink(&mut spec.volumes);
            shrink(&mut spec.tolerations);
        }
        if let Some(status) = &mut self.status {
            shrink(&mut status.conditions);
            shrink(&mut status.container_statuses);
        }
    }
}

/// Drops the projected volume with the account's token; no node mounts it yet.
fn drop_access(spec: &mut PodSpec) {
    let is_access = |name: &str| name.starts_with(VOLUME_PREFIX);
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| !is_access(&volume.name) || volume.projected.is_none());
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|mount| !is_access(&mount.name) || mount.mount_path != MOUNT_PATH);
        }
    }
}

fn shrink<T>(items: &mut Option<Vec<T>>) {
    if let Some(items) = items {
        items.shrink_to_fit();
    }
}

impl Kind for EndpointSlice {
    fn group(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
    }
}

impl Kind for APIService {
    /// The name of the Service behind it, in whatever namespace.
    fn group(&self) -> Option<&str> {
        self.spec.as_ref()?.service.as_ref()?.name.as_deref()
    }
}

impl Kind for CertificateSigningRequest {}
impl Kind for ClusterRole {}
impl Kind for CustomResourceDefinition {
    fn group(&self) -> Option<&str> {
        Some(&self.spec.group)
    }

    /// A schema is by far the largest part.
    fn trim(&mut self) {
        trim_metadata(self);
        self.spec.versions.iter_mut().for_each(|version| version.schema = None);
    }
}

impl Kind for ConfigMap {}
impl Kind for Deployment {}
impl Kind for Endpoints {}
impl Kind for IPAddress {}
impl Kind for Lease {}
impl Kind for Namespace {}
impl Kind for Node {}
impl Kind for PersistentVolume {}
impl Kind for PersistentVolumeClaim {}
impl Kind for ReplicaSet {}
impl Kind for ReplicationController {}
impl Kind for ResourceQuota {}
impl Kind for Secret {}
impl Kind for Service {}
impl Kind for ServiceAccount {}
impl Kind for ServiceCIDR {}
impl Kind for ValidatingAdmissionPolicy {}
