//! Bodies of requests, JSON and YAML, beneath all operations: what is read in both notations is the same, nothing is
//! deeper or larger than allowed, and what is said of a bad one shows none of its values.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use holdfast_rest::body::{decode, decode_json, decode_up_to};
use holdfast_rest::distribute::DistributeBody;
use holdfast_rest::problem::Problem;
use holdfast_rest::reply::Format;
use holdfast_rest::secret::SecretText;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{Memory, choose, chosen};

/// A YAML scanner keeps its tokens, with where they stood; a value in memory is 32 bytes for two in the text.
pub const MEMORY: Memory = Memory { fixed: 1 << 20, each: 2048 };

/// Deepest YAML, as the reader's budget says.
const YAML_DEPTH_MAX: usize = 32;
/// Deepest JSON, as its parser says.
const JSON_DEPTH_MAX: usize = 128;
/// Stands in no message unless a body's value got there.
const SECRET: &str = "hunter2canary";

/// With all that bodies are made of.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read counts")]
struct Asked {
    name: String,
    password: Option<SecretText>,
    count: Option<u8>,
    #[serde(default)]
    wipe: bool,
    #[serde(default)]
    shares: Vec<String>,
    distribute: Option<DistributeBody>,
}

/// Reads `data` as a body in the notation that its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    let kind = match which % 5 {
        0 => Some("application/json"),
        1 => Some("application/yaml; charset=utf-8"),
        2 => Some("application/x-www-form-urlencoded"),
        3 => None,
        _ => return content_type(bytes),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    let value = read::<Value>(&runtime, kind, bytes);
    if let Ok(value) = &value {
        let deepest = if which % 5 == 1 { YAML_DEPTH_MAX } else { JSON_DEPTH_MAX };
        assert!(depth(value) <= deepest, "{} levels", depth(value));
        assert!(count(value) <= bytes.len() + 1, "{} values of {} bytes", count(value), bytes.len());
        written_back(value);
    }
    let limited = runtime.block_on(decode_up_to::<Value>(&headers(kind), body(bytes), 16));
    assert!(bytes.len() <= 16 || limited.is_err_and(|problem| problem.status == 413), "longer than allowed");
    let plain = runtime.block_on(decode_json::<Value>(body(bytes), bytes.len()));
    if let (Ok(json), Ok(value)) = (&plain, &value) {
        assert!(json == value || has_wide_numbers(json), "two notations read it differently: {json} and {value}");
    }
    for outcome in [read::<Asked>(&runtime, kind, bytes).map(drop), value.map(drop), plain.map(drop)] {
        outcome.unwrap_or_else(|problem| tells_little(&problem));
    }
}

fn body(bytes: &[u8]) -> Body {
    Body::from(bytes.to_vec())
}

fn headers(kind: Option<&'static str>) -> HeaderMap {
    HeaderMap::from_iter(kind.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind))))
}

fn read<T: DeserializeOwned>(runtime: &Runtime, kind: Option<&'static str>, bytes: &[u8]) -> Result<T, Problem> {
    runtime.block_on(decode(&headers(kind), body(bytes)))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Values in a value: each takes a byte to write, unless it is a copy of another.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// Numbers that fit no integer of 64 bits are read by each notation as near as it can.
fn has_wide_numbers(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_wide_numbers),
        Value::Object(members) => members.values().any(has_wide_numbers),
        _ => false,
    }
}

/// What we answer in either notation reads as what was meant.
fn written_back(value: &Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    for (format, kind) in [(Format::Json, "application/json"), (Format::Yaml, "application/yaml")] {
        let answer = format.reply(axum::http::StatusCode::OK, value);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], kind);
        let bytes = runtime.block_on(axum::body::to_bytes(answer.into_body(), usize::MAX)).expect("an answer ends");
        if depth(value) <= YAML_DEPTH_MAX / 2 && !has_wide_numbers(value) && !bytes.is_empty() {
            let again: Value = read(&runtime, Some(kind), &bytes)
                .unwrap_or_else(|problem| panic!("{}: {}", problem.message, String::from_utf8_lossy(&bytes)));
            assert_eq!(again, *value, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}

fn tells_little(problem: &Problem) {
    assert!(problem.status.is_client_error(), "{problem}");
    assert!(problem.message.len() <= 400, "{} bytes of message", problem.message.len());
    assert!(!problem.message.contains(char::is_control), "{problem}");
    // What stands where a member's name does is told as one.
    let names = ["unknown field `", "missing field `", "duplicate field `"];
    assert!(
        !problem.message.contains(SECRET) || names.iter().any(|what| problem.message.starts_with(what)),
        "{problem}"
    );
}

/// The first line is `Content-Type`, the second `Accept`.
fn content_type(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = lines.next().and_then(|line| HeaderValue::from_bytes(line).ok()) {
            headers.insert(name, value);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    match runtime.block_on(decode::<Value>(&headers, Body::empty())) {
        Ok(value) => assert_eq!(value, serde_json::json!({})),
        Err(problem) => assert_eq!(problem.status, 415),
    }
    let _ = Format::accepted(&headers);
}

/// Bodies as clients send them, and such as are made to be a burden.
pub fn seeds() -> Vec<Vec<u8>> {
    let json = r#"{"name": "a", "password": "hunter2canary", "count": 7, "wipe": true, "shares": ["1:x"], "distribute": {"to": "all", "offline": "1h"}}"#;
    let yaml = "name: a\npassword: hunter2canary\ncount: 7\nwipe: true\nshares:\n- 1:x\n- |\n  text\ndistribute: {sites: [udc1], offline: 90}\n";
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\ne: &e [*d, *d]\nf: [*e, *e]\n";
    let merge = "base: &base {a: 1}\nname:\n  <<: *base\n  b: 2\n";
    let deep = format!("{{\"name\": {}{}}}", "[".repeat(40), "]".repeat(40));
    let odd = "%YAML 1.2\n---\n? name\n: !!str 12\n... \n";
    let mut seeds = Vec::new();
    for which in 0..4 {
        for text in
            [json, yaml, bomb, merge, &deep, odd, r#"{"name": 1, "name": 2}"#, "", "0x1f", "1e400", "\"\\ud800\""]
        {
            seeds.push(chosen(which, text.as_bytes()));
        }
    }
    seeds.push(chosen(4, b"application/vnd.x+json; a=b\ntext/html, application/json;q=0.1"));
    seeds
}
