//! An operation: the handler of one method of one path, with what its document says.
//!
//! Modules of handlers list theirs as [`Operations`]; a router is made of nothing else. What follows from the rest is not
//! said again: which statuses an operation with a body, a token or a name in its path may answer with, which parameters
//! every call takes.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::JsonSchema;

use super::schemas::{self, SchemaOf};
use crate::bite::all_to_the_end;

/// Who may call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    /// In words.
    pub(crate) says: &'static str,
    /// By what they are known.
    pub(crate) known_by: KnownBy,
}

/// Anybody.
pub(crate) const ANYBODY: Who = Who { says: "anybody", known_by: KnownBy::Nothing };

/// How a caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownBy {
    /// It is not, or by what its body proves.
    Nothing,
    /// A token.
    Token,
    /// A token, or a client certificate that the node's configuration lists.
    TokenOrCertificate,
    /// User name and password in the header `Authorization`.
    Password,
    /// A client certificate.
    Certificate,
}

/// What parameters of all operations one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// None.
    None,
    /// What cuts the answer.
    Cut,
    /// That, and what only tries a change.
    Tried,
    /// The same; the answer to what is only tried is the usual one.
    Told,
}

/// A parameter of an operation's own.
pub(crate) type Own = (&'static str, &'static str);

/// A handler, with what is known of it before it has a path.
pub(crate) struct Work<S> {
    route: Box<dyn FnOnce(MethodFilter) -> MethodRouter<S>>,
    told: Told,
}

impl<S: Clone + Send + Sync + 'static> Work<S> {
    pub(crate) fn new<H: Handler<T, S>, T: 'static>(handler: H, who: Who, query: Query) -> Self {
        Self { route: Box::new(move |filter| on(filter, handler)), told: Told::new(who, query) }
    }

    /// Names it in the audit log.
    pub(crate) fn action(mut self, action: &'static str) -> Self {
        self.told.action = Some(action);
        self
    }

    /// Parameters of its own.
    pub(crate) fn own(mut self, own: &'static [Own]) -> Self {
        self.told.own.extend_from_slice(own);
        self
    }

    /// Answers 200 with a `T`.
    pub(crate) fn gives<T: JsonSchema>(mut self) -> Self {
        self.told.replies.insert(200, Some(schemas::of::<T>()));
        self
    }

    /// Or, to some, with JSON line by line.
    pub(crate) fn lines(mut self) -> Self {
        self.told.lines = true;
        self
    }
}

/// What a document says of an operation.
#[derive(Clone)]
pub(crate) struct Told {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) summary: &'static str,
    pub(super) who: Who,
    pub(super) query: Query,
    pub(super) action: Option<&'static str>,
    pub(super) own: Vec<Own>,
    pub(super) headers: Vec<Own>,
    pub(super) request: Option<SchemaOf>,
    /// By status; `None`: without a body.
    pub(super) replies: BTreeMap<u16, Option<SchemaOf>>,
    pub(super) refusals: BTreeSet<u16>,
    pub(super) never: &'static [u16],
    pub(super) tagged: bool,
    pub(super) conditional: bool,
    pub(super) bites: bool,
    pub(super) located: bool,
    pub(super) media: Vec<&'static str>,
    pub(super) lines: bool,
}

impl Told {
    fn new(who: Who, query: Query) -> Self {
        Self {
            method: "",
            path: String::new(),
            summary: "",
            who,
            query,
            action: None,
            own: Vec::new(),
            headers: Vec::new(),
            request: None,
            replies: BTreeMap::new(),
            refusals: BTreeSet::new(),
            never: &[],
            tagged: false,
            conditional: false,
            bites: false,
            located: false,
            media: Vec::new(),
            lines: false,
        }
    }

    /// Whether it only reads.
    pub(super) fn reads(&self) -> bool {
        self.method == "get"
    }
}

/// An operation.
pub(crate) struct Operation<S> {
    route: MethodRouter<S>,
    told: Told,
}

