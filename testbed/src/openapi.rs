//! What nodes answer, held against the documents of their fronts: a status, a header or a member that a document does
//! not have fails the test that met it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use holdfast_rest::openapi::{Document, Node, documents};
use hyper::HeaderMap;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// A request and its answer.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, and the query if there is one.
    pub target: &'a str,
    /// The request's body.
    pub sent: &'a [u8],
    /// The answer's status.
    pub status: u16,
    /// The answer's headers.
    pub headers: &'a HeaderMap,
    /// The answer's body.
    pub body: &'a [u8],
}

impl Exchange<'_> {
    /// Looks at it as one with that kind of node; `None`: it is not known which kind it was.
    ///
    /// # Panics
    /// The documents say something else.
    pub fn check(&self, node: Option<Node>) {
        let kinds = node.map_or(vec![Node::Central, Node::Site], |node| vec![node]);
        let wrong: Vec<String> = kinds.iter().filter_map(|node| self.check_at(*node).err()).collect();
        assert!(wrong.len() < kinds.len(), "{self}: {}", wrong.join("; or "));
    }

    fn check_at(&self, node: Node) -> Result<(), String> {
        let path = self.target.split('?').next().unwrap_or_default();
        let here = DOCUMENTS.iter().filter(|document| document.node == node || document.node == Node::Any);
        let found = here.filter_map(|document| Some((document, path_in(document, path)?))).next();
        let Some((document, at)) = found else {
            return if self.status >= 400 { Ok(()) } else { Err("no document has this path".to_owned()) };
        };
        match at.get(self.method.to_ascii_lowercase()) {
            Some(operation) => self.against(document, operation),
            None if self.status >= 400 || matches!(self.method, "HEAD" | "OPTIONS") => Ok(()),
            None => Err("no document has this method".to_owned()),
        }
    }

    fn against(&self, document: &Document, operation: &Value) -> Result<(), String> {
        let status = self.status.to_string();
        let response = operation["responses"].get(&status).ok_or_else(|| format!("{status} is not documented"))?;
        let response = resolved(document, response);
        self.check_headers(response)?;
        self.check_answer(document, response)?;
        // A node that is open already does not look at what it is to be opened with.
        let unread = self.status == 204 && self.target.contains("/system/unseal");
        if (200..300).contains(&self.status) && !self.sent.is_empty() && !unread {
            let content = &operation["requestBody"]["content"];
            let Some(schema) = content.get(JSON).map(|media| &media["schema"]) else { return Ok(()) };
            let sent = parsed(self.sent).ok_or("what was sent is neither JSON nor YAML")?;
            // Some operations end before they come to what is nothing anyway.
            if sent.is_null() {
                return Ok(());
            }
            valid(document, schema, &sent, Strictness::AsItIs).map_err(|why| format!("what was sent: {why}"))?;
        }
        Ok(())
    }

    fn check_headers(&self, response: &Value) -> Result<(), String> {
        for name in ["etag", "holdfast-pending", "location", "retry-after", "x-request-id"] {
            let mut documented = response["headers"].as_object().into_iter().flat_map(Map::keys);
            if self.headers.contains_key(name) && !documented.any(|other| other.eq_ignore_ascii_case(name)) {
                return Err(format!("the header {name} is not documented"));
            }
        }
        Ok(())
    }

    fn check_answer(&self, document: &Document, response: &Value) -> Result<(), String> {
        let Some(content) = response.get("content") else {
            return if self.body.is_empty() { Ok(()) } else { Err("a body is not documented".to_owned()) };
        };
        let written = self.headers.get("content-type").and_then(|written| written.to_str().ok()).unwrap_or_default();
        let media = content.get(written).ok_or_else(|| format!("the content type {written:?} is not documented"))?;
        let body = match written.split(';').next().unwrap_or_default() {
            JSON | "application/yaml" => parsed(self.body).ok_or("it is neither JSON nor YAML")?,
            _ => Value::from(String::from_utf8_lossy(self.body)),
        };
        match self.form() {
            Form::Keys => {
                valid(document, &json!({ "type": "array", "items": { "type": "string" } }), &body, Strictness::AsItIs)
            }
            Form::Count => {
                let count = json!({ "properties": { "count": { "type": "integer" } }, "required": ["count"] });
                valid(document, &count, &body, Strictness::Whole)
            }
            Form::Fields => valid(document, &media["schema"], &body, Strictness::Part),
            Form::Whole => valid(document, &media["schema"], &body, Strictness::Whole),
        }
    }

    /// What the query asks for.
    fn form(&self) -> Form {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let members = query.split('&').map(|member| member.split_once('=').unwrap_or((member, "true")));
        let asked = members.filter(|(_, value)| *value != "false").find_map(|(name, _)| match name {
            "keys" => Some(Form::Keys),
            "count" => Some(Form::Count),
            "fields" => Some(Form::Fields),
            _ => None,
        });
        asked.filter(|_| (200..300).contains(&self.status)).unwrap_or(Form::Whole)
    }
}

