//! What clients call all the time: found by its path here, not by the router.

use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;

use super::Kes;
use super::api::{Api, KEY_DECRYPT, KEY_ENCRYPT, KEY_GENERATE};
use super::call::called;
use super::crypto::{decrypt, encrypt, generate};
use crate::peer::Peer;
use crate::routes::{Answering, Direct};

impl Direct for Kes {
    fn takes(&self, method: &Method, path: &str) -> bool {
        let is_it = |api: &Api| path.strip_prefix(api.path).is_some_and(|name| !name.is_empty());
        [&KEY_GENERATE, &KEY_ENCRYPT, &KEY_DECRYPT].into_iter().any(is_it)
            && (*method == Method::PUT || *method == Method::POST)
    }

    fn answer(&self, peer: Peer, request: Request<Body>) -> Answering {
        let (kes, path) = (self.clone(), request.uri().path());
        if path.starts_with(KEY_GENERATE.path) {
            Box::pin(called(kes, &KEY_GENERATE, generate, peer, request))
        } else if path.starts_with(KEY_ENCRYPT.path) {
            Box::pin(called(kes, &KEY_ENCRYPT, encrypt, peer, request))
        } else {
            Box::pin(called(kes, &KEY_DECRYPT, decrypt, peer, request))
        }
    }
}
