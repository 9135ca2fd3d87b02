//! The state engine of VUDO: a local database of converging documents
