//! The connection to central: [`core`] decides what to try next and when; [`hands`] try it; [`session`] is one
//! connection that central took.

pub mod core;
pub mod hands;
pub mod session;
