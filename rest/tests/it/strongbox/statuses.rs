//! Each operation with all of its statuses, by the tables in `statuses/central.txt` and `statuses/host.txt`: who may, what
//! is refused and in which words, what that leaves unchanged, what has to hold at hosts. An operation that is not in its
//! table fails the test, and so does a status that its first line does not name, or names in vain.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, header};
use holdfast_actors::seal_keeper::SealRefusal;
use holdfast_actors::shell::caught;
use holdfast_rest::body::BODY_BYTES_MAX;
use holdfast_rest::openapi::{Node, documents};
use holdfast_testbed::routes::routes;

use crate::client::Answer;

mod host;
mod stage;
mod table;

use stage::Stage;
use table::{Call, Caller, Operation, read};

const CENTRAL: &str = include_str!("statuses/central.txt");
const HOST: &str = include_str!("statuses/host.txt");

/// An operation on a stage of its own.
struct Trial<'a> {
    of: &'a Operation,
    stage: Stage,
    seen: BTreeSet<u16>,
    /// Lines of refusals that there have to be.
    refusals: u64,
}

impl Trial<'_> {
    /// The request of a call, changed by the query or otherwise.
    fn asked(&self, call: &Call) -> Request<Body> {
        self.stage.request(&self.of.method, &self.of.route, call)
    }

    fn tried(&self, call: &Call, query: &str) -> Request<Body> {
        let mut call = call.clone();
        let query = call.get("?").map_or(query.to_owned(), |own| format!("{own}&{query}"));
        call.set.insert("?".to_owned(), query);
        self.asked(&call)
    }

    /// Sends it as somebody.
    async fn send(&mut self, asked: Request<Body>, token: Option<&str>, here: bool) -> Answer {
        let answer = self.stage.answer(asked, token, here).await;
        let status = answer.status.as_u16();
        self.seen.insert(status);
        if (400..500).contains(&status) && (!self.of.callers.is_empty()) {
            self.refusals += 1;
        }
        if status >= 400 {
            let message = answer.json()["errors"][0]["error-message"].clone();
            assert!(message.as_str().is_some_and(|text| !text.is_empty()), "{}: {}", self.of.name(), answer.text);
        }
        answer
    }

    /// Sends it as somebody, and nothing changes.
    async fn refused(
        &mut self,
        what: &str,
        status: u16,
        asked: Request<Body>,
        token: Option<&str>,
        here: bool,
    ) -> Answer {
        let before = self.stage.trace();
        let answer = self.send(asked, token, here).await;
        assert_eq!(answer.status.as_u16(), status, "{} {what}: {}", self.of.name(), answer.text);
        assert_eq!(self.stage.trace(), before, "{} {what} changed something", self.of.name());
        answer
    }

    fn token(&self, call: &Call) -> Option<String> {
        let who = call.get("as").or_else(|| self.of.who_may().next())?;
        Some(self.stage.tokens.get(who).unwrap_or_else(|| panic!("nobody is {who}")).clone())
    }

    /// Everybody of the cast, and everybody without a good token: with the call that works, only tried where it changes
    /// something.
    async fn callers(&mut self) {
        let good = self.of.good();
        let (changes, query) = (!self.of.is("read"), "validate=true");
        let asked = |trial: &Self| if changes { trial.tried(good, query) } else { trial.asked(good) };
        for (who, caller) in &self.of.callers {
            let token = self.stage.tokens[who.as_str()].clone();
            let what = format!("by {who}");
            match caller {
                Caller::Refused(status) => {
                    self.refused(&what, *status, asked(self), Some(&token), false).await;
                }
                Caller::May => {
                    let before = self.stage.trace();
                    let answer = self.send(asked(self), Some(&token), false).await;
                    let done = match changes {
                        true => answer.status.as_u16() == if self.of.is("tells") { 200 } else { 204 },
                        false => answer.status.as_u16() == good.status,
                    };
                    let tried_elsewhere = self.of.is("in-stopped") && answer.status.as_u16() == 200;
                    assert!(
                        done || tried_elsewhere || good.status >= 400,
                        "{} {what}: {}",
                        self.of.name(),
                        answer.text
                    );
                    assert_eq!(self.stage.trace(), before, "{} {what} changed something", self.of.name());
                }
            }
        }
        if self.of.callers.is_empty() {
            return;
        }
        let mut strangers = self.stage.bad_tokens.clone();
        strangers.push(("another scheme", format!("Basic {}", self.stage.tokens["root"])));
        for (what, token) in strangers {
            self.refused(what, 401, asked(self), Some(&token), false).await;
            let misspelt = self.tried(good, "colour=red");
            self.refused(what, 401, misspelt, Some(&token), false).await;
        }
        self.refused("no token", 401, asked(self), None, false).await;
    }

    /// What no operation takes.
    async fn nonsense(&mut self) {
        let good = self.of.good();
        self.says(good.get("seal"));
        let (token, here) = (self.token(good), good.get("from").is_some());
        let misspelt = self.tried(good, "colour=red");
        self.refused("an unknown parameter", 400, misspelt, token.as_deref(), here).await;
        if self.of.is("read") || self.of.is("proof") {
            let tried = self.tried(good, "validate");
            self.refused("only tried", 400, tried, token.as_deref(), here).await;
        }
        if !self.of.is("body") {
            return;
        }
        // A body may be read only where nothing else has proved who asks.
        let here = false;
        for (what, status, body, kind) in [
            ("a malformed body", 400, "{".to_owned(), "application/json"),
            ("an unknown member", 400, r#"{"colour": "red"}"#.to_owned(), "application/json"),
            ("malformed YAML", 400, "colour: [".to_owned(), "application/yaml"),
            ("another type", 415, good.body.clone(), "text/plain"),
            ("a body too long", 413, " ".repeat(BODY_BYTES_MAX + 1), "application/json"),
        ] {
            let mut asked = self.asked(good).map(|_| Body::from(body));
            asked.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
            self.refused(what, status, asked, token.as_deref(), here).await;
        }
        self.says(None);
    }

    /// The calls of the table; those that succeed change what they say.
    async fn calls(&mut self, which: impl Fn(&Call) -> bool) {
        for call in self.of.calls.iter().filter(|call| call.is_done_here() && which(call)) {
            let what = format!("{:?} {}", call.set, call.body);
            let token = self.token(call);
            self.says(call.get("seal"));
            let (before, lines) = (self.stage.revision(), self.stage.central.lines());
            self.stage.central.hosts.bitten.lock().unwrap().clear();
            let answer = self.send(self.asked(call), token.as_deref(), call.get("from").is_some()).await;
            assert_eq!(answer.status.as_u16(), call.status, "{} {what}: {}", self.of.name(), answer.text);
            assert!(answer.text.contains(&call.words), "{} {what}: {}", self.of.name(), answer.text);
            assert!(!answer.text.contains("hunter2"), "{} repeats what it was sent", self.of.name());
            let (after, changes) = (self.stage.revision(), self.stage.central.lines().0 - lines.0);
            let is_changed = call.succeeds() && self.of.is("change");
            if is_changed {
                assert!(before < after && changes > 0, "{} {what} changed nothing", self.of.name());
            } else if !self.of.is("proof") || !call.succeeds() {
                assert_eq!((before, changes), (after, 0), "{} {what} changed something", self.of.name());
            }
            let bites = call.succeeds() && (self.of.is("bites") || call.has("bites"));
            // What a host does not serve any more has its line like any other refusal; what it can't do has none.
            self.refusals += u64::from(call.status == 503 && self.of.is("read") && !call.has("unable"));
            let bitten = !self.stage.central.hosts.bitten.lock().unwrap().is_empty();
            assert_eq!(bitten, bites, "{} {what} holds at hosts", self.of.name());
            let pends = bites || call.succeeds() && self.of.is("pends");
            assert_eq!(answer.header("holdfast-pending"), if pends { "1" } else { "" }, "{} {what}", self.of.name());
            self.says(None);
        }
    }

    fn says(&self, what: Option<&str>) {
        if let Some(host) = &self.stage.host {
            return host.seal.says(what.unwrap_or("open"));
        }
        let seal = &self.stage.central.seal;
        (*seal.refuse.lock().unwrap(), *seal.progress.lock().unwrap()) = (None, None);
        match what {
            None => {}
            Some("two-shares") => *seal.progress.lock().unwrap() = Some(2),
            Some("not-allowed") => seal.refuses(SealRefusal::NotAllowed),
            Some("revealed") => seal.refuses(SealRefusal::AlreadyRevealed),
            Some("wrong-key") => seal.refuses(SealRefusal::WrongSealKey),
            Some("wrong-share") => seal.refuses(SealRefusal::WrongShare { wrong: vec![2] }),
            Some("too-many") => seal.refuses(SealRefusal::TooManyAttempts { retry_after_s: 1801 }),
            Some("uninitialised") => seal.refuses(SealRefusal::Uninitialised),
            Some(other) => panic!("{other} is nothing that the keeper says"),
        }
    }

    /// At a restored copy.
    async fn stopped(&mut self) {
        let goes_on = self.of.calls.iter().any(|call| call.has("stopped"));
        if self.of.is("change") && !goes_on && self.stage.host.is_none() {
            let (good, before) = (self.of.good(), self.stage.central.lines().0);
            let token = self.token(good);
            let answer = self.refused("at a restored copy", 503, self.asked(good), token.as_deref(), false).await;
            assert!(answer.text.contains("restored from an older copy"), "{}", answer.text);
            assert_eq!(self.stage.central.lines().0, before);
        }
        self.calls(|call| call.has("stopped")).await;
    }

    async fn sealed(&mut self) {
        drop(self.stage.central.access.node().barrier().seal());
        let good = self.of.good();
        self.says(good.get("seal"));
        let (token, here) = (self.token(good), good.get("from").is_some());
        let answer = self.stage.answer(self.asked(good), token.as_deref(), here).await;
        let status = if self.of.is("open") { good.status } else { 503 };
        assert_eq!(answer.status.as_u16(), status, "{} while sealed: {}", self.of.name(), answer.text);
        self.seen.insert(status);
    }
}

