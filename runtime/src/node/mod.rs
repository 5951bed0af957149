//! The node: registers itself, keeps its Lease, runs its pods, and answers for their logs.
