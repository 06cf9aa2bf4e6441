//! From an admitted message to its answer. Every handler takes the permit: there is no way here around admission.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use mcp_model::admission::Access;
use mcp_model::ids::Id;
use mcp_wire::can::ClientCan;
use mcp_wire::headers::SESSION_ID;
use mcp_wire::message::Kind;
use mcp_wire::refusal::{INTERNAL_ERROR, INVALID_PARAMS, NOT_ALLOWED, RESOURCE_NOT_FOUND, Refusal, result_body};
use mcp_wire::version::{Era, Revision};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::Inner;
use crate::admit::Permit;
use crate::audit::About;
use crate::calls::{self, Target};
use crate::catalog::{Catalog, Listed};
use crate::guard::Place;
use crate::lists::{Eyes, List, SERVER_INFO, modern_members};
use crate::metrics::Metrics;
use crate::protocol::Call;
use crate::quotas::{Held, OverQuota};
use crate::{notes, relay, respond, stateful, streams, watches};

/// Of an unknown name, what a refusal repeats. Bytes.
const UNKNOWN_BYTES_MAX: usize = 256;

/// One request, admitted and read.
pub(crate) struct Request {
    pub(crate) permit: Permit,
    pub(crate) call: Call,
    /// The one server that the path names.
    pub(crate) only: Option<Id>,
    /// Whether another node admitted it and has it carried out here. It goes no further.
    pub(crate) forwarded: bool,
    /// Its place among the requests of this node, and that of its body if it is a large one.
    pub(crate) _rooms: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
    /// And among those of its token and project.
    pub(crate) _held: Held,
    /// And with its upstream, once it goes to one.
    pub(crate) place: OnceLock<Place>,
}

/// Answers a message.
pub(crate) async fn dispatch(gateway: Arc<Inner>, request: Arc<Request>, headers: &HeaderMap) -> Response {
    gateway.uses.note(request.permit.token().id(), request.permit.at_ms());
    let Some(method) = request.call.message.method() else {
        // The answer of a legacy client to what a server asked.
        return relay::reply(&gateway, &request).await;
    };
    if request.call.message.kind() == Kind::Notification {
        if notes::is_roots_change(&request.call.message) {
            notes::roots_changed(&gateway, &request).await;
        } else {
            relay::notification(&gateway, &request).await;
        }
        return respond::empty(StatusCode::ACCEPTED);
    }
    let modern = request.call.era() == Era::Modern;
    match (method, modern) {
        ("tools/call", _) => call_tool(gateway, request, headers).await,
        ("tools/list" | "prompts/list" | "resources/list" | "resources/templates/list", _) => {
            list(&gateway, &request, method)
        }
        ("prompts/get", _) => get_prompt(gateway, request).await,
        ("resources/read", _) => read_resource(gateway, request).await,
        ("completion/complete", _) => complete(gateway, request).await,
        ("initialize", false) => initialize(&gateway, &request),
        ("server/discover", true) => discover(&gateway, &request),
        ("resources/subscribe", false) => match watched_elsewhere(&gateway, &request).await {
            Some(response) => response,
            None => watches::subscribe(&gateway, &request).await,
        },
        ("resources/unsubscribe", false) => watches::unsubscribe(&gateway, &request).await,
        ("subscriptions/listen", true) => streams::modern(gateway, request).await,
        ("ping", false) => result(&request, "{}"),
        ("logging/setLevel", false) => match notes::set_level(&gateway, &request).await {
            Ok(()) => result(&request, "{}"),
            Err(refusal) => refuse(&request, &refusal),
        },
        (_, _) => refuse(&request, &request.call.unknown_method()),
    }
}

/// The answer to a subscription at a server whose child of this session is not here.
async fn watched_elsewhere(gateway: &Arc<Inner>, request: &Arc<Request>) -> Option<Response> {
    let (listed, _) = request.catalog(gateway).resource(request.call.message.uri()?)?;
    // Whether it may be watched is decided where it is.
    stateful::elsewhere(gateway, request, &listed.server).await
}

fn result(request: &Request, raw: &str) -> Response {
    respond::json(
        StatusCode::OK,
        result_body(request.call.message.id().unwrap_or("null"), raw),
    )
}

