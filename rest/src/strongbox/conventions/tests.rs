//! Queries, cut answers and tags, without a node.

use super::*;

fn asked(method: Method, query: &str, own: &[&str]) -> Result<Parameters, Problem> {
    Parameters::of(&method, &format!("/v1/x?{query}").parse().unwrap(), Format::Json, own)
}

async fn shown(query: &str, value: &Value) -> Value {
    let response = asked(Method::GET, query, &[]).unwrap().wanted.reply(StatusCode::OK, value);
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_query_is_understood_whole_or_refused() {
    for (method, query) in [
        (Method::POST, "validte=true"),
        (Method::POST, "validate=yes"),
        (Method::GET, "validate=true"),
        (Method::POST, "keys"),
        (Method::PUT, "count=true"),
        (Method::GET, "keys&count"),
        (Method::GET, "fields=a&keys"),
        (Method::GET, "fields=a&fields=b"),
        (Method::GET, "fields="),
        (Method::GET, "fields=a,,b"),
        (Method::GET, "fields=a..b"),
        (Method::GET, "version=2"),
    ] {
        let problem = asked(method.clone(), query, &[]).unwrap_err();
        assert_eq!(problem.status.as_u16(), 400, "{method} {query}");
    }
    let many = vec!["a"; FIELDS_MAX + 1].join(",");
    assert!(asked(Method::GET, &format!("fields={many}"), &[]).is_err());
    for query in ["validate", "validate=", "validate=true", "validate=true&fields=a"] {
        assert!(asked(Method::POST, query, &[]).unwrap().validate, "{query}");
    }
    assert!(!asked(Method::DELETE, "validate=false", &[]).unwrap().validate);
    let own = asked(Method::GET, "version=2%203&keys=false", &["version"]).unwrap();
    assert_eq!((own.own, own.wanted.form), (vec![("version".to_owned(), "2 3".to_owned())], Form::Whole));
}

#[tokio::test]
async fn an_answer_is_cut_to_the_members_asked_for() {
    let site = json!({
        "name": "udc1", "standing": "trusted", "epochs": { "seal": 1, "dist": 2 },
        "hosts": [{ "name": "a", "lag": 3 }, { "name": "b", "lag": null }],
    });
    assert_eq!(shown("fields=name", &site).await, json!({ "name": "udc1" }));
    let cut = json!({ "name": "udc1", "hosts": [{ "lag": 3 }, { "lag": null }], "epochs": { "dist": 2 } });
    assert_eq!(shown("fields=hosts.lag,name,epochs.dist", &site).await, cut);
    assert_eq!(shown("fields=epochs,epochs.dist", &site).await, json!({ "epochs": { "seal": 1, "dist": 2 } }));
    assert_eq!(shown("fields=nothing,name.first", &site).await, json!({}));
    let all = json!([site]);
    assert_eq!(shown("fields=name", &all).await, json!([{ "name": "udc1" }]));
    assert_eq!(shown("", &all).await, all);
}

#[tokio::test]
async fn keys_are_names_and_can_be_counted() {
    let list = json!([{ "name": "a", "kind": "x" }, { "name": "b", "kind": "y" }]);
    assert_eq!(shown("keys", &list).await, json!(["a", "b"]));
    assert_eq!(shown("count=true", &list).await, json!({ "count": 2 }));
    assert_eq!(shown("keys", &json!({ "one": 1, "two": 2 })).await, json!(["one", "two"]));
    assert_eq!(shown("count", &json!([])).await, json!({ "count": 0 }));
    let by = asked(Method::GET, "keys", &[]).unwrap().wanted.reply_by("kind", StatusCode::OK, &list);
    let bytes = axum::body::to_bytes(by.into_body(), 1 << 20).await.unwrap();
    assert_eq!(bytes, "[\"x\",\"y\"]");
}

#[test]
fn what_is_cut_away_is_erased() {
    let mut value = json!({ "a": { "token": "x" }, "b": ["y", "z"] });
    erase(&mut value);
    assert_eq!(value, json!({ "a": { "token": "" }, "b": ["", ""] }));
}

#[test]
fn tags_say_in_which_version_a_thing_may_be_changed() {
    let of = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).unwrap();
        expected(&HeaderMap::from_iter([(HeaderName::from_static(name), value)]))
    };
    assert_eq!(expected(&HeaderMap::new()).unwrap(), Expected::Anything);
    assert_eq!(of("if-match", "*").unwrap(), Expected::Present);
    assert_eq!(of("if-none-match", "*").unwrap(), Expected::Absent);
    let (_, tag) = etag(7);
    assert_eq!(of("if-match", tag.to_str().unwrap()).unwrap(), Expected::Versions(vec![7]));
    assert_eq!(of("if-match", "\"7\", W/\"8\" ,\"x\",\"9\"").unwrap(), Expected::Versions(vec![7, 9]));
    for (name, value) in [("if-match", "7"), ("if-match", ""), ("if-none-match", "\"7\""), ("if-match", "\"7")] {
        assert_eq!(of(name, value).unwrap_err().status.as_u16(), 400, "{name}: {value}");
    }
}