/// All that is to be shown of one; the statuses that were seen.
async fn show(of: &Operation, stage: Stage) -> BTreeSet<u16> {
    stage.central.hosts.late.store(1, std::sync::atomic::Ordering::SeqCst);
    let mut trial = Trial { of, stage, seen: BTreeSet::new(), refusals: 0 };
    let is_ordinary = |call: &Call| !call.has("stopped") && !call.has("fresh");
    if of.is("in-stopped") {
        trial.calls(|call| call.has("fresh")).await;
        trial.stage.stopped(true).await;
    }
    let before = trial.stage.central.lines();
    trial.refusals = 0;
    if !of.is("refuses") {
        trial.callers().await;
        trial.nonsense().await;
    }
    trial.calls(|call| is_ordinary(call) && !call.succeeds()).await;
    let after = trial.stage.central.lines();
    assert_eq!(after.0, before.0, "{}: a refusal is no change", of.name());
    if !of.callers.is_empty() {
        let looks = if of.is("noted") { of.who_may().count() } else { 0 };
        assert_eq!(after.1 - before.1, trial.refusals + looks as u64, "{}: a line for each refusal", of.name());
    }
    if !of.is("in-stopped") {
        trial.stage.stopped(true).await;
        trial.stopped().await;
        trial.stage.stopped(false).await;
    }
    trial.calls(|call| is_ordinary(call) && call.succeeds()).await;
    trial.sealed().await;
    trial.seen.extend(of.calls.iter().filter(|call| !call.is_done_here()).map(|call| call.status));
    trial.seen
}

