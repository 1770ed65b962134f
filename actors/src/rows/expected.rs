//! What a caller expects of a thing that it wants changed, looked at in the very transaction that changes it.

use crate::rows::Refusal;

/// In what state the thing has to be. A row's version counts all writes of its name, so no version ever comes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expected {
    /// In whichever.
    #[default]
    Anything,
    /// It must be there.
    Present,
    /// It must not be there.
    Absent,
    /// It must be there in one of these versions.
    Versions(Vec<u64>),
}

impl Expected {
    /// Whether a thing may be changed that is in version `found`; `None`: it is not there.
    ///
    /// # Errors
    /// [`Refusal::Changed`].
    pub fn check(&self, found: Option<u64>) -> Result<(), Refusal> {
        let holds = match (self, found) {
            (Self::Anything, _) | (Self::Present, Some(_)) | (Self::Absent, None) => true,
            (Self::Versions(versions), Some(found)) => versions.contains(&found),
            (Self::Present | Self::Versions(_), None) | (Self::Absent, Some(_)) => false,
        };
        if holds { Ok(()) } else { Err(Refusal::Changed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_goes_only_where_the_state_is_as_expected() {
        let cases = [
            (Expected::Anything, None, true),
            (Expected::Anything, Some(3), true),
            (Expected::Present, None, false),
            (Expected::Present, Some(3), true),
            (Expected::Absent, None, true),
            (Expected::Absent, Some(3), false),
            (Expected::Versions(vec![2, 3]), Some(3), true),
            (Expected::Versions(vec![2, 3]), Some(4), false),
            (Expected::Versions(vec![2, 3]), None, false),
        ];
        for (expected, found, holds) in cases {
            let outcome = expected.check(found);
            assert_eq!(outcome.is_ok(), holds, "{expected:?} {found:?}");
            assert!(holds || matches!(outcome, Err(Refusal::Changed)));
        }
    }
}
