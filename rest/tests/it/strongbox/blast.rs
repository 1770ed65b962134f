//! What was sent to a site, as its operator and its tenants see it; what cutting off would do.

use std::collections::BTreeSet;

use axum::http::Method;
use holdfast_actors::distribution::build::{Order, TenantRef, build};
use holdfast_actors::ports::Clock;
use holdfast_actors::site_registry::authorities::signer;
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_protocol::ids::{HostId, HostName, Realm};
use serde_json::{Value, json};

use super::node::Central;

const CONFIG: &str = "/v1/config/system/sites";
const RADIUS: &str = "/v1/state/system/sites/udc1/blast-radius";
const OWN: &str = "/v1/state/strongbox/sites/udc1/blast-radius";

/// Two sites of two hosts and two set-up tenants, `acme` and `beta`, with three secrets each.
async fn filled() -> (Central, String, String) {
    let central = Central::start().await;
    for site in ["udc1", "udc2"] {
        let hosts = json!([{ "name": format!("{site}-001") }, { "name": format!("{site}-002") }]);
        let body = json!({ "name": site, "ek-trust": "token", "learn-reference-values": true, "hosts": hosts });
        assert_eq!(central.post(CONFIG, &body.to_string()).await.status.as_u16(), 201);
    }
    let (acme, beta) = (central.tenant("acme").await, central.tenant("beta").await);
    for realm in [2, 3] {
        central.place(Realm(realm), &["one", "two", "three"]).await;
    }
    (central, acme, beta)
}

