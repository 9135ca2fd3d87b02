//! The one crate that a VUDO application depends on