pub(crate) fn refuse(request: &Request, refusal: &Refusal) -> Response {
    respond::refusal(refusal, request.call.message.id())
}

impl Request {
    pub(crate) fn catalog(&self, gateway: &Inner) -> Arc<Catalog> {
        let lists = gateway.replica.view().lists();
        gateway
            .catalogs
            .get(self.permit.policy(), &lists, self.permit.project(), self.only)
    }

    /// For the audit.
    fn about<'a>(&'a self, listed: Option<&'a Listed>) -> About<'a> {
        About {
            session: self.call.session.as_ref().map(|session| session.uuid),
            request_id: self.call.message.id(),
            method: self.call.message.method(),
            server: listed.map(|listed| listed.server.name.as_str()),
            tool: listed.map(|listed| &*listed.own),
        }
    }

    fn eyes(&self) -> Eyes<'_> {
        Eyes {
            hash: self.permit.hash(),
            token: self.permit.token(),
            owner: self.permit.owner(),
        }
    }
}

fn initialize(gateway: &Inner, request: &Request) -> Response {
    let capabilities = request.call.message.capabilities();
    let can = capabilities.map_or(ClientCan::NOTHING, ClientCan::read);
    let permit = &request.permit;
    let revision = request.call.revision;
    let place = match gateway.living.place(&gateway.quotas, permit) {
        Ok(place) => place,
        Err(over) => return over_quota(gateway, permit, &over, request.call.message.id()),
    };
    let issued = gateway.sessions.issue(
        permit.hash(),
        permit.project().id,
        revision,
        can,
        gateway.clock.wall_ms(),
    );
    let Some((session, id)) = issued else {
        return refuse(
            request,
            &Refusal::inside(INTERNAL_ERROR, "no random bytes for a session id"),
        );
    };
    let idle_ms = gateway.quotas.limits(permit).session_idle_ms.unwrap_or(u64::MAX);
    gateway.living.begin(session.uuid, place, permit.at_ms(), idle_ms);
    let mut answer = json!({
        "protocolVersion": revision.as_str(),
        "capabilities": our_capabilities(gateway, request),
        "serverInfo": serde_json::from_str::<Value>(SERVER_INFO).unwrap_or_default(),
    });
    if let Some(instructions) = &permit.project().spec.instructions {
        answer["instructions"] = Value::from(instructions.as_str());
    }
    let mut response = result(request, &answer.to_string());
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(SESSION_ID, id);
    }
    response
}

fn discover(gateway: &Inner, request: &Request) -> Response {
    let supported: Vec<&str> = Revision::ALL.iter().map(|revision| revision.as_str()).collect();
    let mut answer = json!({"supportedVersions": supported, "capabilities": our_capabilities(gateway, request)});
    if let Some(instructions) = &request.permit.project().spec.instructions {
        answer["instructions"] = Value::from(instructions.as_str());
    }
    let mut answer = answer.to_string();
    answer.pop();
    answer.push_str(&modern_members(
        gateway
            .rendered
            .ttl_ms(&request.catalog(gateway), request.permit.at_ms()),
    ));
    answer.push('}');
    result(request, &answer)
}

/// What we can do, as far as this principal can see it. Nobody waits for an upstream here.
fn our_capabilities(gateway: &Inner, request: &Request) -> Value {
    let catalog = request.catalog(gateway);
    let eyes = request.eyes();
    let sees = |list| eyes.visible(list, &catalog).next().is_some();
    let mut capabilities = json!({"tools": {"listChanged": true}});
    if sees(List::Prompts) {
        capabilities["prompts"] = json!({"listChanged": true});
    }
    if sees(List::Resources) || sees(List::Templates) {
        capabilities["resources"] = json!({"listChanged": true});
        if catalog.subscribes {
            capabilities["resources"]["subscribe"] = Value::from(true);
        }
    }
    if catalog.completes && capabilities.as_object().is_some_and(|all| all.len() > 1) {
        capabilities["completions"] = json!({});
    }
    if request.call.era() == Era::Legacy {
        capabilities["logging"] = json!({});
    }
    capabilities
}

