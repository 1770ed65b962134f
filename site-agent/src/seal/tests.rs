//! The host's seal on the memory engine.
