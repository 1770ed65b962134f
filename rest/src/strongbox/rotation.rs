//! Replacing the authorities and certificates of a site's hosts. The answer says that it has begun; how far each host
//! has come is in the site's state.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_actors::rows::Refusal;
use holdfast_actors::site_registry::authorities::FreshKey;
use holdfast_actors::site_registry::certificates::{Rotate, Rotation, rotate};
use holdfast_protocol::ids::SiteName;
use holdfast_protocol::wire::CertificateUse;
use schemars::JsonSchema;
use serde::Deserialize;

use super::AtCentral;
use super::call::{Call, Right, op};
use super::control::SiteChange;
use crate::bite::Pending;
use crate::openapi::operation::{self as on, Operations};
use crate::problem::Problem;

/// Of which site.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SiteNamed {
    #[schemars(with = "SiteName")]
    site: String,
}

/// What can be replaced.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/strongbox/system")
        .with(
            on::post(
                "/update-api-ca-site",
                op("site.update-api-ca", Right::SystemAdmin, update_api_ca),
                "Replaces the authority over a site's REST certificates",
            )
            .takes::<SiteNamed>()
            .done()
            .bites()
            .may(&[404, 409]),
        )
        .with(
            on::post(
                "/update-api-cert-site",
                op("site.update-api-cert", Right::SystemAdmin, update_api_cert),
                "Replaces the REST certificates of a site's hosts",
            )
            .takes::<SiteNamed>()
            .done()
            .bites()
            .may(&[404]),
        )
        .with(
            on::post(
                "/update-dist-ca-site",
                op("site.update-dist-ca", Right::SystemAdmin, update_dist_ca),
                "Replaces the authority over a site's QUIC certificates",
            )
            .takes::<SiteNamed>()
            .done()
            .bites()
            .may(&[404, 409]),
        )
        .with(
            on::post(
                "/update-dist-cert-site",
                op("site.update-dist-cert", Right::SystemAdmin, update_dist_cert),
                "Replaces the QUIC certificates of a site's hosts",
            )
            .takes::<SiteNamed>()
            .done()
            .bites()
            .may(&[404]),
        )
}

pub(super) async fn update_api_ca(call: Call) -> Result<Response, Problem> {
    authority(call, CertificateUse::Api).await
}

pub(super) async fn update_dist_ca(call: Call) -> Result<Response, Problem> {
    authority(call, CertificateUse::Dist).await
}

pub(super) async fn update_api_cert(call: Call) -> Result<Response, Problem> {
    replace(call, CertificateUse::Api, Rotation::Certificates).await
}

pub(super) async fn update_dist_cert(call: Call) -> Result<Response, Problem> {
    replace(call, CertificateUse::Dist, Rotation::Certificates).await
}

async fn authority(call: Call, which: CertificateUse) -> Result<Response, Problem> {
    let fresh = FreshKey::draw(&*call.node.access.entropy());
    replace(call, which, Rotation::Authority(fresh)).await
}

async fn replace(call: Call, which: CertificateUse, rotation: Rotation) -> Result<Response, Problem> {
    let SiteNamed { site } = call.body().await?;
    call.about(&site);
    let site: SiteName = site.parse().map_err(|_| Refusal::NotFound("site"))?;
    let command = Rotate { site: site.clone(), which, rotation, by: call.by() };
    let left = call.change(move |rows, now| rotate(&command, rows, now)).await?;
    call.node.fleet.site_changed(&site, SiteChange::Certificates);
    Ok(Pending(left).told_in(StatusCode::NO_CONTENT.into_response()))
}
