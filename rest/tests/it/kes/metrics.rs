//! What is counted under the names of KES.

use super::*;

async fn metrics(front: &Front, accept: Option<&str>) -> Answer {
    let mut request = Request::get("/v1/metrics").header("host", "localhost");
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    front.send(None, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn requests_are_counted_as_clients_read_it_refusals_included() {
    let front = Front::start().await;
    front.make("k").await;
    front.get("/v1/key/list/*").await;
    front.ask(Some(&front.stranger), Method::GET, "/v1/key/list/*", "").await;
    front.ask(None, Method::DELETE, "/v1/key/create/k", "").await;
    front.get("/v1/health").await;
    let shown = metrics(&front, None).await;
    assert_eq!(shown.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE kes_http_request_success counter",
        "kes_http_request_success{code=\"200\"} 2",
        "kes_http_request_error{code=\"403\"} 1",
        "kes_http_request_error{code=\"405\"} 1",
        "kes_http_request_failure{code=\"500\"} 0",
        "kes_http_request_active 0",
        "kes_http_response_time_count 4",
        "kes_http_response_time_bucket{le=\"+Inf\"} 4",
        "kes_log_audit_events 4",
        "kes_log_error_events 0",
        "# TYPE holdfast_rest_requests_total counter",
    ] {
        assert!(shown.text.lines().any(|shown| shown == line), "{line}\n{}", shown.text);
    }
    for name in ["num_cpu", "num_cpu_used", "num_threads", "mem_heap_used", "mem_stack_used", "up_time"] {
        let value = shown.text.lines().find_map(|line| line.strip_prefix(&format!("kes_system_{name} ")));
        let value: u64 = value.unwrap_or_else(|| panic!("{name}\n{}", shown.text)).parse().unwrap();
        assert!(value > 0 || name == "up_time", "{name}");
    }
}

#[tokio::test]
async fn the_text_is_what_its_type_says() {
    let front = Front::start().await;
    let open = metrics(&front, Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")).await;
    assert!(open.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.text.ends_with("# EOF\n") && open.text.contains("# TYPE holdfast_bound_refusals counter\n"));
    // There a counter's samples end in _total.
    assert!(open.text.contains("# TYPE kes_http_request_success unknown\nkes_http_request_success{code=\"200\"} 0\n"));
    let plain = metrics(&front, Some("*/*")).await;
    let is_sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_default();
        name.starts_with(|first: char| first.is_ascii_lowercase()) && value.parse::<f64>().is_ok()
    };
    let is_said =
        |line: &str| line.starts_with("# HELP ") || line.starts_with("# TYPE ") || line.starts_with("# UNIT ");
    for line in plain.text.lines() {
        assert!(is_sample(line) || is_said(line), "{line}");
    }
    let kinds: Vec<&str> = plain.text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert!(
        kinds.iter().all(|line| ["counter", "gauge", "histogram"].iter().any(|kind| line.ends_with(kind))),
        "{kinds:?}"
    );
}
