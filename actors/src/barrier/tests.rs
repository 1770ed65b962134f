//! Tests of the barrier on the memory engine.
