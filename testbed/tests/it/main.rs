//! Tests of the whole: the repository's own rules, and the programs as real processes.

mod tidy;
