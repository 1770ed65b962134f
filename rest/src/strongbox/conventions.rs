//! What holds for every route of the dialect, present and to come: the parameters in the query, how an answer is cut
//! to what was asked for, tags of versions.
//!
//! | parameter | at | what it does |
//! |---|---|---|
//! | `validate` | whatever changes something | everything is checked, in the writer's transaction where it is decided; nothing is changed and no line of a change written; 204, or the refusal that the call would get |
//! | `fields=a,b.c` | whatever has an answer | only these members; lists are looked through: `hosts.name` |
//! | `keys` | `GET` | of a list the names, of a thing its members' |
//! | `count` | `GET` | `count: N`, of those |
//!
//! A flag is on without a value, or with `true`. Any other parameter is refused: a misspelt `validate` that was
//! tolerated would do what the caller wanted only tried. A route may take parameters of its own, see
//! [`super::call::op_with`].
//!
//! An operation that proves a secret (login, unseal) can't be tried: trying is proving.
//!
//! Bodies and answers are YAML unless `Content-Type` or `Accept` says JSON ([`crate::body`], [`crate::reply`]); errors
//! are `{"errors": [{"error-message", "error-info"}]}` ([`crate::shape`]); `OPTIONS` answers 204 with `Allow`
//! ([`crate::front`]); times are RFC 3339 with microseconds ([`crate::time::rfc3339_us`]); names keep to
//! `^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$` ([`holdfast_protocol::ids`]): another one is a 400 in a body and a 404 in a path.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use holdfast_actors::rows::Expected;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroize;

use crate::problem::Problem;
use crate::reply::Format;

/// The query of a call, checked.
#[derive(Debug)]
pub(super) struct Parameters {
    /// How the answer is to look.
    pub(super) wanted: Wanted,
    /// Only to be tried.
    pub(super) validate: bool,
    /// The route's own.
    pub(super) own: Vec<(String, String)>,
}

impl Parameters {
    /// Reads a query; `own` names what the route takes beside what all take.
    ///
    /// # Errors
    /// 400: an unknown parameter, a value that can't be, or one that makes no sense with this method.
    pub(super) fn of(method: &Method, uri: &Uri, format: Format, own: &[&str]) -> Result<Self, Problem> {
        let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Problem::bad_request("the query is malformed"))?;
        let (mut validate, mut forms, mut others) = (false, Vec::new(), Vec::new());
        for (name, value) in given {
            match name.as_str() {
                "validate" => validate |= flag("validate", &value)?,
                "fields" => forms.push(Form::Fields(fields(&value)?)),
                "keys" if flag("keys", &value)? => forms.push(Form::Keys),
                "count" if flag("count", &value)? => forms.push(Form::Count),
                "keys" | "count" => {}
                known if own.contains(&known) => others.push((name, value)),
                unknown => return Err(unknown_parameter(unknown)),
            }
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if validate && reads {
            return Err(Problem::bad_request("validate is for what changes something"));
        }
        if forms.len() > 1 {
            return Err(Problem::bad_request("one of fields, keys and count, once"));
        }
        let form = forms.pop().unwrap_or(Form::Whole);
        if matches!(form, Form::Keys | Form::Count) && !reads {
            return Err(Problem::bad_request("keys and count are for what only reads"));
        }
        Ok(Self { wanted: Wanted { format, form }, validate, own: others })
    }
}

fn unknown_parameter(name: &str) -> Problem {
    let name: String = name.chars().take(64).filter(|letter| !letter.is_control()).collect();
    Problem::bad_request(format!("unknown parameter `{name}`"))
}

fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Problem::bad_request(format!("{name} is true or false"))),
    }
}

/// A member, or one in it, by their names.
type Field = Vec<String>;

fn fields(value: &str) -> Result<Vec<Field>, Problem> {
    let fields: Vec<Field> = value.split(',').map(|path| path.split('.').map(str::to_owned).collect()).collect();
    let good = fields.iter().flatten().all(|name| !name.is_empty()) && fields.len() <= FIELDS_MAX;
    if good { Ok(fields) } else { Err(Problem::bad_request(format!("fields=a,b.c names 1 to {FIELDS_MAX} members"))) }
}

/// How an answer is to look. As an extractor, for what can't be tried, it refuses `validate`.
#[derive(Debug)]
pub(super) struct Wanted {
    format: Format,
    form: Form,
}

/// What of an answer is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Whole,
    Fields(Vec<Field>),
    Keys,
    Count,
}

