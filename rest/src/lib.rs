//! The REST side of both nodes: listener and TLS, one dispatch table from path to dialect, errors in each dialect's
//! shape, bodies, metrics, health and the reading of configuration files. The dialects' routes live in their modules.
//!
//! A request passes [`server`] (connection, TLS, who is there), then [`front`] (sealed gate, deadline, shape of
//! errors), then the node's own axum router. Handlers authorise first and read the body afterwards, by [`body`].

pub mod access;
pub mod bite;
pub mod body;
pub mod cerberus;
pub mod config;
mod deadline;
pub mod dispatch;
pub mod distribute;
mod erasing;
pub mod failures;
pub mod files;
pub mod front;
pub mod health;
pub mod kes;
mod lasting;
pub mod metrics;
pub mod node;
#[cfg(debug_assertions)]
pub mod nonces;
pub mod openapi;
pub mod peer;
pub mod places;
pub mod problem;
pub mod program;
pub mod recent;
pub mod refusal;
pub mod reply;
pub mod routes;
pub mod secret;
pub mod server;
pub mod shape;
pub mod strongbox;
pub mod time;
pub mod tls;
mod uri;
