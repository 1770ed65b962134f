//! The documents of the fronts: they are those in `rest/openapi/`, and they are what they claim to be.
//!
//! `UPDATE_GOLDEN=1` writes the files anew; what it changes is then there to be looked at.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use holdfast_rest::openapi::{Document, documents};
use serde_json::Value;

/// Of the OpenAPI Initiative, Apache-2.0; itself a JSON Schema.
const OPENAPI: &str = include_str!("../data/openapi-3.1.json");

fn operations(document: &Document) -> Vec<(String, &Value)> {
    let paths = document.text["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, entry)| {
        let methods = entry.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters");
        methods.map(move |(method, operation)| (format!("{}: {method} {path}", document.name), operation))
    });
    all.collect()
}

#[test]
fn the_documents_are_the_ones_checked_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi");
    let mut expected = BTreeSet::new();
    for document in documents() {
        let file = format!("{}.json", document.name);
        let mut text = serde_json::to_string_pretty(&document.text).unwrap();
        text.push('\n');
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(folder.join(&file), &text).unwrap();
        }
        let stored = fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert!(stored == text, "{file} is not what the fronts are: look at it with UPDATE_GOLDEN=1 and git diff");
        expected.insert(file);
    }
    let there: BTreeSet<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, expected);
}

#[test]
fn the_documents_are_openapi_3_1() {
    let validator = jsonschema::validator_for(&serde_json::from_str(OPENAPI).unwrap()).unwrap();
    for document in documents() {
        let wrong: Vec<String> =
            validator.iter_errors(&document.text).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{}: {}", document.name, wrong.join("\n"));
        for (name, schema) in document.text["components"]["schemas"].as_object().unwrap() {
            assert!(jsonschema::draft202012::meta::is_valid(schema), "{}: {name}", document.name);
        }
    }
}

#[test]
fn everything_that_is_referred_to_is_there_and_nothing_else() {
    for document in documents() {
        let mut named = BTreeSet::new();
        references(&document.text, &mut named);
        for pointer in &named {
            assert!(
                document.text.pointer(pointer.strip_prefix('#').unwrap()).is_some(),
                "{}: {pointer}",
                document.name
            );
        }
        for kind in ["schemas", "responses"] {
            for name in document.text["components"][kind].as_object().unwrap().keys() {
                assert!(named.contains(&format!("#/components/{kind}/{name}")), "{}: {name}", document.name);
            }
        }
    }
}

fn references(value: &Value, named: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, named)),
        Value::Object(members) => {
            named.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| references(member, named));
        }
        _ => {}
    }
}

#[test]
fn every_operation_says_who_may_call_and_what_comes_of_it() {
    for document in documents() {
        let mut ids = BTreeSet::new();
        for (which, operation) in operations(&document) {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{which}: its id is another one's");
            let text = |member: &str| operation[member].as_str().unwrap_or_default();
            assert!(!text("summary").is_empty() && !text("summary").ends_with('.'), "{which}");
            let right = text("x-holdfast-right");
            let statuses: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
            let succeeds = statuses.iter().any(|status| status.starts_with('2'));
            assert_eq!(succeeds, !right.starts_with("nobody"), "{which}: {statuses:?}");
            let is_open = operation["security"].as_array().unwrap().is_empty();
            // Who shows KES no certificate has sent a bad request.
            let without = if document.name.starts_with("kes") { "400" } else { "401" };
            assert!(is_open || statuses.iter().any(|status| *status == without), "{which}");
        }
    }
}
