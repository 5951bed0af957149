//! APIServices: one for each group version that this server serves, and whether the servers behind the others answer.

mod available;
mod plan;
mod registration;
#[cfg(test)]
mod tests;
mod unavailable;

pub use available::Availability;
pub use registration::Registration;
pub use unavailable::Unavailable;
