//! Tests of the verifier's schedule.