/// Without what may be secret.
impl std::fmt::Display for Exchange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} -> {}", self.method, self.target, self.status)
    }
}

/// How an answer is cut.
enum Form {
    Whole,
    Fields,
    Keys,
    Count,
}

/// How a schema is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Strictness {
    /// As it is written.
    AsItIs,
    /// And there is no member that it does not name.
    Whole,
    /// The same, but members may be missing.
    Part,
}

/// The methods of each path that the documents of a kind of node have, as [`crate::routes::routes`] has those of its
/// router.
pub fn documented(node: Node) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in DOCUMENTS.iter().filter(|document| document.node == node || document.node == Node::Any) {
        for (path, entry) in document.text["paths"].as_object().into_iter().flatten() {
            let methods = entry.as_object().into_iter().flat_map(Map::keys).filter(|name| *name != "parameters");
            all.entry(path.clone()).or_default().extend(methods.map(|method| method.to_ascii_uppercase()));
        }
    }
    for methods in all.values_mut().filter(|methods| methods.contains("GET")) {
        methods.insert("HEAD".to_owned());
    }
    all
}

/// Paths of a router as documents write them.
pub fn as_documented(routes: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    routes.into_iter().map(|(path, methods)| (path.replace("{*", "{"), methods)).collect()
}

static DOCUMENTS: LazyLock<Vec<Document>> = LazyLock::new(documents);

/// Making one takes longer than most tests.
static VALIDATORS: LazyLock<Mutex<HashMap<Taken, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// A schema of a document, and how it is taken.
type Taken = (&'static str, String, Strictness);

/// The entry of a path: of those that match, the one that has most in common with it.
fn path_in<'a>(document: &'a Document, path: &str) -> Option<&'a Value> {
    let paths = document.text["paths"].as_object()?.iter();
    let matching = paths.filter(|(template, entry)| {
        let has_slashes = entry["parameters"][0].get("description").is_some();
        matches(template, path, has_slashes)
    });
    matching.min_by_key(|(template, _)| template.matches('{').count()).map(|(_, entry)| entry)
}

fn matches(template: &str, path: &str, has_slashes: bool) -> bool {
    if has_slashes && let Some((before, _)) = template.split_once('{') {
        return path.starts_with(before) && path.len() > before.len();
    }
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let same = |(told, asked): (&&str, &&str)| told == asked || (told.starts_with('{') && !asked.is_empty());
    template.len() == path.len() && template.iter().zip(&path).all(same)
}

fn resolved<'a>(document: &'a Document, value: &'a Value) -> &'a Value {
    let reference = value.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.text.pointer(pointer)).unwrap_or(value)
}

fn parsed(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().or_else(|| serde_saphyr::from_slice(bytes).ok())
}

fn valid(document: &Document, schema: &Value, value: &Value, strictness: Strictness) -> Result<(), String> {
    let validator = validator(document, schema, strictness);
    // Values may be secret: only where something is wrong, and by which rule.
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{} against {}", error.instance_path(), error.schema_path()))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
}

fn validator(document: &Document, schema: &Value, strictness: Strictness) -> Arc<Validator> {
    let mut known = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (document.name, schema.to_string(), strictness);
    let made = known.entry(key).or_insert_with(|| {
        let schemas = &document.text["components"]["schemas"];
        let mut whole = json!({ "allOf": [schema], "components": { "schemas": schemas } });
        tighten(&mut whole, strictness);
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        Arc::new(options.build(&whole).expect("a document has good schemas"))
    });
    made.clone()
}

/// Members that a schema does not name are allowed by it, since later versions may have them; here they are not.
fn tighten(schema: &mut Value, strictness: Strictness) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| tighten(item, strictness)),
        Value::Object(members) => {
            members.values_mut().for_each(|member| tighten(member, strictness));
            if strictness != Strictness::AsItIs
                && members.contains_key("properties")
                && !members["properties"].get("type").is_some_and(Value::is_string)
            {
                members.entry("additionalProperties").or_insert(Value::from(false));
            }
            if strictness == Strictness::Part {
                members.retain(|name, member| name != "required" || !member.is_array());
            }
        }
        _ => {}
    }
}

const JSON: &str = "application/json";
