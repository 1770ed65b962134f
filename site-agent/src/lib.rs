//! The agent of one host: its TPM, its store, its fronts and its connection to central.

pub mod tpm;