fn list(gateway: &Inner, request: &Request, method: &str) -> Response {
    let Some(list) = List::of_method(method) else {
        return refuse(request, &request.call.unknown_method());
    };
    if request.call.message.cursor().is_some() {
        return refuse(
            request,
            &Refusal::inside(INVALID_PARAMS, "Invalid cursor: these lists have one page"),
        );
    }
    Metrics::add(&gateway.metrics.lists);
    let catalog = request.catalog(gateway);
    let era = request.call.era();
    let (rendered, is_new) = gateway.rendered.result(list, era, request.eyes(), &catalog);
    if catalog.serves_old && is_new {
        gateway.audit.note(&request.permit, request.about(None), "stale");
    }
    let more = match era {
        Era::Legacy => String::new(),
        Era::Modern => modern_members(gateway.rendered.ttl_ms(&catalog, request.permit.at_ms())),
    };
    respond::json(
        StatusCode::OK,
        wrapped(request.call.message.id().unwrap_or("null"), &rendered, &more),
    )
}

fn wrapped(id: &str, result: &[u8], more: &str) -> Bytes {
    let mut body = Vec::with_capacity(id.len() + result.len() + more.len() + 40);
    for part in [
        br#"{"jsonrpc":"2.0","id":"#,
        id.as_bytes(),
        br#","result":"#,
        result,
        more.as_bytes(),
        b"}}",
    ] {
        body.extend_from_slice(part);
    }
    Bytes::from(body)
}

/// A name that nobody knows, as far as it is worth saying: it came from the client, and may be as long as a body.
fn shortened(name: &str) -> Cow<'_, str> {
    match name.len() > UNKNOWN_BYTES_MAX {
        true => format!("{}...", &name[..name.floor_char_boundary(UNKNOWN_BYTES_MAX)]).into(),
        false => name.into(),
    }
}

/// The refusal of a resource that nobody knows.
pub(crate) fn not_found(code: i32, uri: &str) -> Refusal {
    let uri = shortened(uri);
    Refusal::inside(code, format!("Resource not found: {uri}")).with_data(json!({ "uri": uri }))
}

async fn call_tool(gateway: Arc<Inner>, request: Arc<Request>, headers: &HeaderMap) -> Response {
    let Some(name) = request.call.message.name() else {
        return refuse(&request, &Refusal::inside(INVALID_PARAMS, "params.name is missing"));
    };
    let listed = request.catalog(&gateway).tools.get(name).cloned();
    let unknown = || Refusal::inside(INVALID_PARAMS, format!("Unknown tool: {}", shortened(name)));
    let listed = match permitted(&gateway, &request, List::Tools, listed, unknown) {
        Ok(listed) => listed,
        Err(refusal) => return refuse(&request, &refusal),
    };
    // Who forwarded it has looked at the headers.
    if request.call.era() == Era::Modern
        && !request.forwarded
        && let Err(refusal) = listed.mirrored.check(request.call.message.arguments(), headers)
    {
        Metrics::add(&gateway.metrics.malformed);
        return refuse(&request, &refusal);
    }
    calls::run(gateway, request, Target { listed, uri: None }).await
}

async fn get_prompt(gateway: Arc<Inner>, request: Arc<Request>) -> Response {
    let Some(name) = request.call.message.name() else {
        return refuse(&request, &Refusal::inside(INVALID_PARAMS, "params.name is missing"));
    };
    let listed = request.catalog(&gateway).prompts.get(name).cloned();
    let unknown = || Refusal::inside(INVALID_PARAMS, format!("Unknown prompt: {}", shortened(name)));
    match permitted(&gateway, &request, List::Prompts, listed, unknown) {
        Ok(listed) => calls::run(gateway, request, Target { listed, uri: None }).await,
        Err(refusal) => refuse(&request, &refusal),
    }
}