impl Wanted {
    /// An answer of which the client gets what it asked for. Elements of a list are named by `name`.
    pub(super) fn reply<T: Serialize + ?Sized>(&self, status: StatusCode, value: &T) -> Response {
        self.reply_by("name", status, value)
    }

    /// The same where elements of a list are named by the member `key`.
    pub(super) fn reply_by<T: Serialize + ?Sized>(&self, key: &str, status: StatusCode, value: &T) -> Response {
        if self.form == Form::Whole {
            return self.format.reply(status, value);
        }
        let Ok(mut whole) = serde_json::to_value(value).map(Erased) else {
            return axum::response::IntoResponse::into_response(Problem::internal());
        };
        match &self.form {
            Form::Whole => self.format.reply(status, &whole.0),
            Form::Fields(fields) => {
                prune(&mut whole.0, &fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
                self.format.reply(status, &whole.0)
            }
            Form::Keys => self.format.reply(status, &keys(&whole.0, key)),
            Form::Count => self.format.reply(status, &json!({ "count": keys(&whole.0, key).len() })),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let asked = Parameters::of(&parts.method, &parts.uri, Format::accepted(&parts.headers), &[])?;
        if asked.validate {
            return Err(Problem::bad_request("this can't be tried: trying it is doing it"));
        }
        Ok(asked.wanted)
    }
}

fn keys<'a>(whole: &'a Value, key: &str) -> Vec<&'a str> {
    match whole {
        Value::Array(items) => items.iter().filter_map(|item| item[key].as_str().or(item.as_str())).collect(),
        Value::Object(members) => members.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Erases all members but these.
fn prune(value: &mut Value, fields: &[&[String]]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| prune(item, fields)),
        Value::Object(members) => members.retain(|name, member| {
            let below: Vec<&[String]> = fields.iter().filter(|path| path[0] == *name).map(|path| &path[1..]).collect();
            let whole = below.iter().any(|rest| rest.is_empty());
            let stays = whole || (!below.is_empty() && (member.is_array() || member.is_object()));
            match stays {
                true if !whole => prune(member, &below),
                true => {}
                false => erase(member),
            }
            stays
        }),
        _ => {}
    }
}

/// A value that may hold revealed secrets.
struct Erased(Value);

impl Drop for Erased {
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

fn erase(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(erase),
        Value::Object(members) => members.values_mut().for_each(erase),
        _ => {}
    }
}

/// The tag of a thing's version, for the header `ETag`.
pub(super) fn etag(version: u64) -> (HeaderName, HeaderValue) {
    let tag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits and quotes stand in any header");
    (header::ETAG, tag)
}

/// What `If-Match` or `If-None-Match: *` expects of the thing that is to be changed; to be checked by the decision
/// itself, see [`Expected::check`], whose refusal is a 412.
///
/// # Errors
/// 400: neither `*` nor tags, or both headers.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |name: HeaderName| -> Result<Option<String>, Problem> {
        let lines: Result<Vec<&str>, _> = headers.get_all(&name).iter().map(HeaderValue::to_str).collect();
        let lines = lines.map_err(|_| Problem::bad_request(format!("{name} is no list of tags")))?;
        Ok((!lines.is_empty()).then(|| lines.join(",")))
    };
    match (text(header::IF_MATCH)?, text(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expected::Anything),
        (Some(tags), None) if tags.trim() == "*" => Ok(Expected::Present),
        (Some(tags), None) => versions(&tags),
        (None, Some(tags)) if tags.trim() == "*" => Ok(Expected::Absent),
        (None, Some(_)) => Err(Problem::bad_request("if-none-match is * for what is changed")),
        (Some(_), Some(_)) => Err(Problem::bad_request("one of if-match and if-none-match")),
    }
}

/// A weak tag and one that is not ours match nothing.
fn versions(tags: &str) -> Result<Expected, Problem> {
    let mut versions = Vec::new();
    for tag in tags.split(',').map(str::trim) {
        let weak = tag.starts_with("W/");
        let inner = tag.trim_start_matches("W/").strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        let inner = inner.ok_or_else(|| Problem::bad_request("if-match is * or a list of tags in double quotes"))?;
        versions.extend(inner.parse::<u64>().ok().filter(|_| !weak));
    }
    Ok(Expected::Versions(versions))
}

/// Members that one call may ask for.
const FIELDS_MAX: usize = 64;

#[cfg(test)]
mod tests;
