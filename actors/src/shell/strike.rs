//! How tests break an actor that is at work. Not in release builds, and in the others only for who holds the actor's
//! cell: no configuration and no message from outside leads here.

use crate::shell::machine::Failed;

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A panic.
    Panic,
    /// An error.
    Fail,
}

/// When, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// Before this many effects more are performed; `None` is at once.
    pub after_effects: Option<usize>,
    /// What.
    pub fault: Fault,
}

/// What an actor has yet to suffer.
#[derive(Debug, Default)]
pub(super) struct Armed(Option<(usize, Fault)>);

impl Armed {
    pub(super) fn take(&mut self, strike: Option<Strike>) -> Result<(), Failed> {
        match strike {
            None => Ok(()),
            Some(Strike { after_effects: None, fault }) => fault.happen(),
            Some(Strike { after_effects: Some(count), fault }) => {
                self.0 = Some((count, fault));
                Ok(())
            }
        }
    }

    /// Before each effect.
    pub(super) fn strike(&mut self) -> Result<(), Failed> {
        match &mut self.0 {
            None => Ok(()),
            Some((0, fault)) => fault.happen(),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Fault {
    pub(super) fn happen(self) -> Result<(), Failed> {
        match self {
            Self::Panic => panic!("a test asked for it"),
            Self::Fail => Err(Failed::because("a test asked for it")),
        }
    }
}
