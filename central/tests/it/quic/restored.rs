//! A central whose folder was put back to an earlier day.

use std::fs;
use std::path::Path;

use holdfast_actors::access_control::tenants::tenant;
use holdfast_actors::key_store::TransitKey;
use holdfast_actors::rows::ReadRows;
use holdfast_protocol::wire::{CloseCode, Head};
use quinn::{ConnectionError, VarInt};

use super::*;
use crate::client::Answer;

const ADOPT: &str = "/v1/state/system/adopt-restored";

impl Central {
    /// Stopped, its data folder changed, started and unsealed again.
    async fn restarted(self, change: impl FnOnce(&Path)) -> Self {
        let Self { here, quic, root, .. } = self;
        let Here { running, sealkey, config, folder } = here.unwrap();
        running.stop().await;
        change(&folder.path().join("data"));
        let running = start(Config::parse(&config).unwrap()).await.unwrap();
        let body = json!({ "sealkey": sealkey });
        let unseal = format!("{SEAL}/unseal");
        let rest = running.rest_addr();
        let answer = try_call(rest, As::default(), ("POST", &unseal), Some(body)).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text);
        Self { here: Some(Here { running, sealkey, config, folder }), rest, quic, root }
    }

    /// The day of the backup ends, and the next one begins.
    async fn backed_up(self) -> Self {
        self.restarted(|data| copy_all(data, &data.with_file_name("backup"))).await
    }

    async fn restored(self) -> Self {
        self.restarted(|data| {
            fs::remove_dir_all(data).unwrap();
            copy_all(&data.with_file_name("backup"), data);
        })
        .await
    }

    async fn call(&self, who: As<'_>, method: &str, path: &str, body: Option<Value>) -> Answer {
        try_call(self.rest, who, (method, path), body).await.unwrap()
    }

    async fn creates_a_site(&self, name: &str) -> Answer {
        let site = json!({ "name": name, "ek-trust": "token", "hosts": [{ "name": "x" }] });
        let who = As { token: Some(&self.root), operator: None };
        self.call(who, "POST", "/v1/config/system/sites", Some(site)).await
    }

    /// Anybody asks for a host's notice, and shows one.
    async fn notice_of(&self, host: &Host, shown: Option<Signed>) -> Option<Signed> {
        let connection = self.connect("127.0.0.1", ALPN_ENROL, None).await;
        let (mut to, mut from) = connection.open_bi().await.unwrap();
        say(&mut to, &EnrolRequest::Notice { host: host.id.clone(), head: None, notice: shown }).await;
        let EnrolAnswer::Notice(notice) = hear(&mut from).await else { panic!("a notice") };
        notice
    }

    /// How many keys the tenant acme has, if it is there.
    fn keys_of_acme(&self) -> Option<usize> {
        let rows = self.running().node().barrier.snapshot().unwrap();
        let acme = tenant(&rows, &"acme".parse().unwrap()).unwrap()?;
        Some(rows.list::<TransitKey>(acme.realm, &[]).unwrap().len())
    }

    async fn is_stopped(&self) -> bool {
        let health = self.call(As::default(), "GET", "/v1/health", None).await;
        assert_eq!(health.status, 200, "{}", health.text);
        let refused = self.creates_a_site("udc7").await.status == 503;
        let says_so = health.json()["reason"].as_str().is_some_and(|reason| reason.contains("adopt-restored"));
        assert_eq!(refused, says_so, "{}", health.text);
        refused
    }
}

