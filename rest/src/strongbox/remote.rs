//! Remote seal keys: central gives them out, an operator carries them, a host without connection takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::authorities::{signer, unseal_authority};
use holdfast_actors::site_registry::rehearsal::{Rehearsal, rehearse};
use holdfast_actors::site_registry::unsealing::{AskRemote, remote_sealkeys};
use holdfast_actors::site_registry::{Held, host, site};
use holdfast_protocol::codec;
use holdfast_protocol::ids::{HostId, HostName, Realm, SiteName};
use holdfast_protocol::signed;
use holdfast_protocol::wire::{
    REMOTE_SEAL_KEYS_BYTES_MAX, RemoteSealKeys, Signed, UNSEAL_CHALLENGE_BYTES_MAX, UnsealChallenge,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{self, Call, Right, op};
use super::control::OwnRehearsal;
use super::conventions::Wanted;
use super::seal::{OPERATORS, asked_by_operator, class_of};
use super::{AtCentral, AtSite, StrongboxSite};
use crate::body;
use crate::openapi::operation::{self as on, ANYBODY, KnownBy, Operations, Query, Who, Work};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::secret::SecretText;

/// Of a host, in the audit log.
const REHEARSAL: &str = "host.rehearsal";
/// The base64 of the longest, and what is around it.
const UNSEAL_BYTES_MAX: usize = REMOTE_SEAL_KEYS_BYTES_MAX / 3 * 4 + 1024;

/// Giving remote seal keys out.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/system/sites/{site}")
        .with(
            on::post(
                "/get-remote-sealkey",
                op("site.remote-sealkey", Right::SystemAdmin, get).gives::<RemoteGiven>(),
                "Seal keys for a site's hosts, for an operator to carry there",
            )
            .takes::<RemoteAsked>()
            .may(&[409]),
        )
        .with(on::get(
            "/rehearsal",
            op("site.rehearsal", Right::SystemReader, rehearsal).gives::<Rehearsal>(),
            "Says what would come back after a power cut while the WAN is down, and why not",
        ))
}

/// Taking them at a host.
pub(super) fn site_operations() -> Operations<AtSite> {
    let carriers = Who { says: "whoever has a remote seal key for this host", known_by: KnownBy::Nothing };
    let opens = |path| {
        let work = Work::new(site_unseal, carriers, Query::Cut).action("seal.unseal");
        let opens = on::post(path, work, "Opens the host with a remote seal key");
        opens.takes::<SiteUnsealAsked>().done().may(&[403, 409])
    };
    Operations::under("/v1/state/strongbox/system")
        .with(opens("/unseal"))
        .with(opens("/unseal-remote"))
        .with(on::get(
            "/unseal-challenge",
            Work::new(challenge, ANYBODY, Query::Cut).gives::<ChallengeGiven>(),
            "A challenge, to ask for a remote seal key that works once",
        ))
        .with(on::get(
            "/rehearsal",
            Work::new(own_rehearsal, OPERATORS, Query::Cut).action(REHEARSAL).gives::<OwnRehearsal>(),
            "Says whether this host would come back after a power cut while the WAN is down, by what it knows itself",
        ))
}

/// Body of `get-remote-sealkey`; may be absent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoteAsked {
    /// What `unseal-challenge` at a host has answered: the key is for that host, for this boot and to be used once.
    challenge: Option<String>,
}

/// Remote seal keys. `sealkey` is for the whole site: each of its hosts finds its own in it.
#[derive(Serialize, JsonSchema)]
struct RemoteGiven {
    /// Base64; all that is below in one.
    sealkey: String,
    /// Base64 by host.
    hosts: BTreeMap<HostName, String>,
    /// In plain words by host, why there is none for it.
    refused: BTreeMap<HostName, String>,
}

pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    let name: SiteName = call.name("site", "site")?;
    let asked: RemoteAsked = call.body().await?;
    let challenge = asked.challenge.as_deref().map(read_challenge).transpose()?;
    let command = AskRemote { site: name.clone(), challenge, by: call.by() };
    refuse_cut_off(&call, &name, command.challenge.as_ref().map(|challenge| &challenge.host))?;
    let offers = call.change(move |rows, now| remote_sealkeys(&command, rows, now)).await?;
    let (mut given, mut refused) = (BTreeMap::<HostName, Signed>::new(), BTreeMap::new());
    let rows = call.snapshot()?;
    let (authority, (key, certificate)) = (unseal_authority(&rows)?, signer(&rows)?);
    let entropy = call.node.access.entropy();
    for (host, offer) in offers {
        match offer {
            Ok(prepared) => {
                let remote = prepared.encrypted(&authority, &*entropy)?;
                given.insert(host, signed::sign(&remote, &key, certificate.clone()));
            }
            Err(why) => drop(refused.insert(host, why)),
        }
    }
    still_in_standing(&call, &name, &mut given, &mut refused)?;
    let text = |keys: Vec<Signed>| STANDARD.encode(codec::encode(&RemoteSealKeys(keys)));
    let reply = RemoteGiven {
        sealkey: text(given.values().cloned().collect()),
        hosts: given.into_iter().map(|(host, key)| (host, text(vec![key]))).collect(),
        refused,
    };
    Ok(call.format.reply(StatusCode::OK, &reply))
}

