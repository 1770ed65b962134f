//! Bodies in both formats, and what is refused of them.

use axum::http::HeaderValue;
use serde::Deserialize;

use super::*;
use crate::secret::SecretText;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Ask {
    tenant: String,
    admin_password: Option<SecretText>,
    #[serde(default)]
    wipe: bool,
    #[serde(default)]
    count: u32,
}

async fn ask(content_type: Option<&'static str>, body: &'static str) -> Result<Ask, Problem> {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    decode(&headers, Body::from(body)).await
}

#[tokio::test]
async fn json_and_yaml_are_told_apart_by_content_type() {
    let json = r#"{"tenant": "acme", "admin-password": "p\ud83d\ude00", "wipe": true}"#;
    for content_type in [Some("application/json; charset=utf-8"), None, Some("application/x-www-form-urlencoded")] {
        let ask = ask(content_type, json).await.unwrap();
        assert_eq!((ask.tenant.as_str(), ask.wipe, ask.count), ("acme", true, 0));
        assert_eq!(ask.admin_password.unwrap().expose(), "p😀");
    }
    for content_type in [Some("application/yaml"), Some("text/yaml"), Some("application/x-yaml"), None] {
        let ask = ask(content_type, "---\ntenant: acme\nadmin-password: 12345\n").await.unwrap();
        assert_eq!(ask.admin_password.unwrap().expose(), "12345");
    }
    assert!(ask(Some("application/json"), "tenant: acme").await.is_err());
    let refused = ask(Some("image/png"), json).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn members_unknown_missing_or_twice_are_named() {
    for (content_type, body, named) in [
        ("application/json", r#"{"tenant": "a", "wype": true}"#, "unknown field `wype`"),
        ("application/yaml", "tenant: a\nwype: true\n", "unknown field `wype`"),
        ("application/json", "{}", "missing field `tenant`"),
        ("application/yaml", "wipe: true", "missing field `tenant`"),
        ("application/json", r#"{"tenant": "a", "tenant": "b"}"#, "duplicate field `tenant`"),
    ] {
        let refused = ask(Some(content_type), body).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.message, named, "{body}");
    }
    assert!(ask(Some("application/yaml"), "tenant: a\ntenant: b\n").await.is_err());
}

#[tokio::test]
async fn no_message_repeats_a_value() {
    for body in [
        r#"{"tenant": "a", "count": "hunter2, expected hunter2"}"#,
        r#"{"tenant": "a", "count": hunter2}"#,
        r#"{"tenant": "a", "wipe": "hunter2"}"#,
        r#"{"tenant": "a", "admin-password": ["hunter2"]}"#,
        "tenant: a\ncount: hunter2\n",
        "tenant: a\nadmin-password: [hunter2]\n",
        "tenant: a\nadmin-password: \"hunter2\n",
        "hunter2",
        "- hunter2",
        "tenant: *hunter2",
        "tenant: !hunter2 a",
    ] {
        for content_type in [Some("application/json"), Some("application/yaml"), None] {
            if let Err(refused) = ask(content_type, body).await {
                assert!(!refused.message.contains("hunter2"), "{body}: {}", refused.message);
            }
        }
    }
}

#[tokio::test]
async fn an_empty_body_is_one_without_members() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Quarantine {
        wipe: Option<bool>,
    }
    for content_type in ["application/json", "application/yaml"] {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let ask: Quarantine = decode(&headers, Body::empty()).await.unwrap();
        assert_eq!(ask.wipe, None);
    }
}

#[tokio::test]
async fn anchors_and_deep_nesting_are_refused() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        bomb.push_str(&format!("{name}: &{name} [*{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}]\n"));
    }
    let refused = parse_yaml::<serde_json::Value>(&bomb).unwrap_err();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(parse_yaml::<serde_json::Value>(&"[".repeat(100_000)).is_err());
    assert!(parse_yaml::<serde_json::Value>(&"- ".repeat(100_000)).is_err());
    assert!(parse_yaml::<serde_json::Value>("a: 1\n---\nb: 2\n").is_err());
    assert!(parse_json::<serde_json::Value>("[".repeat(100_000).as_bytes()).is_err());
}

#[tokio::test]
async fn a_body_above_the_limit_is_not_read() {
    assert_eq!(read(Body::from(vec![7; 64]), 64).await.unwrap().len(), 64);
    let refused = read(Body::from(vec![7; 65]), 64).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Says how long it will be, and then nothing.
struct Never;

impl hyper::body::Body for Never {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let began = tokio::time::Instant::now();
    let problem = read(Body::new(Never), 10).await.unwrap_err();
    assert_eq!((problem.status, began.elapsed().as_secs()), (StatusCode::REQUEST_TIMEOUT, READ_TIMEOUT.as_secs()));
}
