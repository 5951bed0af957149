//! Certificate requests: approves those of nodes for themselves, signs what is approved for the signers of this cluster, and
//! removes what is over.
//!
//! The authority's key stays in this process: [`crate::auth::pki::Pki`] signs, this only says what.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use self::plan::{Step as Next, plan};
use super::write;
use crate::auth::pki::Pki;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step, absent_is_fine};

/// A request whose sender may not have it signed yet is looked at again after this long.
const RECOGNIZE_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Certificates {
    shared: Arc<Shared>,
    signer: Option<Arc<Pki>>,
}

impl FromContext for Certificates {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), signer: context.config.signer.clone() }
    }
}

impl Certificates {
    fn api(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.shared.client.clone())
    }
}

impl Controller for Certificates {
    type Key = Key;
    const NAME: &'static str = "certificate";
    /// Certificates end without an event.
    const RESYNC: Duration = Duration::from_hours(1);

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.certificate_requests.subscribe(itself(queue));
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.certificate_requests.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(request) = self.shared.certificate_requests.get(key) else { return Ok(None) };
        match plan(&request, Timestamp::now()) {
            Next::Wait(time) => Ok(Some(time)),
            Next::Remove => {
                let store = &self.shared.certificate_requests;
                write::delete(&self.api(), store, &*request, "remove a certificate request that is over").await?;
                Ok(None)
            }
            Next::Recognize(candidates) => {
                for (subresource, message) in candidates {
                    if self.may(&request, subresource).await? {
                        return self.approve(&request, message).await.map(|()| None);
                    }
                }
                // Its sender may be given the role later.
                Ok(Some(RECOGNIZE_AGAIN))
            }
            Next::Sign(asked, terms) => match &self.signer {
                Some(pki) => match pki.sign(&asked, &terms) {
                    Ok(der) => self.issue(&request, crate::auth::signing::pem(&der)).await.map(|()| None),
                    Err(error) => self.fail(&request, &error.to_string()).await.map(|()| None),
                },
                None => Ok(None),
            },
            Next::Fail(why) => self.fail(&request, &why).await.map(|()| None),
        }
    }
}

impl Certificates {
    /// Whether the requestor may ask for this kind of certificate without a person's approval.
    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    verb: Some("create".to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.shared.client.clone());
        let answer = api.create(&write::post(), &review).await.step("review a certificate request")?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn approve(&self, request: &CertificateSigningRequest, message: &str) -> Result<(), Error> {
        let condition = json!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message});
        self.write("approval", request, json!({"conditions": conditions(request, condition)})).await
    }

    async fn issue(&self, request: &CertificateSigningRequest, pem: String) -> Result<(), Error> {
        let certificate = k8s_openapi::ByteString(pem.into_bytes());
        self.write("status", request, json!({"certificate": certificate})).await
    }

    async fn fail(&self, request: &CertificateSigningRequest, why: &str) -> Result<(), Error> {
        let condition =
            json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why});
        self.write("status", request, json!({"conditions": conditions(request, condition)})).await
    }

    async fn write(&self, path: &'static str, request: &CertificateSigningRequest, status: Value) -> Result<(), Error> {
        let patch = json!({"metadata": {"resourceVersion": request.resource_version()}, "status": status});
        let patch = Patch::Merge(patch);
        let answer = self.api().patch_subresource(path, &request.name_any(), &write::patching(), &patch).await;
        if let Some(written) = absent_is_fine(answer).step("answer a certificate request")? {
            self.shared.certificate_requests.observe(written);
        }
        Ok(())
    }
}

/// The request's conditions and one more.
fn conditions(request: &CertificateSigningRequest, more: Value) -> Value {
    let present = request.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut all: Vec<Value> = present.iter().map(|condition| json!(condition)).collect();
    all.push(more);
    all.into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::plan::tests::{object, request};
    use super::*;
    use crate::controllers::fixture;

    #[tokio::test]
    async fn a_request_whose_sender_may_not_have_it_signed_yet_is_looked_at_again() {
        let pem = request("system:nodes", "system:node:n1");
        let mut asked =
            object("kubernetes.io/kube-apiserver-client-kubelet", "system:bootstrap:abcdef", pem, json!([]));
        asked.metadata.creation_timestamp = Some(Time(Timestamp::now()));
        let (allowed, shown) = (Arc::new(AtomicBool::new(false)), json!(asked));
        let allows = Arc::clone(&allowed);
        let context = fixture::context(move |_, path, body| {
            let (mut review, mut approved) = (body.clone(), shown.clone());
            match path.rsplit('/').next() {
                Some("subjectaccessreviews") => {
                    review["status"] = json!({"allowed": allows.load(Ordering::SeqCst)});
                    Some(review)
                }
                Some("approval") => {
                    approved["status"] = body["status"].clone();
                    approved["metadata"]["resourceVersion"] = json!("2");
                    Some(approved)
                }
                _ => None,
            }
        });
        let (certificates, key) = (Certificates::new(&context), Key::of(&asked));
        context.shared.certificate_requests.observe(asked);
        assert_eq!(certificates.reconcile(&key).await.unwrap(), Some(RECOGNIZE_AGAIN));
        allowed.store(true, Ordering::SeqCst);
        assert_eq!(certificates.reconcile(&key).await.unwrap(), None);
        let now = context.shared.certificate_requests.get(&key).unwrap();
        let conditions = now.status.as_ref().unwrap().conditions.as_ref().unwrap();
        assert_eq!(conditions[0].type_, "Approved");
    }
}
