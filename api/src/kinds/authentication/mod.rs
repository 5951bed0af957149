//! `authentication.k8s.io`: questions about who somebody is. Nothing of this is stored: the API server answers each create.

pub mod selfsubjectreview;
pub mod tokenreview;