/// What would happen after a power cut while the WAN is down.
pub(super) async fn rehearsal(call: Call) -> Result<Response, Problem> {
    let name: SiteName = call.name("site", "site")?;
    let live = call.node.fleet.live();
    Ok(call.format.reply(StatusCode::OK, &rehearse(&name, &call.snapshot()?, &live, call.now())?))
}

/// The same question to a host, about itself. Who asks is an operator, as for sealing it.
pub(super) async fn own_rehearsal(
    State(node): State<Arc<StrongboxSite>>,
    Extension(peer): Extension<Peer>,
    (method, uri): (Method, Uri),
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, query) = asked_by_operator(&node, &peer, (&method, &uri, &headers), REHEARSAL).await?;
    Ok(query.wanted.reply(StatusCode::OK, &node.seal.rehearse().await?))
}

/// Says why, where the decision would only say no.
fn refuse_cut_off(call: &Call, name: &SiteName, asked: Option<&HostId>) -> Result<(), Problem> {
    let rows = call.snapshot()?;
    let place = site(&rows, name)?.value;
    if place.standing.held == Held::Quarantined {
        return Err(Problem::forbidden(format!("{name} is quarantined")));
    }
    match asked.filter(|id| id.site == *name) {
        Some(id) if host(&rows, id)?.value.is_cut_off(&place) => {
            Err(Problem::forbidden(format!("{id} is quarantined")))
        }
        _ => Ok(()),
    }
}

/// Who was cut off since the decision gets nothing: the call that cut it off may have returned by now.
fn still_in_standing(
    call: &Call,
    name_of_site: &SiteName,
    given: &mut BTreeMap<HostName, Signed>,
    refused: &mut BTreeMap<HostName, String>,
) -> Result<(), Refusal> {
    let rows = call.snapshot()?;
    let place = site(&rows, name_of_site)?.value;
    let names: Vec<HostName> = given.keys().cloned().collect();
    for name in names {
        let id = HostId { site: name_of_site.clone(), host: name.clone() };
        if host(&rows, &id)?.value.is_cut_off(&place) {
            given.remove(&name);
            refused.insert(name, "it is quarantined".to_owned());
        }
    }
    if given.is_empty() { Err(Refusal::Denied) } else { Ok(()) }
}

fn read_challenge(text: &str) -> Result<UnsealChallenge, Problem> {
    decoded(text, UNSEAL_CHALLENGE_BYTES_MAX)
        .ok_or_else(|| Problem::bad_request("challenge must be what unseal-challenge has answered"))
}

fn decoded<T: serde::de::DeserializeOwned>(text: &str, max: usize) -> Option<T> {
    let bytes = STANDARD.decode(text.trim()).ok()?;
    codec::decode(&bytes, max).ok()
}

/// A challenge, for `get-remote-sealkey`.
#[derive(Serialize, JsonSchema)]
struct ChallengeGiven {
    /// Base64.
    challenge: String,
}

/// Anybody may ask: it says nothing that a quote does not, and all who ask get the same one.
pub(super) async fn challenge(State(node): State<Arc<StrongboxSite>>, format: Wanted) -> Result<Response, Problem> {
    let challenge = node.seal.unseal_challenge().await?;
    let challenge = STANDARD.encode(codec::encode(&challenge));
    Ok(format.reply(StatusCode::OK, &ChallengeGiven { challenge }))
}

/// Body of `unseal` and `unseal-remote` at a host. Central's seal keys and shares open no host.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SiteUnsealAsked {
    remote_sealkey: Option<SecretText>,
    sealkey: Option<SecretText>,
    shares: Option<Vec<SecretText>>,
}

impl SiteUnsealAsked {
    fn carried(&self) -> Result<RemoteSealKeys, Problem> {
        if self.sealkey.is_some() || self.shares.is_some() {
            return Err(Problem::bad_request(
                "a host is opened by a remote-sealkey, not by central's seal key or shares",
            ));
        }
        let text = self.remote_sealkey.as_ref().ok_or_else(|| Problem::bad_request("give remote-sealkey"))?;
        decoded(text.expose(), REMOTE_SEAL_KEYS_BYTES_MAX).ok_or_else(|| {
            Problem::bad_request("remote-sealkey must be what get-remote-sealkey at central has answered")
        })
    }
}

pub(super) async fn site_unseal(
    State(node): State<Arc<StrongboxSite>>,
    Extension(peer): Extension<Peer>,
    _: Wanted,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let class = class_of(&peer, &node.admin_identities);
    if !node.seal.status().sealed {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let asked = body::decode_up_to::<SiteUnsealAsked>(&headers, body, UNSEAL_BYTES_MAX).await;
    match asked.and_then(|asked| asked.carried()) {
        Ok(carried) => {
            node.seal.unseal_remote(class, carried).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Err(problem) => {
            call::note(&node.access, Realm::NODE, class.as_str(), ("seal.unseal", ""), &problem)?;
            Err(problem)
        }
    }
}
