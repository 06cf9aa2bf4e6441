//! Streams that a client holds open to learn that its lists have changed: the GET stream of a legacy session, and
//! `subscriptions/listen` of the modern era. Each lives on the replica that holds it and ends when its token does.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use mcp_model::admission::Access;
use mcp_model::ids::Id;
use mcp_store::view::{Lists, Policy};
use mcp_wire::message::META_SUBSCRIPTION_ID;
use mcp_wire::sse;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use crate::Inner;
use crate::admit::{Permit, StreamCount};
use crate::catalog::{Catalog, Listed};
use crate::dispatch::{Request, over_quota};
use crate::http_sse::Registered;
use crate::lists::{Eyes, List};
use crate::quotas::{Held, Use};
use crate::respond;
use crate::router::Room;
use crate::watches::{self, Ear, Told};

/// Which changes a stream reports.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    /// Resources that are watched.
    resource_subscriptions: Vec<String>,
}

#[derive(Deserialize, Default)]
struct ListenParams {
    #[serde(default)]
    notifications: Filter,
}

/// What keeps a stream admitted: a permit with a place among the streams, or the request that opened it.
enum Holder {
    Stream(Permit, Room),
    Request(Arc<Request>, Held),
}

impl Holder {
    fn permit(&self) -> &Permit {
        match self {
            Holder::Stream(permit, _room) => permit,
            Holder::Request(request, _held) => &request.permit,
        }
    }
}

struct Watching {
    gateway: Arc<Inner>,
    holder: Holder,
    only: Option<Id>,
    filter: Filter,
    /// `_meta` of every message of a modern subscription, as a member with a comma behind it.
    meta: String,
    /// The session that lives as long as its stream is open.
    session: Option<Id>,
    applied: watch::Receiver<u64>,
    seen: Seen,
    /// What of the watched resources is told here.
    ear: Ear,
    ready: Vec<Bytes>,
    /// What comes of what the client posts, if this is its only stream.
    inbox: Option<Inbox>,
    _count: StreamCount,
}

/// Events of a client of 2024-11-05, and its place among the streams that messages are carried to.
type Inbox = (mpsc::Receiver<Bytes>, Registered);

/// What the client was last told about, or could have listed.
struct Seen {
    policy: Arc<Policy>,
    lists: Arc<Lists>,
    digests: [u64; 3],
}

/// The GET stream of a legacy session.
pub(crate) fn legacy(gateway: Arc<Inner>, permit: Permit, only: Option<Id>, session: Id, room: Room) -> Response {
    let filter = Filter {
        tools_list_changed: true,
        prompts_list_changed: true,
        resources_list_changed: true,
        // Those are subscribed to one by one.
        resource_subscriptions: Vec::new(),
    };
    let ear = gateway.watches.ear_of_session(session);
    // The first bytes tell the client, and every proxy on the way, that the stream is open.
    let ready = vec![Bytes::from_static(sse::COMMENT)];
    let watching = Watching {
        session: Some(session),
        ready,
        ..Watching::of(gateway, Holder::Stream(permit, room), only, filter, ear)
    };
    watching.open()
}

/// The stream of a client of 2024-11-05: the same, and what comes of its messages.
pub(crate) fn http_sse(
    gateway: Arc<Inner>,
    permit: Permit,
    (session, only): (Id, Option<Id>),
    room: Room,
    first: Bytes,
    inbox: Inbox,
) -> Response {
    let filter = Filter {
        tools_list_changed: true,
        prompts_list_changed: true,
        resources_list_changed: true,
        // Those are subscribed to one by one.
        resource_subscriptions: Vec::new(),
    };
    let (holder, ear) = (Holder::Stream(permit, room), gateway.watches.ear_of_session(session));
    let watching = Watching {
        ready: vec![first],
        inbox: Some(inbox),
        ..Watching::of(gateway, holder, only, filter, ear)
    };
    watching.open()
}

