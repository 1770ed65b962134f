//! The Strongbox dialect over a real barrier, journal and TLS; only the seal's keeper and the fleet's connections are
//! stood in for.

mod conventions;
mod node;
mod seal;
mod sites;
mod tenants;
