//! Bundles applied on the memory engine.
