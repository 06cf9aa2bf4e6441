//! Takes requests in and sends answers out: the frame around every route.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, Query, RawPathParams, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, get};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderValue, Version};
use mcp_api::headers::{MCP_MIN_INDEX, REQUEST_ID};
use mcp_api::problem::{Code, FieldFault};
use mcp_model::clock::Clock;
use mcp_store::Replica;
use mcp_store::seal::Seal;
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body;
use crate::call::Call;
use crate::caller::Bearer;
use crate::fault::Fault;
use crate::hosts::{AllowedHosts, host_of};
use crate::limits;
use crate::passwords::Hasher;
use crate::port::{Children, Writer};
use crate::routes::{Access, ROUTES, Route};
use crate::throttle::Throttle;

/// What the control plane is made of.
pub struct Parts {
    /// This node's state, for reading.
    pub replica: Arc<Replica>,
    /// The way to change it.
    pub writer: Arc<dyn Writer>,
    /// What is known of children of servers.
    pub children: Arc<dyn Children>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Fills a slice with bytes that nobody can guess.
    pub random: fn(&mut [u8]),
    /// Seals the values of secrets. The same on every node.
    pub seal: Seal,
    /// Makes command ids of idempotency keys that nobody can work back from: a request may hold a password. The same on
    /// every node.
    pub idempotency_key: Zeroizing<[u8; 32]>,
    /// Settings.
    pub options: Options,
}

/// Settings of the control plane.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Host names that are served.
    pub allowed_hosts: AllowedHosts,
    /// Origins whose pages may call; `*` allows every one. None is the safe value.
    pub allowed_origins: Vec<String>,
}

/// The control plane at work.
pub(crate) struct Api {
    pub(crate) replica: Arc<Replica>,
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) children: Arc<dyn Children>,
    pub(crate) clock: Arc<dyn Clock>,
    random: fn(&mut [u8]),
    pub(crate) seal: Seal,
    pub(crate) idempotency_key: Zeroizing<[u8; 32]>,
    pub(crate) hasher: Hasher,
    pub(crate) throttle: Throttle,
    pub(crate) unknown_bearers: Semaphore,
    /// One for each backup that may be under way.
    pub(crate) backups: Arc<Semaphore>,
    /// One for each request that may be under way.
    requests: Semaphore,
    /// In KiB, for larger bodies.
    bodies: Semaphore,
    hosts: AllowedHosts,
    origins: Vec<String>,
}

impl Api {
    fn new(parts: Parts) -> Api {
        Api {
            replica: parts.replica,
            writer: parts.writer,
            children: parts.children,
            clock: parts.clock,
            random: parts.random,
            seal: parts.seal,
            idempotency_key: parts.idempotency_key,
            hasher: Hasher::new(),
            throttle: Throttle::default(),
            unknown_bearers: Semaphore::new(limits::UNKNOWN_BEARERS_MAX),
            backups: Arc::new(Semaphore::new(limits::BACKUPS_MAX)),
            requests: Semaphore::new(limits::REQUESTS_MAX),
            bodies: Semaphore::new(limits::BODIES_KIB_MAX),
            hosts: parts.options.allowed_hosts,
            origins: parts.options.allowed_origins,
        }
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.random)(&mut bytes);
        bytes
    }

    fn request_id(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.random()))
    }
}

/// All of `/api/v1`, `/healthz` and `/livez`. The node merges what it serves itself beside them; a fallback is set here.
/// Connections should carry their peer's address as [`ConnectInfo`], so that failed logins are counted by address.
pub fn router(parts: Parts) -> Router {
    let api = Arc::new(Api::new(parts));
    let mut router = Router::new();
    let mut paths: BTreeMap<&str, Vec<&'static Route>> = BTreeMap::new();
    for route in ROUTES {
        paths.entry(route.path()).or_default().push(route);
    }
    for (path, routes) in paths {
        router = router.route(path, methods(&api, &routes));
    }
    router = router.route("/healthz", get(|| async { "ok\n" }));
    router = router.route("/livez", get(|| async { "ok\n" }));
    router.fallback(move |request: Request| async move {
        let fault = Fault::new(
            Code::NoSuchRoute,
            format!("there is no route {:?}", request.uri().path()),
        );
        let request_id = api.request_id();
        finish(fault.into_response(&request_id), &request_id)
    })
}

