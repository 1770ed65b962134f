//! From what is said of operations to a document. See the OpenAPI Specification 3.1.1.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::operation::{KnownBy, Query, Told};
use super::schemas::{self, SchemaOf, Schemas};
use super::{Document, Node};
use crate::dispatch::{Dialect, is_open_while_sealed};
use crate::shape;

const YAML: &str = "application/yaml";
const JSON: &str = "application/json";
/// As KES labelled refusals once.
const JSON_UTF8: &str = "application/json; charset=utf-8";
/// JSON, a value a line.
const LINES: &str = "application/x-ndjson";

/// The document of one dialect at one kind of node.
pub(super) fn of(
    name: &'static str,
    node: Node,
    (dialect, dialect_name): (Dialect, &'static str),
    operations: Vec<Told>,
) -> Document {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    let mut refusals = BTreeSet::new();
    for told in &operations {
        refusals.extend(refused(told));
        let methods = paths.entry(told.path.replace("{*", "{")).or_insert_with(|| parameters_of(&told.path));
        methods[told.method] = operation(told, dialect, &mut schemas);
    }
    let of_errors = schemas.reply(errors(dialect));
    let responses: Map<String, Value> =
        refusals.into_iter().map(|status| (status.to_string(), refusal(status, dialect, &of_errors))).collect();
    let at = match node {
        Node::Central => "at central",
        Node::Site => "at a site host",
        Node::Any => "at central and at site hosts",
    };
    let text = json!({
        "openapi": "3.1.1",
        "info": {
            "title": format!("Holdfast: {dialect_name}, {at}"),
            "version": "1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": about(dialect),
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas.named(),
            "responses": responses,
            "parameters": parameters(dialect),
            "headers": headers(),
            "securitySchemes": security_schemes(dialect),
        },
    });
    Document { name, node, text }
}

fn operation(told: &Told, dialect: Dialect, schemas: &mut Schemas) -> Value {
    let mut operation = json!({
        "operationId": id_of(told),
        "summary": told.summary,
        "description": description(told),
        "x-holdfast-right": told.who.says,
        "security": security(told.who.known_by),
        "parameters": parameters_named(told),
        "responses": responses(told, dialect, schemas),
    });
    if let Some(action) = told.action {
        operation["x-holdfast-action"] = action.into();
    }
    if let Some(of) = told.request {
        let schema = schemas.request(of);
        operation["requestBody"] = json!({ "content": content(&schema, dialect) });
    }
    operation
}

/// Of the method and the path: nobody has to think of another one.
fn id_of(told: &Told) -> String {
    let words = told.path.split('/').filter(|word| !word.is_empty() && *word != "v1").map(|word| match word {
        "v2" => "v2".to_owned(),
        word => word.replace(['{', '}', '*'], ""),
    });
    let slash = told.path.ends_with('/').then(|| "slash".to_owned());
    let words: Vec<String> = std::iter::once(told.method.to_owned()).chain(words).chain(slash).collect();
    words.join("-")
}

fn description(told: &Told) -> String {
    let sealed = if is_open_while_sealed(&told.path) { " Answers while the node is sealed, too." } else { "" };
    format!("Who may call: {}.{sealed}", told.who.says)
}

fn security(known_by: KnownBy) -> Value {
    match known_by {
        KnownBy::Nothing => json!([]),
        KnownBy::Token => json!([{ "token": [] }]),
        KnownBy::TokenOrCertificate => json!([{ "token": [] }, { "certificate": [] }]),
        KnownBy::Password => json!([{ "password": [] }]),
        KnownBy::Certificate => json!([{ "certificate": [] }]),
    }
}

fn security_schemes(dialect: Dialect) -> Value {
    let bearer = json!({ "type": "http", "scheme": "bearer", "description": "A token from a login." });
    match dialect {
        Dialect::Cerberus => json!({
            "token": {
                "type": "apiKey",
                "in": "header",
                "name": "X-Cerberus-Token",
                "description": "A token from a login; X-Vault-Token and Authorization: Bearer are taken, too.",
            },
            "password": { "type": "http", "scheme": "basic" },
        }),
        Dialect::Strongbox => json!({
            "token": bearer,
            "certificate": {
                "type": "mutualTLS",
                "description": "A client certificate whose key the node's configuration lists as an operator's.",
            },
        }),
        Dialect::Kes => json!({
            "certificate": {
                "type": "mutualTLS",
                "description": "A client certificate; who it is, is the SHA-256 of its public key, whoever certified it.",
            },
        }),
        _ => json!({}),
    }
}

/// The names in a path.
fn parameters_of(path: &str) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| {
            let (name, says) = match name.strip_prefix('*') {
                Some(rest) => (rest, Some("Has slashes in it.")),
                None => (name, None),
            };
            let mut parameter = json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
            if let Some(says) = says {
                parameter["description"] = says.into();
            }
            parameter
        })
        .collect();
    if parameters.is_empty() { json!({}) } else { json!({ "parameters": parameters }) }
}