fn operation<S>(
    (filter, method): (MethodFilter, &'static str),
    path: &str,
    work: Work<S>,
    summary: &'static str,
) -> Operation<S> {
    let Work { route, told } = work;
    Operation { route: route(filter), told: Told { method, path: path.to_owned(), summary, ..told } }
}

macro_rules! methods {
    ($($name:ident $filter:ident),*) => {$(
        /// An operation of this method. Its path is what is added to that of its [`Operations`].
        pub(crate) fn $name<S>(path: &str, work: Work<S>, summary: &'static str) -> Operation<S> {
            operation((MethodFilter::$filter, stringify!($name)), path, work, summary)
        }
    )*};
}

methods!(get GET, post POST, put PUT, patch PATCH, delete DELETE);

impl<S> Operation<S> {
    /// Takes a `T`.
    pub(crate) fn takes<T: JsonSchema>(mut self) -> Self {
        self.told.request = Some(schemas::of::<T>());
        self
    }

    /// Answers with a `T`.
    pub(crate) fn gives<T: JsonSchema>(mut self, status: StatusCode) -> Self {
        self.told.replies.insert(status.as_u16(), Some(schemas::of::<T>()));
        self
    }

    /// Answers without a body.
    pub(crate) fn ends(mut self, status: StatusCode) -> Self {
        self.told.replies.insert(status.as_u16(), None);
        self
    }

    /// Answers 204.
    pub(crate) fn done(self) -> Self {
        self.ends(StatusCode::NO_CONTENT)
    }

    /// Refuses with these, too, beside what follows from the rest.
    pub(crate) fn may(mut self, refuse: &[u16]) -> Self {
        self.told.refusals.extend(refuse);
        self
    }

    /// Refuses with none of these, though they would follow from the rest.
    pub(crate) fn never(mut self, refuse: &'static [u16]) -> Self {
        self.told.never = refuse;
        self
    }

    /// Its answers bear the version of the thing.
    pub(crate) fn tagged(mut self) -> Self {
        self.told.tagged = true;
        self
    }

    /// It is done only if the thing is as the caller expects.
    pub(crate) fn conditional(mut self) -> Self {
        self.told.conditional = true;
        self
    }

    /// It holds at every connected host before it is answered, and goes on to that when the client goes away.
    pub(crate) fn bites(mut self) -> Self {
        self.told.bites = true;
        self
    }

    /// Its answer says where the thing is.
    pub(crate) fn located(mut self) -> Self {
        self.told.located = true;
        self
    }

    /// Takes headers of its own.
    pub(crate) fn headers(mut self, headers: &'static [Own]) -> Self {
        self.told.headers.extend_from_slice(headers);
        self
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.told.path
    }

    /// It is never done where this is said of it, as `says` says.
    pub(crate) fn refused(mut self, says: &'static str) -> Self {
        (self.told.request, self.told.bites, self.told.who.says) = (None, false, says);
        self.told.replies.clear();
        self
    }

    /// Answers in this media type, or in one more.
    pub(crate) fn media(mut self, media: &'static str) -> Self {
        self.told.media.push(media);
        self
    }
}

/// Operations with one beginning of their paths.
pub(crate) struct Operations<S> {
    base: &'static str,
    all: Vec<Operation<S>>,
}

impl<S: Clone + Send + Sync + 'static> Operations<S> {
    /// None yet; what is added lies under `base`.
    pub(crate) fn under(base: &'static str) -> Self {
        Self { base, all: Vec::new() }
    }

    /// One more.
    pub(crate) fn with(mut self, mut operation: Operation<S>) -> Self {
        operation.told.path.insert_str(0, self.base);
        self.all.push(operation);
        self
    }

    /// Something else is said of each.
    pub(crate) fn map(self, other: impl Fn(Operation<S>) -> Operation<S>) -> Self {
        Self { all: self.all.into_iter().map(other).collect(), ..self }
    }

    /// And those of another place.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.all.extend(others.all);
        self
    }

    /// What is said of them.
    pub(crate) fn told(self) -> Vec<Told> {
        self.all.into_iter().map(|operation| operation.told).collect()
    }

    /// The routes to them.
    pub(crate) fn router(self) -> Router<S> {
        self.router_of(|methods| methods)
    }

    /// The same with something done to what each path has.
    pub(crate) fn router_of(self, finish: impl Fn(MethodRouter<S>) -> MethodRouter<S>) -> Router<S> {
        let mut paths: Vec<(String, MethodRouter<S>)> = Vec::new();
        for Operation { route, told } in self.all {
            let route = if told.bites { route.route_layer(from_fn(all_to_the_end)) } else { route };
            match paths.iter_mut().find(|(path, _)| *path == told.path) {
                Some((_, methods)) => *methods = std::mem::take(methods).merge(route),
                None => paths.push((told.path, route)),
            }
        }
        paths.into_iter().fold(Router::new(), |router, (path, methods)| router.route(&path, finish(methods)))
    }
}
