//! What is wrong with a request, by Cerberus' numbers; other dialects give the texts.

use std::fmt;

use crate::rows::Refusal;

/// One thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Cerberus' code.
    pub code: u32,
    /// For the caller.
    pub message: &'static str,
}

impl Fault {
    /// The body is missing or malformed.
    pub const BODY_MALFORMED: Self = Self { code: 99001, message: "The request body is malformed." };
    /// A group without a name.
    pub const GROUP_NAME_BLANK: Self = Self { code: 99202, message: "A user group's name may not be blank." };
    /// A group with an unknown role.
    pub const GROUP_ROLE_INVALID: Self = Self { code: 99203, message: "The role id of a user group is invalid." };
    /// A principal with an unknown role.
    pub const PRINCIPAL_ROLE_INVALID: Self =
        Self { code: 99206, message: "The role id of an IAM principal is invalid." };
    /// A category that does not exist.
    pub const CATEGORY_INVALID: Self = Self { code: 99207, message: "The category id is invalid." };
    /// No name, or one that leaves nothing for the path.
    pub const NAME_BLANK: Self =
        Self { code: 99208, message: "The name may not be blank and needs a letter or digit." };
    /// No owner.
    pub const OWNER_BLANK: Self = Self { code: 99209, message: "The owner may not be blank." };
    /// Another box has this slug, whichever its category.
    pub const NAME_TAKEN: Self = Self { code: 99210, message: "Duplicate SDB names are not allowed." };
    /// A name over 100 characters.
    pub const NAME_TOO_LONG: Self = Self { code: 99212, message: "The name may not exceed 100 characters." };
    /// A description over 1000 characters.
    pub const DESCRIPTION_TOO_LONG: Self =
        Self { code: 99213, message: "The description may not exceed 1000 characters." };
    /// An owner over 255 characters.
    pub const OWNER_TOO_LONG: Self = Self { code: 99214, message: "The owner may not exceed 255 characters." };
    /// A group named twice.
    pub const GROUP_TWICE: Self = Self { code: 99218, message: "A user group has more than one permission." };
    /// The owner among the groups.
    pub const OWNER_IS_GROUP: Self = Self { code: 99220, message: "The owner may not be among the user groups." };
    /// Not an ARN that can be given a role.
    pub const PRINCIPAL_INVALID: Self = Self { code: 99226, message: "An IAM principal's ARN is invalid." };
    /// A principal named twice.
    pub const PRINCIPAL_TWICE: Self = Self { code: 99227, message: "An IAM principal has more than one permission." };
    /// Anything else.
    pub const fn other(message: &'static str) -> Self {
        Self { code: 99999, message }
    }
}

/// All that is wrong with a request; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(Vec<Fault>);

impl Invalid {
    /// `Err` if there are any.
    pub(super) fn unless_empty(faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self(faults)) }
    }

    /// The faults, in the order in which the members stand.
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Fault> for Invalid {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { " " }, fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid.to_string())
    }
}
