//! `authorization.k8s.io`: questions about what somebody may do. Nothing of this is stored: the API server answers each
//! create.

pub mod localsubjectaccessreview;
pub mod selfsubjectaccessreview;
pub mod selfsubjectrulesreview;
pub mod subjectaccessreview;