/// The next event of the inbox; never one where there is none.
async fn from_inbox(inbox: &mut Option<Inbox>) -> Option<Bytes> {
    match inbox {
        Some((events, _)) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// For the fuzzer: bytes as the params of `subscriptions/listen`.
pub(crate) fn decode_filter(bytes: &[u8]) {
    let _params = serde_json::from_slice::<ListenParams>(bytes).is_ok();
}

/// `subscriptions/listen`: the acknowledgement comes first and says what is honoured.
pub(crate) async fn modern(gateway: Arc<Inner>, request: Arc<Request>) -> Response {
    let limits = gateway.quotas.limits(&request.permit);
    let held = match gateway.quotas.take(&request.permit, Use::Stream, &limits) {
        Ok(held) => held,
        Err(over) => return over_quota(&gateway, &request.permit, &over, request.call.message.id()),
    };
    let (call, only) = (&request.call, request.only);
    let params: ListenParams = call
        .message
        .params()
        .and_then(|raw| serde_json::from_str(raw).ok())
        .unwrap_or_default();
    let mut filter = params.notifications;
    let uris = std::mem::take(&mut filter.resource_subscriptions);
    let (watched, ear) = watches::listen(&gateway, &request, uris).await;
    let meta = format!(
        r#""_meta":{{"{META_SUBSCRIPTION_ID}":{}}}"#,
        call.message.id().unwrap_or("null")
    );
    let mut honoured: Vec<String> = [
        ("toolsListChanged", filter.tools_list_changed),
        ("promptsListChanged", filter.prompts_list_changed),
        ("resourcesListChanged", filter.resources_list_changed),
    ]
    .iter()
    .filter(|(_, on)| *on)
    .map(|(name, _)| format!("\"{name}\":true"))
    .collect();
    if !watched.is_empty() {
        honoured.push(format!(r#""resourceSubscriptions":{}"#, serde_json::json!(watched)));
    }
    let acknowledged = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{{meta},"notifications":{{{}}}}}}}"#,
        honoured.join(",")
    );
    let ready = vec![sse::event(acknowledged.as_bytes())];
    let holder = Holder::Request(request, held);
    let watching = Watching {
        meta,
        ready,
        ..Watching::of(gateway, holder, only, filter, ear)
    };
    watching.open()
}

impl Watching {
    /// A stream of what `holder` may see, on which nothing else is said.
    fn of(gateway: Arc<Inner>, holder: Holder, only: Option<Id>, filter: Filter, ear: Ear) -> Watching {
        Watching {
            applied: gateway.replica.auth_index_watch(),
            seen: Seen::now(&gateway, holder.permit(), only),
            _count: gateway.admission.stream_opened(),
            gateway,
            holder,
            only,
            filter,
            meta: String::new(),
            session: None,
            ear,
            ready: Vec::new(),
            inbox: None,
        }
    }

