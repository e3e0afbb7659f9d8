//! The route table, and the document that goes with it.
//!
//! A route is registered together with its description or not at all. What is not here answers 404 with a
//! problem document; a known path with another method answers 405 with `Allow`.

use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use axum::http::{StatusCode, Uri};
use axum::middleware;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::body::Intake;
use super::edge::{self, Edge};
use super::openapi::{self, Document};
use super::problem::Problem;
use super::server::Limits;
use super::{
    backup, batch, buckets, certificates, cluster, conflicts, guest_logs, handoff, keys, list,
    node, owners, plain, recover, resolvers,
};

/// Which part of the API a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// All of it.
    Whole,
    /// Keys, buckets, resolvers and health: the client listener of a node with an admin listener.
    Clients,
    /// Cluster, operation and health: the admin listener.
    Admin,
}

/// What a router needs.
#[derive(Clone)]
pub struct Options {
    /// The node.
    pub api: Arc<dyn Api>,
    /// Which part of the API.
    pub surface: Surface,
    /// Whether `POST /v1/cluster/cut` exists.
    pub allow_cuts: bool,
    /// What bodies may take.
    pub limits: Limits,
}

/// The routes, ready to be served.
pub fn router(options: &Options) -> Router {
    let (router, document) = table(options.surface, options.allow_cuts).split_for_parts();
    let document = openapi::finish(document);
    let text =
        serde_json::to_vec(&document).expect("the document has string keys and no failing parts");
    let edge = Edge {
        api: Arc::clone(&options.api),
        intake: Intake::new(&options.limits),
    };
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(Extension(Document(text.into())))
        .layer(middleware::from_fn_with_state(edge, edge::enter))
}

/// The routes of a surface with their descriptions.
pub(super) fn table(surface: Surface, allow_cuts: bool) -> OpenApiRouter {
    let mut table = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(node::live))
        .routes(routes!(node::ready))
        .routes(routes!(openapi::openapi));
    if surface != Surface::Admin {
        table = table.merge(clients());
    }
    if surface != Surface::Clients {
        table = table.merge(admin());
        if allow_cuts {
            table = table.routes(routes!(cluster::cut));
        }
    }
    table
}

fn clients() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(keys::get, keys::head, keys::put, keys::delete))
        .routes(routes!(list::list))
        .routes(routes!(batch::batch))
        .routes(routes!(conflicts::conflicts))
        .routes(routes!(plain::post))
        .routes(routes!(plain::get))
        .routes(routes!(buckets::list))
        .routes(routes!(buckets::get, buckets::put, buckets::delete))
        .routes(routes!(resolvers::list))
        .routes(routes!(resolvers::get, resolvers::upload))
        .routes(routes!(resolvers::version, resolvers::delete))
        .routes(routes!(resolvers::wasm))
        .routes(routes!(resolvers::try_resolver))
        .routes(routes!(certificates::check))
        .routes(routes!(certificates::progress))
        .routes(routes!(guest_logs::logs))
        .routes(routes!(node::wit))
}

fn admin() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(cluster::cluster))
        .routes(routes!(cluster::ring))
        .routes(routes!(cluster::anti_entropy, cluster::start_anti_entropy))
        .routes(routes!(cluster::registry))
        .routes(routes!(owners::join))
        .routes(routes!(owners::leave))
        .routes(routes!(owners::remove))
        .routes(routes!(owners::replace))
        .routes(routes!(recover::recover))
        .routes(routes!(handoff::handoff, handoff::sync))
        .routes(routes!(backup::backup))
        .routes(routes!(node::trace, node::set_trace))
        .routes(routes!(node::log, node::set_log))
        .routes(routes!(node::metrics))
        .routes(routes!(node::version))
}

async fn no_route(uri: Uri) -> Problem {
    let empty_key = uri.path().ends_with("/keys/") || uri.path() == "/key/";
    if empty_key {
        return Problem::bad("bad_key", "the key is empty: it has 1 to 1024 bytes");
    }
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_route",
        "there is no such route; GET /openapi.json lists them",
    )
}

async fn no_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_method",
        "this route does not take that method; the header Allow lists those it takes",
    )
}