fn parameters_named(told: &Told) -> Value {
    let common = match (told.query, told.reads()) {
        (Query::None, _) => &[][..],
        (_, true) => &["fields", "keys", "count"],
        (Query::Cut, false) => &["fields"],
        (Query::Tried | Query::Told, false) => &["validate", "fields"],
    };
    let conditional = if told.conditional { &["if-match", "if-none-match"][..] } else { &[] };
    let named = common.iter().chain(conditional);
    let named = named.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    let own = |place: &'static str| move |(name, says): &(&str, &str)| json!({ "name": name, "in": place, "description": says, "schema": { "type": "string" } });
    named.chain(told.own.iter().map(own("query"))).chain(told.headers.iter().map(own("header"))).collect()
}

/// What all operations of a dialect may take.
fn parameters(dialect: Dialect) -> Value {
    if dialect != Dialect::Strongbox {
        return json!({});
    }
    let flag = |name: &str, says: &str| {
        json!({
            "name": name, "in": "query", "description": says, "allowEmptyValue": true,
            "schema": { "enum": ["true", "false", ""] },
        })
    };
    let header = |name: &str, says: &str| json!({ "name": name, "in": "header", "description": says, "schema": { "type": "string" } });
    json!({
        "validate": flag("validate", "Checks everything and changes nothing: 204, or the refusal that the call would get."),
        "keys": flag("keys", "Answers with a list of names instead: of a list's things, of a thing's members."),
        "count": flag("count", "Answers with how many of those there are instead, as the member count."),
        "fields": {
            "name": "fields", "in": "query",
            "description": "Only these members, such as a,b.c; lists are looked through.",
            "schema": { "type": "string", "minLength": 1 },
        },
        "if-match": header("If-Match", "Tags of versions, or *: what is to be changed must be one of these, or there at all."),
        "if-none-match": header("If-None-Match", "* only: what is to be made must not be there."),
    })
}

/// Headers of answers.
fn headers() -> Value {
    let header = |says: &str, schema: Value| json!({ "description": says, "schema": schema });
    json!({
        "ETag": header("The version of the thing, for If-Match.", json!({ "type": "string" })),
        "Holdfast-Pending": header(
            "How much is left to do: hosts that have not confirmed, keys not yet replaced. Absent if nothing is.",
            json!({ "type": "integer", "minimum": 1 }),
        ),
        "Location": header("The path of what was made.", json!({ "type": "string" })),
        "Retry-After": header("Seconds.", json!({ "type": "integer", "minimum": 0 })),
        "X-Request-Id": header("Names the request in the node's log.", json!({ "type": "string", "format": "uuid" })),
    })
}

fn named_headers(names: &[&str]) -> Value {
    let named =
        names.iter().map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })));
    Value::Object(named.collect())
}