/// What the document says of an operation where it is not what the table says. Any may fail, be slow or be overloaded.
fn told_otherwise(of: &Operation, node: Node) -> Option<String> {
    let document = documents().into_iter().find(|document| document.node == node)?;
    let told = &document.text["paths"][of.route.as_str()][of.method.to_lowercase().as_str()]["responses"];
    let told: BTreeSet<u16> = told.as_object()?.keys().map(|status| status.parse().unwrap()).collect();
    let always = BTreeSet::from([204, 408, 500, 503]);
    let fits = of.statuses.is_subset(&told) && told.is_subset(&of.statuses.union(&always).copied().collect());
    (!fits).then(|| format!("{} (or its document, which says {told:?})", of.name()))
}

/// Shows all of a table, and that the table is all.
async fn show_all(table: &str, at_host: bool) {
    let all = read(table);
    let (mut wrong, mut failed, mut printed) = (Vec::new(), Vec::new(), None);
    for of in &all {
        for file in of.calls.iter().filter_map(|call| call.get("elsewhere")) {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            let last = of.route.rsplit('/').next().unwrap();
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(last), "{file} says nothing of {last}");
        }
        let stage = if at_host { Stage::at_host().await } else { Stage::at_central().await };
        printed = printed.or_else(|| Some(stage.routes()));
        let Some(seen) = caught(show(of, stage)).await else {
            failed.push(of.name());
            continue;
        };
        if seen != of.statuses {
            let seen: Vec<String> = seen.iter().map(u16::to_string).collect();
            wrong.push(format!("{} {}", of.name(), seen.join(" ")));
        }
    }
    wrong.extend(all.iter().filter_map(|of| told_otherwise(of, if at_host { Node::Site } else { Node::Central })));
    assert!(failed.is_empty(), "these are not as the table says, see above: {failed:#?}");
    assert!(wrong.is_empty(), "the first lines should read:\n{}", wrong.join("\n"));
    let mut told = BTreeSet::new();
    for of in &all {
        assert!(told.insert((of.route.clone(), of.method.clone())), "{} stands there twice", of.name());
    }
    let mut known = BTreeSet::new();
    for (route, methods) in routes(&printed.unwrap()) {
        known.extend(methods.into_iter().filter(|method| method != "HEAD").map(|method| (route.clone(), method)));
    }
    assert_eq!(told, known, "the operations of the table, and those of the router");
}