impl Central {
    /// A box `vault` that goes everywhere, and secrets in it.
    async fn place(&self, realm: Realm, names: &[&'static str]) {
        use holdfast_actors::distribute::{Distribute, Placement};
        use holdfast_actors::rows::Batch;
        use holdfast_actors::secret_store::{DepositBox, Stamp};
        let stamp = Stamp { by: "ann".to_owned(), at_us: self.clock.now().wall_us };
        let of = DepositBox {
            id: "id of vault".to_owned(),
            name: "vault".to_owned(),
            slug: "vault".to_owned(),
            description: None,
            category_id: "c".to_owned(),
            category_path: "app".to_owned(),
            owner: "admins".to_owned(),
            user_group_permissions: Vec::new(),
            iam_principal_permissions: Vec::new(),
            distribute: Distribute { to: Placement::All, offline_s: None },
            created: stamp.clone(),
            updated: stamp,
            max_versions: None,
            cas_required: false,
        };
        let put = move |_: &dyn holdfast_actors::rows::Rows| {
            let mut batch = Batch::housekeeping();
            batch.put(realm, &["vault"], &of);
            Ok((batch, ()))
        };
        self.access.node().barrier().run(put).await.unwrap();
        for name in names {
            self.write(realm, name, "first").await;
        }
    }

    async fn write(&self, realm: Realm, name: &'static str, value: &str) {
        use holdfast_actors::rows::Batch;
        use holdfast_actors::secret_store::{CurrentSecret, Marks, Stamp};
        let stamp = Stamp { by: "ann".to_owned(), at_us: self.clock.now().wall_us };
        let data = json!({ "value": value }).to_string();
        let put = move |_: &dyn holdfast_actors::rows::Rows| {
            let current = CurrentSecret {
                data: data.clone().into(),
                version_id: format!("version of {name}"),
                created: stamp.clone(),
                updated: stamp.clone(),
                version: 1,
                marks: Marks::default(),
            };
            let mut batch = Batch::housekeeping();
            batch.put(realm, &["vault", "dir", name], &current);
            Ok((batch, ()))
        };
        self.access.node().barrier().run(put).await.unwrap();
    }

    /// Delivers a tenant's content to hosts of `udc1`.
    async fn deliver(&self, name: &str, realm: Realm, hosts: &[&str]) {
        let barrier = self.access.node().barrier().clone();
        let tenant = TenantRef { name: name.parse().unwrap(), realm };
        let hosts: BTreeSet<HostName> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let now = self.clock.now();
        let built = tokio::task::spawn_blocking(move || {
            let signing = signer(&barrier.snapshot().unwrap()).unwrap().0;
            let order = Order { tenant: &tenant, site: &"udc1".parse().unwrap(), base: None, hosts: &hosts };
            build(&barrier, &order, &signing, now).map(|_| ())
        });
        built.await.unwrap().unwrap();
    }
}

fn names(report: &Value) -> Vec<String> {
    let entries = report["entries"].as_array().unwrap();
    let mut names: Vec<String> =
        entries.iter().map(|entry| entry["secret"].as_str().unwrap_or("-").to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn operators_see_numbers_and_tenants_see_their_own_names() {
    let (central, acme, beta) = filled().await;
    central.deliver("acme", Realm(2), &["udc1-001", "udc1-002"]).await;
    central.deliver("beta", Realm(3), &["udc1-001"]).await;

    let all = central.get(RADIUS).await;
    assert_eq!(all.status.as_u16(), 200, "{}", all.text);
    let report = all.json();
    assert_eq!((&report["site"], &report["quarantined"]), (&json!("udc1"), &json!(false)));
    let summary = &report["summary"];
    assert_eq!((&summary["vaults"], &summary["secrets"], &summary["open"]), (&json!(2), &json!(6), &json!(6)));
    let tenants: Vec<_> = summary["tenants"].as_array().unwrap().iter().map(|of| of["tenant"].clone()).collect();
    assert_eq!(tenants, [json!("acme"), json!("beta")]);
    assert_eq!(names(&report), ["-"; 6], "no names of others");
    for hidden in ["vault\"", "dir/", "version of", "first"] {
        assert!(!all.text.contains(hidden), "{hidden}: {}", all.text);
    }

    let own = central.ask(Method::GET, OWN, Some(&acme), "").await;
    assert_eq!(own.status.as_u16(), 200, "{}", own.text);
    assert_eq!(names(&own.json()), ["dir/one", "dir/three", "dir/two"]);
    assert!(!own.text.contains("beta"), "{}", own.text);
    assert_eq!(own.json()["summary"]["open"], 3);
    let first = &own.json()["entries"][0];
    assert_eq!(
        (&first["tenant"], &first["vault"], &first["status"]),
        (&json!("acme"), &json!("vault"), &json!("open"))
    );
    let ids = |report: &Value| -> BTreeSet<String> {
        report["entries"].as_array().unwrap().iter().map(|entry| entry["item"].as_str().unwrap().to_owned()).collect()
    };
    assert!(ids(&own.json()).is_subset(&ids(&report)), "both speak of the same items");

    // A host has what it was sent, and nobody learns of a site where nothing of his is.
    let of_host = central.get(&format!("{RADIUS}?host=udc1-002")).await.json();
    assert_eq!((&of_host["host"], &of_host["summary"]["secrets"]), (&json!("udc1-002"), &json!(3)));
    for path in [
        "/v1/state/strongbox/sites/udc2/blast-radius".to_owned(),
        "/v1/state/strongbox/sites/udc9/blast-radius".to_owned(),
        format!("{OWN}?host=udc1-002"),
        format!("{OWN}?host=udc1-009"),
    ] {
        let refused = central.refuses(404, Method::GET, &path, Some(&beta), "").await;
        assert!(refused.text.contains("site not found"), "{path}: {}", refused.text);
    }
    let empty = central.get("/v1/state/system/sites/udc2/blast-radius").await.json();
    assert_eq!((&empty["summary"]["secrets"], &empty["entries"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn entries_close_as_secrets_are_rotated_and_pages_lead_through_all() {
    let (central, acme, _) = filled().await;
    central.deliver("acme", Realm(2), &["udc1-001"]).await;
    central.write(Realm(2), "one", "second").await;
    let report = central.ask(Method::GET, OWN, Some(&acme), "").await.json();
    let summary = &report["summary"];
    assert_eq!((&summary["open"], &summary["closed"], &summary["rotated"]), (&json!(2), &json!(1), &json!(1)));
    let rotated = report["entries"].as_array().unwrap().iter().find(|entry| entry["secret"] == "dir/one").unwrap();
    assert_eq!(rotated["status"], "rotated");
    let open = central.ask(Method::GET, &format!("{OWN}?status=open"), Some(&acme), "").await.json();
    assert_eq!(names(&open), ["dir/three", "dir/two"]);

    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let from = if next.is_empty() { String::new() } else { format!("&from={next}") };
        let page = central.ask(Method::GET, &format!("{OWN}?limit=1{from}"), Some(&acme), "").await.json();
        assert_eq!(page["summary"].is_null(), !from.is_empty(), "counts are on the first page");
        seen.extend(names(&page));
        match page["next"].as_str() {
            Some(more) => next = more.to_owned(),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["dir/one", "dir/three", "dir/two"]);
    // Another's place is no place to go on from.
    let other = next.replace("acme", "beta");
    for query in ["limit=0", "limit=1001", "limit=x", "from=x", "from=acme/zz", "status=closed", "colour=red"] {
        central.refuses(400, Method::GET, &format!("{OWN}?{query}"), Some(&acme), "").await;
    }
    central.refuses(400, Method::GET, &format!("{OWN}?from={other}"), Some(&acme), "").await;
}

#[tokio::test]
async fn vaults_and_approles_are_listed_until_they_are_rotated_or_revoked() {
    let (central, acme, _) = filled().await;
    let as_admin = async |method, path: &str, body: Value, status| {
        let answer = central.ask(method, path, Some(&acme), &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
    };
    let vaults = "/v1/config/strongbox/vaults";
    let secret = |value: &str| json!({ "name": "dbpass", "data": { "value": value } });
    as_admin(Method::POST, vaults, json!({ "name": "shop", "distribute": { "sites": ["udc1"] } }), 201).await;
    as_admin(Method::POST, &format!("{vaults}/shop/secrets"), secret("first"), 201).await;
    let approles = "/v1/config/strongbox/authentication/approles";
    as_admin(Method::POST, approles, json!({ "name": "tills", "distribute": { "sites": ["udc1"] } }), 201).await;
    as_admin(Method::POST, approles, json!({ "name": "at-central" }), 201).await;
    central.deliver("acme", Realm(2), &["udc1-001"]).await;

    let look = async || central.ask(Method::GET, OWN, Some(&acme), "").await.json();
    let status = |report: &Value, member: &str, name: &str| {
        let entries = report["entries"].as_array().unwrap();
        let found: Vec<_> = entries.iter().filter(|entry| entry[member] == name).collect();
        assert_eq!(found.len(), 1, "{report}");
        found[0]["status"].as_str().unwrap().to_owned()
    };
    let report = look().await;
    assert_eq!((status(&report, "vault", "shop"), status(&report, "approle", "tills")), ("open".into(), "open".into()));
    let summary = &report["summary"];
    assert_eq!((&summary["vaults"], &summary["secrets"], &summary["approles"]), (&json!(2), &json!(4), &json!(1)));
    assert!(!report.to_string().contains("at-central"), "{report}");
    let all = central.get(RADIUS).await;
    assert_eq!(all.json()["entries"].as_array().unwrap().iter().filter(|of| of["kind"] == "approle").count(), 1);
    for hidden in ["shop", "dbpass", "tills"] {
        assert!(!all.text.contains(hidden), "{hidden}: {}", all.text);
    }

    as_admin(Method::PUT, &format!("{vaults}/shop/secrets/dbpass"), secret("second"), 204).await;
    let revoke = "/v1/state/strongbox/authentication/approles/tills/revoke";
    as_admin(Method::POST, revoke, Value::Null, 204).await;
    let report = look().await;
    let rotated = || "rotated".to_owned();
    assert_eq!((status(&report, "vault", "shop"), status(&report, "approle", "tills")), (rotated(), rotated()));
    as_admin(Method::DELETE, &format!("{approles}/tills"), Value::Null, 204).await;
    assert_eq!(status(&look().await, "approle", "tills"), "deleted");
}

#[tokio::test]
async fn what_a_quarantine_would_do_is_told_and_not_done() {
    let (central, acme, _) = filled().await;
    central.deliver("acme", Realm(2), &["udc1-001", "udc1-002"]).await;
    let id = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
    let live = Live { trusted: true, ..Live::default() };
    central.fleet.live.lock().unwrap().insert(id, live);
    let before = central.lines();
    for (operation, body, cut_off) in [
        ("quarantine-site", json!({}), 2),
        ("quarantine-site", json!({ "wipe": true }), 2),
        ("quarantine-site-host", json!({ "host": "udc1-001" }), 1),
    ] {
        let path = format!("/v1/state/system/sites/udc1/{operation}?validate=true");
        let told = central.post(&path, &body.to_string()).await;
        assert_eq!(told.status.as_u16(), 200, "{operation}: {}", told.text);
        let told = told.json();
        let hosts = told["hosts"].as_array().unwrap();
        assert_eq!(hosts.iter().filter(|host| host["becomes"] == "cut-off").count(), cut_off, "{told}");
        assert_eq!((&told["sites-with-new-keys"], &told["total"]["secrets"]), (&json!(0), &json!(3)));
        assert_eq!((&told["already"], &told["seal-epoch"], &told["dist-epoch"]), (&json!(false), &json!(2), &json!(2)));
        assert_eq!((&told["tenants"][0]["name"], &told["tenants"][0]["vaults"]), (&json!("acme"), &json!(1)));
        assert!(hosts[0]["connected"] == true && hosts[1]["connected"] == false);
    }
    assert_eq!(central.lines(), before);
    let state = central.get("/v1/state/system/sites/udc1").await.json();
    assert_eq!((&state["standing"], &state["seal-epoch"]), (&json!("trusted"), &json!(1)));

    let root = Some(central.root.as_str());
    let tried = |operation: &str| format!("/v1/state/system/sites/udc1/{operation}?validate=true");
    for (path, body, status) in [
        (tried("quarantine-site-host"), "host: nobody", 404),
        (tried("quarantine-site-host"), "{}", 400),
        (tried("quarantine-site"), "wipe: perhaps", 400),
        ("/v1/state/system/sites/udc9/quarantine-site?validate=true".to_owned(), "", 404),
    ] {
        central.refuses(status, Method::POST, &path, root, body).await;
    }
    central.refuses(403, Method::POST, &tried("quarantine-site"), Some(&acme), "").await;
    // Taking back is only tried: there is nothing more to tell of it.
    let tried = central.post(&tried("unquarantine-site"), "").await;
    assert_eq!((tried.status.as_u16(), tried.text.as_str()), (204, ""));
}

#[tokio::test]
async fn a_rotation_is_listed_with_whom_it_waits_for() {
    let (central, ..) = filled().await;
    let receipts = "/v1/state/system/sites/udc1/rotation-receipts";
    let before = central.get(receipts).await.json();
    assert_eq!(
        (&before["complete"], &before["rotations"], &before["seal-epoch"]),
        (&json!(true), &json!([]), &json!(1))
    );
    let done = central.post("/v1/state/system/sites/udc1/quarantine-site-host", "host: udc1-001").await;
    assert_eq!(done.status.as_u16(), 204, "{}", done.text);
    let after = central.get(receipts).await.json();
    let rotation = &after["rotations"][0];
    assert_eq!((&rotation["cause"], &rotation["host"]), (&json!("quarantine"), &json!("udc1-001")));
    assert_eq!((&rotation["seal-epoch"], &rotation["dist-epoch"]), (&json!(2), &json!(2)));
    assert_eq!((&rotation["complete"], &rotation["hosts"]), (&json!(true), &json!([])), "its sibling never joined");
    assert_eq!(central.get(RADIUS).await.json()["quarantined"], false);
    let of_host = central.get(&format!("{RADIUS}?host=udc1-001")).await.json();
    assert_eq!(of_host["quarantined"], true);
    assert!(of_host["quarantined-since"].is_string());
}

#[tokio::test]
async fn reports_are_for_those_whom_they_concern() {
    let (central, acme, _) = filled().await;
    let receipts = "/v1/state/system/sites/udc1/rotation-receipts";
    for path in [RADIUS, receipts, "/v1/state/system/sites/udc9/blast-radius"] {
        central.refuses(401, Method::GET, path, None, "").await;
        central.refuses(403, Method::GET, path, Some(&acme), "").await;
    }
    central.refuses(401, Method::GET, OWN, None, "").await;
    let root = Some(central.root.as_str());
    for path in [
        "/v1/state/system/sites/udc9/blast-radius",
        "/v1/state/system/sites/udc9/rotation-receipts",
        "/v1/state/system/sites/UDC/blast-radius",
        "/v1/state/system/sites/udc1/blast-radius?host=nobody",
        "/v1/state/system/sites/udc1/blast-radius?host=NO/BODY",
    ] {
        central.refuses(404, Method::GET, path, root, "").await;
    }
    central.access.node().barrier().seal_and_erase().await;
    for path in [RADIUS, OWN, receipts] {
        assert_eq!(central.get(path).await.status.as_u16(), 503, "{path}");
    }
}
