//! The routes of a router, read from what it prints: so that a test over all of them knows of a new one by itself.

use std::collections::{BTreeMap, BTreeSet};

/// The methods of each path, as the router has them.
///
/// # Panics
/// The router prints itself in another way than it did.
pub fn routes(printed: &str) -> BTreeMap<String, BTreeSet<String>> {
    // What follows are the routers' fallbacks.
    let printed = printed.split("fallback_router").next().unwrap_or_default();
    let (methods, paths) = printed.split_once("Node { paths: {").expect("a router prints its paths");
    let methods: BTreeMap<u32, BTreeSet<String>> = numbered(methods).map(|(id, text)| (id, allowed(text))).collect();
    let known = numbered(paths).map(|(id, text)| {
        let path = text.split('"').nth(1).expect("a path is printed in quotes");
        (path.to_owned(), methods[&id].clone())
    });
    let known: BTreeMap<_, _> = known.collect();
    assert!(known.len() == methods.len() && known.values().all(|methods| !methods.is_empty()), "{printed}");
    known
}

/// What is printed behind each number of a route.
fn numbered(printed: &str) -> impl Iterator<Item = (u32, &str)> {
    printed.split("RouteId(").skip(1).filter_map(|text| {
        let (id, text) = text.split_once("): ")?;
        Some((id.parse().ok()?, text))
    })
}

fn allowed(printed: &str) -> BTreeSet<String> {
    let list = printed.split("allow_header: Bytes(b\"").nth(1).and_then(|text| text.split('"').next());
    list.unwrap_or_default().split(',').filter(|method| !method.is_empty()).map(str::to_owned).collect()
}
