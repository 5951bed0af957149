//! THE list of built-in kinds: adding one is one file in its group's folder and one line here.

use crate::resource::Descriptor;

/// Every built-in kind.
pub fn all() -> Vec<Descriptor> {
    Vec::new()
}
