//! The merge core against a naive twin: random histories, the join's laws, hostile bytes.

mod evolution;
mod histories;
mod hostile;
mod join_laws;
mod model;
mod random;
mod store;