fn responses(told: &Told, dialect: Dialect, schemas: &mut Schemas) -> Value {
    let mut all = Map::new();
    for (status, of) in &told.replies {
        let mut response = json!({ "description": reason(*status), "headers": reply_headers(told) });
        if let Some(of) = of {
            let schema = schemas.reply(*of);
            let of = |media: &&str| ((*media).to_owned(), json!({ "schema": schema }));
            response["content"] = match told.media.as_slice() {
                [] if told.lines => json!({ JSON: { "schema": schema }, LINES: { "schema": { "type": "string" } } }),
                [] => content(&schema, dialect),
                media => Value::Object(media.iter().map(of).collect()),
            };
        }
        all.insert(status.to_string(), response);
    }
    if told.query == Query::Tried && !told.reads() && !told.replies.contains_key(&204) {
        let response =
            json!({ "description": "With validate: it would be done.", "headers": named_headers(&["X-Request-Id"]) });
        all.insert("204".to_owned(), response);
    }
    for status in refused(told) {
        let response = json!({ "$ref": format!("#/components/responses/{status}") });
        all.entry(status.to_string()).or_insert(response);
    }
    Value::Object(all)
}

fn reply_headers(told: &Told) -> Value {
    let mut names = vec!["X-Request-Id"];
    if told.tagged {
        names.push("ETag");
    }
    if told.bites {
        names.push("Holdfast-Pending");
    }
    if told.located {
        names.push("Location");
    }
    named_headers(&names)
}

/// What an operation may refuse with: by what it takes, and by what is said of it.
fn refused(told: &Told) -> BTreeSet<u16> {
    let rules: [(bool, &[u16]); 7] = [
        (true, &[500, 503]),
        (told.query != Query::None || !told.own.is_empty(), &[400]),
        (told.who.known_by != KnownBy::Nothing, &[401]),
        (matches!(told.who.known_by, KnownBy::Token | KnownBy::TokenOrCertificate), &[403]),
        (told.path.contains('{'), &[404]),
        (told.request.is_some(), &[400, 408, 413, 415]),
        (told.conditional, &[400, 412]),
    ];
    let ruled = rules.into_iter().filter(|(applies, _)| *applies).flat_map(|(_, statuses)| statuses).copied();
    ruled.filter(|status| !told.never.contains(status)).chain(told.refusals.iter().copied()).collect()
}

fn refusal(status: u16, dialect: Dialect, schema: &Value) -> Value {
    let headers = match status {
        403 | 503 => named_headers(&["X-Request-Id", "Retry-After"]),
        _ => named_headers(&["X-Request-Id"]),
    };
    let content = match dialect {
        Dialect::Kes => json!({ JSON: { "schema": schema }, JSON_UTF8: { "schema": schema } }),
        _ => content(schema, dialect),
    };
    json!({ "description": reason(status), "headers": headers, "content": content })
}

/// A body in each notation of the dialect.
fn content(schema: &Value, dialect: Dialect) -> Value {
    match dialect {
        Dialect::Strongbox => json!({ YAML: { "schema": schema }, JSON: { "schema": schema } }),
        _ => json!({ JSON: { "schema": schema } }),
    }
}

fn errors(dialect: Dialect) -> SchemaOf {
    match dialect {
        Dialect::Strongbox => schemas::of::<shape::StrongboxErrors>(),
        Dialect::Cerberus => schemas::of::<shape::CerberusErrors>(),
        _ => schemas::of::<shape::NodeError>(),
    }
}

fn about(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Strongbox => {
            "Answers are YAML unless Accept says JSON, bodies YAML or JSON by Content-Type. Unknown members and parameters \
             are refused. OPTIONS answers 204 with Allow on every path, HEAD wherever there is GET."
        }
        Dialect::Cerberus => "Safe deposit boxes. All is JSON; unknown members are ignored.",
        Dialect::Kes => {
            "Keys that encrypt for clients and never leave, as MinIO's KES has them: of versions 0.13 and 0.14 unless \
             configured otherwise, of the last ones wherever a request can only be of those (PUT, and paths that only they \
             have)."
        }
        _ => "What a node says of itself to anybody, while it is sealed too.",
    }
}

/// A status in words.
fn reason(status: u16) -> &'static str {
    match status {
        403 => "Not for this caller, or too many attempts.",
        404 => "There is no such thing, or not for this caller.",
        409 => "It does not go together with what there is.",
        412 => "The thing is not as expected.",
        503 => "Sealed, overloaded, or something that is needed can't be had now.",
        status => StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused"),
    }
}
