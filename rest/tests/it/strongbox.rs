//! The Strongbox dialect over a real barrier, journal and TLS; only the seal's keeper and the fleet's connections are
//! stood in for.

mod approles;
mod blast;
mod block;
mod conventions;
mod cutting;
mod debug;
mod expiry;
mod node;
mod roles;
mod root_token;
mod seal;
mod sites;
mod statuses;
mod tenants;
mod tokens;
mod users;
mod vaults;