fn methods(api: &Arc<Api>, routes: &[&'static Route]) -> MethodRouter {
    let mut methods = MethodRouter::new();
    for route in routes.iter().copied() {
        let api = api.clone();
        let filter = MethodFilter::try_from(route.method().clone()).expect("routes use methods that axum knows");
        methods = methods.on(filter, move |request: Request| serve(api, route, request));
    }
    let allow = routes
        .iter()
        .map(|r| r.method().as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let api = api.clone();
    methods.fallback(move |request: Request| async move {
        let detail = format!("{} takes {allow}, not {}", request.uri().path(), request.method());
        let request_id = api.request_id();
        let fault = Fault::new(Code::MethodNotAllowed, detail).allow(allow);
        finish(fault.into_response(&request_id), &request_id)
    })
}

async fn serve(api: Arc<Api>, route: &'static Route, request: Request) -> Response {
    let request_id = api.request_id();
    let answer = Box::pin(answer(&api, route, request)).await;
    let response = match answer {
        Ok(answer) => answer.into_response(api.replica.auth_index()),
        Err(fault) => {
            tracing::debug!(
                request_id,
                code = fault.code().as_str(),
                path = route.path(),
                "request refused"
            );
            fault.into_response(&request_id)
        }
    };
    finish(response, &request_id)
}

/// Headers of every answer. Nothing here is for caches: an answer may hold a secret and depends on who asks.
fn finish(mut response: Response, request_id: &str) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

async fn answer(api: &Arc<Api>, route: &'static Route, request: Request) -> Result<Answer, Fault> {
    let (mut head, body) = request.into_parts();
    if !api.hosts.allow(host_of(&head.uri, &head.headers)) {
        // Over HTTP/2 a client may have used a connection for a host that it was not made for: this tells it to make another.
        let code = match head.version {
            Version::HTTP_2 => Code::HostMisdirected,
            _ => Code::HostNotAllowed,
        };
        return Err(
            Fault::new(code, "this host name is not served here").hint("add it to allowed_hosts of the API listener")
        );
    }
    refuse_foreign_pages(api, &head)?;
    let params = params(&mut head).await?;
    let query = query(route, &head)?;
    // A bearer of no known shape is refused before anything is read; the rest is decided after the body has arrived.
    let bearer = match route.access {
        Access::Open(_) => None,
        Access::For(..) => Some(Bearer::of(&head.headers)?),
    };
    let busy = |_| {
        Fault::new(
            Code::TooManyRequests,
            "this node has as many requests under way as it takes",
        )
        .retry_after_s(1)
    };
    let _request = api.requests.try_acquire().map_err(busy)?;
    let (body, _room) = match route.told.takes {
        Some(_) => receive(api, bearer, &head.headers, body).await?,
        None => (Bytes::new(), None),
    };
    let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let call = Call {
        api: api.clone(),
        route,
        params,
        query,
        headers: head.headers,
        body,
        peer,
    };
    match (route.access, bearer) {
        (Access::Open(run), _) => run(call).await,
        (Access::For(right, run), Some(bearer)) => {
            let caller = admit(&call, bearer).await?;
            if let Some(answer) = call.removed_before(&caller).await? {
                return Ok(answer);
            }
            run(call.authorize(caller, right).await?).await
        }
        (Access::For(..), None) => Err(Fault::not_authenticated("the request carries no bearer")),
    }
}

/// A browser says which page calls. Nothing else does.
fn refuse_foreign_pages(api: &Api, head: &Head) -> Result<(), Fault> {
    let mut given = head.headers.get_all(http::header::ORIGIN).iter();
    let allowed = |origin: &HeaderValue| {
        api.origins
            .iter()
            .any(|one| one == "*" || one.as_bytes() == origin.as_bytes())
    };
    if given.all(allowed) {
        return Ok(());
    }
    Err(Fault::new(Code::OriginNotAllowed, "pages of this origin may not call")
        .hint("add it to allowed_origins of the API listener"))
}

/// Receives a body. A larger one takes room that all of them share, for somebody who is let in before it comes (and judged again
/// after): strangers cannot make this node hold much.
async fn receive<'a>(
    api: &'a Api,
    bearer: Option<Bearer>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), Fault> {
    let announced = body::announced(headers);
    if announced.is_some_and(|bytes| bytes <= limits::SMALL_BODY_BYTES) {
        return Ok((body::receive(headers, body, limits::SMALL_BODY_BYTES).await?, None));
    }
    let Some(bearer) = bearer else {
        return Ok((body::receive(headers, body, limits::SMALL_BODY_BYTES).await?, None));
    };
    api.admit(bearer).await?;
    let bytes = announced.unwrap_or(limits::BODY_BYTES_MAX).min(limits::BODY_BYTES_MAX);
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    let full = |_| {
        Fault::new(
            Code::TooManyRequests,
            "this node holds as many large requests as it takes",
        )
        .retry_after_s(1)
    };
    let room = api.bodies.try_acquire_many(kib).map_err(full)?;
    Ok((body::receive(headers, body, limits::BODY_BYTES_MAX).await?, Some(room)))
}

/// Admits the caller on a state that is as new as the request asks for.
async fn admit(call: &Call, bearer: Bearer) -> Result<crate::caller::Caller, Fault> {
    let api = &call.api;
    let caller = api.admit(bearer).await?;
    let min_index = min_index(call)?;
    let linearizable = match call.query("consistency") {
        None => false,
        Some("linearizable") => true,
        Some(_) => {
            return Err(Fault::invalid(vec![FieldFault::new(
                "consistency",
                "the one value is linearizable",
            )]));
        }
    };
    if min_index <= api.replica.auth_index() && !linearizable {
        return Ok(caller);
    }
    if linearizable {
        api.catch_up().await?;
    }
    api.reach(min_index, limits::INDEX_WAIT).await?;
    api.admit(bearer).await
}

fn min_index(call: &Call) -> Result<u64, Fault> {
    let Some(value) = call.headers.get(MCP_MIN_INDEX) else {
        return Ok(0);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Fault::invalid(vec![FieldFault::new("Mcp-Min-Index", "it is a decimal number")]))
}

async fn params(head: &mut Head) -> Result<Vec<(String, String)>, Fault> {
    let params = RawPathParams::from_request_parts(head, &()).await;
    let params = params.map_err(|_| Fault::new(Code::NoSuchRoute, "the path is not text"))?;
    Ok(params
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

fn query(route: &Route, head: &Head) -> Result<Vec<(String, String)>, Fault> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
    let Query(query) = query.map_err(|_| Fault::new(Code::BadRequest, "the query cannot be read"))?;
    let mut faults = Vec::new();
    for (at, (key, _)) in query.iter().enumerate() {
        let keys = route.query_keys();
        if !keys.contains(&key.as_str()) {
            let why = match keys.as_slice() {
                [] => "unknown: this route takes no parameters".to_owned(),
                keys => format!("unknown: the parameters here are {}", keys.join(", ")),
            };
            faults.push(FieldFault::new(key.as_str(), why));
        } else if query[..at].iter().any(|(k, _)| k == key) {
            faults.push(FieldFault::new(key.as_str(), "given twice"));
        }
    }
    if !faults.is_empty() {
        faults.truncate(limits::FAULTS_MAX);
        return Err(Fault::invalid(faults));
    }
    Ok(query)
}
