//! What the fronts can do, as OpenAPI 3.1 documents.
//!
//! Each dialect lists its operations once ([`operation`]): path, method, handler, who may call, what goes in and comes
//! out. From that list come both the router and the document, so no route can be without its entry. Schemas come from
//! the very types that bodies are decoded into and answers are made of ([`schemas`]).
//!
//! The documents stand in `rest/openapi/`; a test compares them with these, and others compare what nodes answer.

use serde_json::Value;

use crate::dispatch::Dialect;
use crate::{cerberus, health, kes, strongbox};

mod document;
pub(crate) mod operation;
pub(crate) mod schemas;

/// A document.
#[derive(Debug)]
pub struct Document {
    /// Names its file.
    pub name: &'static str,
    /// Where it is served.
    pub node: Node,
    /// Itself.
    pub text: Value,
}

/// A kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// Central only.
    Central,
    /// Site hosts only.
    Site,
    /// Both.
    Any,
}

/// Every document there is.
pub fn documents() -> Vec<Document> {
    let strongbox = (Dialect::Strongbox, "Strongbox");
    let cerberus = (Dialect::Cerberus, "Cerberus");
    vec![
        document::of("strongbox-central", Node::Central, strongbox, strongbox::central_operations().told()),
        document::of("strongbox-site", Node::Site, strongbox, strongbox::site_operations().told()),
        document::of("cerberus-central", Node::Central, cerberus, cerberus::central_operations().told()),
        document::of("cerberus-site", Node::Site, cerberus, cerberus::site_operations().told()),
        document::of("kes-central", Node::Central, (Dialect::Kes, "KES"), kes::operations().told()),
        document::of("kes-site", Node::Site, (Dialect::Kes, "KES"), kes::site_operations().told()),
        document::of("node", Node::Any, (Dialect::Node, "the node itself"), health::operations().told()),
    ]
}
