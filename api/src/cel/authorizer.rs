//! CEL's `authorizer`: questions to the server's authorizer, asked by whoever evaluates.

use std::fmt;
use std::sync::Arc;

/// A question that an expression puts together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// Empty for the user of the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource's.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

/// The answer to a question.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: String,
}

/// Who answers.
pub trait Authorizer: Send + Sync {
    fn decide(&self, question: &Question) -> Decision;
}

/// How far a question is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    Start,
    Path,
    Group,
    Resource,
    Decided,
}

/// A question on its way, or its answer.
#[derive(Clone)]
pub struct Check {
    pub stage: Stage,
    pub question: Question,
    pub decision: Decision,
    pub authorizer: Arc<dyn Authorizer>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("stage", &self.stage).field("question", &self.question).finish_non_exhaustive()
    }
}

impl Check {
    /// The variable `authorizer`.
    pub fn start(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { stage: Stage::Start, question: Question::default(), decision: Decision::default(), authorizer }
    }

    /// The variable `authorizer.requestResource`.
    pub fn of(authorizer: Arc<dyn Authorizer>, question: Question) -> Self {
        Self { stage: Stage::Resource, question, ..Self::start(authorizer) }
    }

    pub fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Start => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decided => "kubernetes.authorization.Decision",
        }
    }
}
