//! Tests of the targets themselves: what they hold for, over the corpora.

mod regressions;