async fn read_resource(gateway: Arc<Inner>, request: Arc<Request>) -> Response {
    let Some(uri) = request.call.message.uri() else {
        return refuse(&request, &Refusal::inside(INVALID_PARAMS, "params.uri is missing"));
    };
    let code = match request.call.era() {
        Era::Legacy => RESOURCE_NOT_FOUND,
        Era::Modern => INVALID_PARAMS,
    };
    let unknown = || not_found(code, uri);
    let found = request.catalog(&gateway).resource(uri);
    let (listed, own_uri) = found.map_or((None, None), |(listed, uri)| (Some(listed), Some(uri)));
    match permitted(&gateway, &request, List::Resources, listed, unknown) {
        Ok(listed) => calls::run(gateway, request, Target { listed, uri: own_uri }).await,
        Err(refusal) => refuse(&request, &refusal),
    }
}

/// Completes an argument of a prompt or of a resource template, at the server whose it is.
async fn complete(gateway: Arc<Inner>, request: Arc<Request>) -> Response {
    let catalog = request.catalog(&gateway);
    let (list, listed, uri) = match (request.call.message.name(), request.call.message.uri()) {
        (Some(name), None) => (List::Prompts, catalog.prompts.get(name).cloned(), None),
        (None, Some(uri)) => match catalog.templates.get(uri).cloned() {
            Some(template) => (List::Templates, Some(template.clone()), Some(template.own.to_string())),
            None => {
                let (listed, uri) = catalog.resource(uri).unzip();
                (List::Resources, listed, uri)
            }
        },
        (_, _) => (List::Prompts, None, None),
    };
    let unknown = || Refusal::inside(INVALID_PARAMS, "params.ref names nothing that can be completed");
    match permitted(&gateway, &request, list, listed, unknown) {
        Ok(listed) => calls::run(gateway, request, Target { listed, uri }).await,
        Err(refusal) => refuse(&request, &refusal),
    }
}

/// The entry, if the principal may use it. What does not exist and what may not be seen are refused alike; what may be seen
/// and not used is refused with the right that is missing.
pub(crate) fn permitted(
    gateway: &Inner,
    request: &Request,
    list: List,
    listed: Option<Arc<Listed>>,
    unknown: impl Fn() -> Refusal,
) -> Result<Arc<Listed>, Refusal> {
    let listed = listed.ok_or_else(&unknown)?;
    let missing = match request.eyes().access(list, &listed) {
        Access::Usable if listed.held => return Err(held(gateway, request, &listed)),
        Access::Usable => return Ok(listed),
        Access::Hidden => None,
        Access::Visible => Some(match list {
            List::Tools => format!("role:run,resource:tools,name:{}/{}", listed.server.name, listed.own),
            List::Prompts => format!("role:run,resource:prompts,name:{}/{}", listed.server.name, listed.own),
            List::Resources | List::Templates => format!("role:run,resource:servers,name:{}", listed.server.name),
        }),
    };
    Metrics::add(&gateway.metrics.calls_forbidden);
    gateway.audit.deny(
        &request.permit,
        request.about(Some(&listed)),
        if missing.is_some() { "missing_right" } else { "hidden" },
    );
    Err(match missing {
        None => unknown(),
        Some(right) => {
            let message = format!(
                "the token may see \"{}\" and not use it: it lacks {right}",
                listed.shown
            );
            Refusal::inside(NOT_ALLOWED, message).with_data(json!({ "missing": right }))
        }
    })
}

/// The answer to what is more than a quota allows.
pub(crate) fn over_quota(gateway: &Inner, permit: &Permit, over: &OverQuota, id: Option<&str>) -> Response {
    Metrics::add(&gateway.metrics.over_quota);
    if over.is_news {
        gateway.audit.deny(permit, About::default(), over.what);
    }
    respond::over_quota(over, id)
}

/// The refusal of a tool that has changed since somebody approved it.
fn held(gateway: &Inner, request: &Request, listed: &Listed) -> Refusal {
    Metrics::add(&gateway.metrics.calls_forbidden);
    gateway
        .audit
        .deny(&request.permit, request.about(Some(listed)), "tool_held");
    let tool = format!("{}/{}", listed.server.name, listed.own);
    let message = format!(
        "\"{}\" is held back: its description or schema is not the one that was approved. An administrator can see what changed \
         with \"mcpctl describe tool {tool}\" and let it in with \"mcpctl approve tool {tool}\"",
        listed.shown
    );
    Refusal::inside(NOT_ALLOWED, message).with_data(json!({ "held": tool }))
}
