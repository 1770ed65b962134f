//! The agent of one host: its TPM, its store, its fronts and its connection to central.

pub mod boot;
pub mod chip;
pub mod config;
pub mod files;
pub mod host;
pub mod join;
pub mod lease;
pub mod quic;
pub mod replica;
pub mod seal;
pub mod state;
pub mod status;
pub mod time;
pub mod tpm;
pub mod trust;
pub mod uplink;
