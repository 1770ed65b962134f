//! Proxies that end the TLS of clients.

use holdfast_protocol::pki::pem;

use super::*;

const HEADER: &str = "x-tls-client-cert";

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(super) fn certificates(of: &[&Credentials]) -> String {
    escaped(&pem::certificates(&of.iter().map(|of| of.certificate.as_slice()).collect::<Vec<_>>()))
}

struct Proxied {
    front: Front,
    proxy: Credentials,
}

impl Proxied {
    async fn start(more: &str) -> Self {
        let proxy = Credentials::new("proxy", 70);
        let text = format!(
            "[kes]\nprofile = \"current\"\n{more}[kes.proxy]\nidentities = [{:?}]\nheader = \"X-Tls-Client-Cert\"\n\
             [kes.api.\"/v1/ready\"]\nskip_auth = true\n",
            identity(&proxy).to_string()
        );
        Self { front: Front::with(&text).await, proxy }
    }

    async fn by(&self, who: Option<&Credentials>, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = Request::get(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refused_or_empty(&self.front.send(who, request.body(Body::empty()).unwrap()).await)
    }
}

/// Status, and what is said of a refusal.
fn refused_or_empty(answer: &Answer) -> (u16, String) {
    if answer.status == 200 { (200, String::new()) } else { refused(answer) }
}

#[tokio::test]
async fn behind_a_proxy_the_client_is_whom_the_proxy_names() {
    let proxied = Proxied::start("").await;
    let Front { admin, stranger, .. } = &proxied.front;
    let (of_admin, of_stranger) = (certificates(&[admin]), certificates(&[stranger]));
    let (proxy, list) = (Some(&proxied.proxy), "/v1/key/list/");
    let ok = (200, String::new());
    let no_right = said(403, "not authorized: insufficient permissions");
    assert_eq!(proxied.by(proxy, list, &[(HEADER, &of_admin)]).await, ok);
    assert_eq!(proxied.by(proxy, list, &[(HEADER, &of_stranger)]).await, no_right);
    // Go writes blanks as plus.
    assert_eq!(proxied.by(proxy, list, &[(HEADER, &of_admin.replace("%20", "+"))]).await, ok);
    assert_eq!(proxied.by(Some(stranger), list, &[(HEADER, &of_admin)]).await, no_right, "who is no proxy");
    assert_eq!(proxied.by(Some(admin), list, &[(HEADER, &of_stranger)]).await, ok, "who is no proxy");
    assert_eq!(proxied.by(None, list, &[(HEADER, &of_admin)]).await.0, 400, "nor is nobody");
    let (admin, stranger) = (identity(admin), identity(stranger));
    let expected = [
        format!("1 {admin} key.list  ok"),
        format!("0 {stranger} key.list  {}", no_right.1),
        format!("1 {admin} key.list  ok"),
        format!("0 {stranger} key.list  {}", no_right.1),
        format!("1 {admin} key.list  ok"),
        "0 - key.list  tls: client certificate is required".to_owned(),
    ];
    assert_eq!(proxied.front.lines(), expected);
}

#[tokio::test]
async fn what_a_proxy_says_that_is_no_certificate_is_refused() {
    let proxied = Proxied::start("").await;
    let Front { admin, stranger, .. } = &proxied.front;
    let (proxy, list, one) = (Some(&proxied.proxy), "/v1/key/list/", certificates(&[admin]));
    let (none, bad) = (said(400, "no client certificate is present"), said(400, "invalid client certificate"));
    let several = said(400, "too many client certificates are present");
    let (both, long) = (certificates(&[admin, stranger]), format!("{one}{}", "%0A".repeat(6000)));
    let (empty, cut) =
        (escaped("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), &one[..one.len() - 80]);
    for (headers, expected) in [
        (vec![], &none),
        (vec![("x-other", one.as_str())], &none),
        (vec![(HEADER, one.as_str()), (HEADER, &one)], &several),
        (vec![(HEADER, both.as_str())], &several),
        (vec![(HEADER, "")], &bad),
        (vec![(HEADER, "%zz")], &bad),
        (vec![(HEADER, empty.as_str())], &bad),
        (vec![(HEADER, cut)], &bad),
        (vec![(HEADER, long.as_str())], &bad),
    ] {
        assert_eq!(&proxied.by(proxy, list, &headers).await, expected, "{headers:?}");
    }
    assert_eq!(proxied.by(proxy, "/v1/ready", &[]).await.0, 200, "what needs no certificate");
    let lines = proxied.front.lines();
    assert!(
        lines[..9].iter().all(|line| line.starts_with(&format!("0 {} key.list  ", identity(&proxied.proxy)))),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_no_better_behind_a_proxy() {
    let strict = Proxied::start("").await;
    let of_admin = certificates(&[&strict.front.admin]);
    strict.front.world.clock.advance(400 * 365 * 86_400 * 10);
    // The proxy's own has ended as well, which is looked at by nobody: it is not the client's.
    let answer = strict.by(Some(&strict.proxy), "/v1/key/list/", &[(HEADER, &of_admin)]).await;
    assert_eq!(answer, said(403, "tls: client certificate has expired"));
    let lenient = Proxied::start("accept_expired_certificates = true\n").await;
    lenient.front.world.clock.advance(400 * 365 * 86_400 * 10);
    assert_eq!(lenient.by(Some(&lenient.proxy), "/v1/key/list/", &[(HEADER, &of_admin)]).await.0, 200);
}

#[test]
fn mistakes_are_named() {
    for (text, key) in [
        ("identities = []", "kes.proxy.header"),
        ("identities = [\"x\"]\nheader = \"a\"", "kes.proxy.identities"),
        ("header = \"a b\"", "kes.proxy.header"),
        ("header = \"a\"\nother = 1", "kes.proxy.other"),
    ] {
        let checker = Checker::parse(&format!("[kes.proxy]\n{text}\n")).unwrap();
        let section = Section::read(&checker, "kes", &[]);
        let keys: Vec<String> = checker.finish(section).unwrap_err().0.into_iter().map(|error| error.key).collect();
        assert_eq!(keys, [key], "{text}");
    }
}