#[tokio::test]
async fn every_operation_at_central_gives_the_statuses_of_its_table_and_no_other() {
    show_all(CENTRAL, false).await;
}

#[tokio::test]
async fn every_operation_at_a_host_gives_the_statuses_of_its_table_and_no_other() {
    show_all(HOST, true).await;
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_told_which_it_has() {
    for (stage, table) in [(Stage::at_central().await, CENTRAL), (Stage::at_host().await, HOST)] {
        let all = read(table);
        let before = (stage.revision(), stage.central.lines());
        for route in all.iter().map(|of| &of.route).collect::<BTreeSet<_>>() {
            let there: BTreeSet<&str> =
                all.iter().filter(|of| of.route == *route).map(|of| of.method.as_str()).collect();
            let root = stage.tokens["root"].clone();
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter().filter(|method| !there.contains(method))
            {
                let asked = stage.request(method, route, &Call::default());
                let answer = stage.answer(asked, Some(&root), false).await;
                assert_eq!(answer.status.as_u16(), 405, "{method} {route}: {}", answer.text);
                let allowed: BTreeSet<&str> =
                    answer.header("allow").split(',').filter(|name| *name != "HEAD").collect();
                assert_eq!(allowed, there, "{method} {route}");
            }
            let asked = stage.request(Method::OPTIONS.as_str(), route, &Call::default());
            assert_eq!(stage.answer(asked, None, false).await.status.as_u16(), 204, "OPTIONS {route}");
            let below = stage.request("GET", &format!("{route}/nothing/below/it"), &Call::default());
            assert_eq!(stage.answer(below, Some(&root), false).await.status.as_u16(), 404, "below {route}");
        }
        assert_eq!((stage.revision(), stage.central.lines()), before);
    }
}
