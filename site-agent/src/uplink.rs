//! The connection to central: [`core`] decides what to try next and when; [`hands`] try it; [`session`] is one
//! connection that central took, and [`dialogue`] what is said on it.

pub mod core;
pub mod dialogue;
pub mod hands;
pub mod session;