    fn open(self) -> Response {
        respond::events(stream::unfold(self, Watching::next))
    }

    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Watching)> {
        let event = loop {
            if let Some(event) = self.ready.pop() {
                break event;
            }
            let quiet = Duration::from_millis(self.gateway.limits.comment_every_ms);
            tokio::select! {
                biased;
                () = self.holder.permit().cut() => return None,
                () = self.gateway.stopping.cancelled() => return None,
                changed = self.applied.changed() => {
                    changed.ok()?;
                    self.look();
                }
                told = self.ear.told() => match told {
                    Told::Updated(uri) if self.may_read(&uri) => break sse::event(self.updated(&uri).as_bytes()),
                    Told::Said { server, message } if self.may_hear(server) => break sse::event(&message),
                    Told::Updated(_) | Told::Said { .. } => {}
                },
                event = from_inbox(&mut self.inbox) => break event?,
                () = tokio::time::sleep(quiet) => {
                    if let Some(session) = self.session {
                        self.gateway.living.touch(session, self.gateway.clock.wall_ms());
                    }
                    break Bytes::from_static(sse::COMMENT);
                }
            }
        };
        // Token and lease are looked at once more before anything is written.
        self.gateway.admission.still_or_soon(self.holder.permit()).await.ok()?;
        Some((Ok(event), self))
    }

    /// Compares what is visible now with what was visible before.
    fn look(&mut self) {
        let view = self.gateway.replica.view();
        if Arc::ptr_eq(&view.policy(), &self.seen.policy) && Arc::ptr_eq(&view.lists(), &self.seen.lists) {
            return;
        }
        let now = Seen::now(&self.gateway, self.holder.permit(), self.only);
        let wanted = [
            ("tools", self.filter.tools_list_changed),
            ("prompts", self.filter.prompts_list_changed),
            ("resources", self.filter.resources_list_changed),
        ];
        for (at, (list, wanted)) in wanted.into_iter().enumerate().rev() {
            if wanted && now.digests[at] != self.seen.digests[at] {
                self.ready.push(sse::event(self.notice(list).as_bytes()));
            }
        }
        self.seen = now;
    }

    /// Whether the client may read a resource now: what it watches may have been taken from it since.
    fn may_read(&self, uri: &str) -> bool {
        Seen::with_eyes(&self.gateway, self.holder.permit(), self.only, |eyes, catalog| {
            let found = catalog.resource(uri);
            found.is_some_and(|(listed, _)| eyes.access(List::Resources, &listed) == Access::Usable)
        })
    }

    /// Whether the client may use anything of a server now: its rights may have been taken away since it called it.
    fn may_hear(&self, server: Id) -> bool {
        let all = [List::Tools, List::Prompts, List::Resources, List::Templates];
        Seen::with_eyes(&self.gateway, self.holder.permit(), self.only, |eyes, catalog| {
            let is_usable = |list: List, listed: &Arc<Listed>| {
                listed.server.id == server && eyes.access(list, listed) == Access::Usable
            };
            all.into_iter()
                .any(|list| eyes.visible(list, catalog).any(|listed| is_usable(list, listed)))
        })
    }

    fn updated(&self, uri: &str) -> String {
        let uri = serde_json::Value::from(uri);
        let comma = if self.meta.is_empty() { "" } else { "," };
        let meta = &self.meta;
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":{uri}{comma}{meta}}}}}"#
        )
    }

    fn notice(&self, list: &str) -> String {
        let params = if self.meta.is_empty() {
            String::new()
        } else {
            format!(r#","params":{{{}}}"#, self.meta)
        };
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"{params}}}"#)
    }
}

impl Seen {
    /// What the principal sees of the catalog at this moment.
    fn with_eyes<T>(
        gateway: &Inner,
        permit: &Permit,
        only: Option<Id>,
        look: impl FnOnce(Eyes<'_>, &Arc<Catalog>) -> T,
    ) -> T {
        let view = gateway.replica.view();
        let (policy, lists) = (view.policy(), view.lists());
        // The permit's own facts may be of yesterday: rights that were added cut nobody.
        let token = view.token(&permit.hash()).unwrap_or_else(|| permit.token().clone());
        let owner = policy.user(token.owner()).unwrap_or(permit.owner()).clone();
        let project = policy.project(token.project()).unwrap_or(permit.project()).clone();
        let catalog = gateway.catalogs.get(&policy, &lists, &project, only);
        let eyes = Eyes {
            hash: permit.hash(),
            token: &token,
            owner: &owner,
        };
        look(eyes, &catalog)
    }

    fn now(gateway: &Inner, permit: &Permit, only: Option<Id>) -> Seen {
        let view = gateway.replica.view();
        let (policy, lists) = (view.policy(), view.lists());
        let digests = Seen::with_eyes(gateway, permit, only, Seen::digests);
        Seen { policy, lists, digests }
    }

    fn digests(eyes: Eyes<'_>, catalog: &Arc<Catalog>) -> [u64; 3] {
        let digest = |kinds: &[List]| {
            let mut hasher = DefaultHasher::new();
            for list in kinds {
                eyes.visible(*list, catalog)
                    .for_each(|listed| listed.json.hash(&mut hasher));
                0u8.hash(&mut hasher);
            }
            hasher.finish()
        };
        [
            digest(&[List::Tools]),
            digest(&[List::Prompts]),
            digest(&[List::Resources, List::Templates]),
        ]
    }
}