impl Host {
    /// What central ends a session with whose hello shows this head.
    async fn is_sent_away(&self, central: &Central, head: Option<Signed>) -> CloseCode {
        let connection = central.connect_by("127.0.0.1", self.tls()).await.unwrap();
        let (mut to, mut from) = connection.open_bi().await.unwrap();
        let FromHost::Hello(mut hello) = self.hello() else { panic!("a hello") };
        hello.head = head;
        say(&mut to, &FromHost::Hello(hello)).await;
        assert!(from.read(&mut [0; 1]).await.is_err(), "it is told nothing before what it shows was looked at");
        let ConnectionError::ApplicationClosed(close) = connection.closed().await else { panic!("closed by central") };
        let code = [CloseCode::CentralSealed, CloseCode::Protocol, CloseCode::EnrolAgain];
        let found = code.into_iter().find(|code| close.error_code == VarInt::from_u32(*code as u32));
        found.unwrap_or_else(|| panic!("{close:?}"))
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_head_stops_a_restored_central_until_it_is_adopted() {
    let central = Central::unsealed().await;
    let host = Host::join(&central).await;
    // What it boots is learned before the backup.
    host.pass(&mut host.begin(&central).await).await;
    let central = central.backed_up().await;
    assert!(central.creates_a_site("udc8").await.status.is_success());
    let mut session = host.begin(&central).await;
    let lost = host.pass(&mut session).await;
    drop(session);

    let central = central.restored().await;
    // More writes than were lost, before any host has come.
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert!(central.creates_a_site(name).await.status.is_success(), "nobody knows yet");
    }
    assert_eq!(host.is_sent_away(&central, Some(lost.clone())).await, CloseCode::CentralSealed);
    assert!(central.is_stopped().await);
    assert_eq!(host.is_sent_away(&central, None).await, CloseCode::CentralSealed, "nobody gets anything");
    let mut central = central;
    central.here.as_mut().unwrap().config += "[kes]\ntenant = \"acme\"\nkeys = [\"of-acme\"]\n";
    let central = central.restarted(|_| ()).await;
    assert_eq!(host.is_sent_away(&central, None).await, CloseCode::CentralSealed, "and a new start forgets nothing");
    assert!(central.is_stopped().await);
    assert_eq!(central.keys_of_acme(), None, "what the configuration says, changes nothing now");

    // Whom the operator knows to be stolen is cut off before anybody is served again; nobody is taken back.
    let who = As { token: Some(&central.root), operator: None };
    let of_site = |name: &str, what: &str| format!("/v1/state/system/sites/{name}/{what}");
    for (what, body) in [
        (of_site("a", "quarantine-site"), json!({ "wipe": true })),
        (of_site("b", "quarantine-site-host"), json!({ "host": "x" })),
    ] {
        let cut_off = central.call(who, "POST", &what, Some(body)).await;
        assert_eq!(cut_off.status, 204, "{what}: {}", cut_off.text);
    }
    let taken_back = central.call(who, "POST", &of_site("a", "unquarantine-site"), Some(json!({}))).await;
    assert_eq!(taken_back.status, 503, "{}", taken_back.text);
    assert!(central.is_stopped().await);

    let adopted = central.call(who, "POST", ADOPT, Some(json!({}))).await;
    assert_eq!(adopted.status, 200, "{}", adopted.text);
    assert!(!central.is_stopped().await);
    assert_eq!(central.keys_of_acme(), Some(1), "what the configuration says is so at once");
    let mut session = host.begin(&central).await;
    let head = host.pass(&mut session).await;
    let [before, after] = [lost, head].map(|head| codec::decode::<Head>(&head.body, 4096).unwrap());
    assert_eq!((before.term.0, after.term.0), (1, 2));
    assert_ne!(before.incarnation, after.incarnation);
    central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_site_made_after_the_backup_is_proof_enough() {
    let central = Central::unsealed().await.backed_up().await;
    let host = Host::join(&central).await;
    let central = central.restored().await;
    assert!(!central.is_stopped().await);
    let made = central.call(As { token: Some(&central.root), operator: None }, "GET", ADOPT, None).await;
    assert_eq!(made.status, 404, "{}", made.text);
    assert_eq!(host.is_sent_away(&central, None).await, CloseCode::CentralSealed);
    assert!(central.is_stopped().await);

    // Strangers don't adopt, an operator's certificate is enough, and what can't be read is refused.
    let operator = Operator::new();
    let by_certificate = As { token: None, operator: Some(&operator) };
    assert_eq!(central.call(As::default(), "POST", ADOPT, None).await.status, 401);
    let bent = format!("{ADOPT}?validat=true");
    assert_eq!(central.call(by_certificate, "POST", &bent, None).await.status, 400);
    assert_eq!(central.call(by_certificate, "POST", ADOPT, Some(json!({"force": true}))).await.status, 400);
    let validated = central.call(by_certificate, "POST", &format!("{ADOPT}?validate=true"), None).await;
    assert_eq!(validated.status, 200, "{}", validated.text);
    let report = validated.json();
    assert_eq!((&report["stopped"], &report["adopted"]), (&json!(true), &Value::Null), "{report}");
    assert_eq!((&report["hosts"][0]["host"], &report["hosts"][0]["known"]), (&json!("udc1/udc1-001"), &json!(false)));
    assert!(central.is_stopped().await, "a look changes nothing");

    let adopted = central.call(by_certificate, "POST", ADOPT, None).await;
    assert_eq!((adopted.status.as_u16(), &adopted.json()["stopped"]), (200, &json!(false)), "{}", adopted.text);
    let again = central.call(by_certificate, "POST", ADOPT, None).await;
    assert_eq!(again.status, 409, "{}", again.text);
    assert!(!central.is_stopped().await);
    // It is known to be unknown: nobody is stopped by it again.
    assert_eq!(host.is_sent_away(&central, None).await, CloseCode::Protocol);
    assert!(central.creates_a_site("udc9").await.status.is_success());
    central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_that_is_taken_over_late_ends_the_live_session() {
    let central = Central::unsealed().await;
    let host = Host::join(&central).await;
    // What it boots is learned before the backup.
    host.pass(&mut host.begin(&central).await).await;
    let central = central.backed_up().await;
    let mut session = host.begin(&central).await;
    let lost = host.pass(&mut session).await;
    let who = As { token: Some(&central.root), operator: None };
    let path = format!("/v1/state/system/sites/{}/quarantine-site-host", host.id.site);
    let cut_off = central.call(who, "POST", &path, Some(json!({ "host": host.id.host }))).await;
    assert_eq!(cut_off.status, 204, "{}", cut_off.text);
    let notice = central.notice_of(&host, None).await;
    assert!(notice.is_some());
    drop(session);

    // The host is back after the adoption, and shows what it has seen of the lost days last.
    let central = central.restored().await;
    assert_eq!(host.is_sent_away(&central, Some(lost)).await, CloseCode::CentralSealed);
    let who = As { token: Some(&central.root), operator: None };
    let adopted = central.call(who, "POST", ADOPT, Some(json!({}))).await;
    assert_eq!(adopted.status, 200, "{}", adopted.text);
    let mut session = host.begin(&central).await;
    host.pass(&mut session).await;
    assert!(session.connection.close_reason().is_none());
    assert!(central.notice_of(&host, notice).await.is_some());
    let ConnectionError::ApplicationClosed(close) = session.connection.closed().await else {
        panic!("closed by central")
    };
    assert_eq!(close.error_code, VarInt::from_u32(CloseCode::Quarantined as u32));
    central.stop().await;
}
