//! Peer-to-peer sync for VUDO: a sans-IO protocol, and its wiring to QUIC
