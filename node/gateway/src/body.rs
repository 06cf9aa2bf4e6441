//! Receiving a body: bounded in size, in time, and in what all bodies together may take of this node's memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use mcp_model::admission::Denial;
use mcp_model::token::TokenHash;
use mcp_wire::refusal::{INVALID_REQUEST, Refusal};
use tokio::sync::OwnedSemaphorePermit;

use crate::admit::Wanted;
use crate::dispatch::over_quota;
use crate::limits::SMALL_BODY_BYTES;
use crate::metrics::Metrics;
use crate::quotas::{Held, Use};
use crate::{Inner, respond};

/// Unit of the room that bodies take.
pub(crate) const KIB: usize = 1 << 10;

/// A body, with its place among the larger ones if it is one.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Who sends it, and where to.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) hash: TokenHash,
    pub(crate) wanted: Wanted<'a>,
}

/// Why there is none.
pub(crate) enum Refused {
    /// Its sender was not admitted, which is asked early of a larger one.
    Denied(Denial),
    /// The answer to it.
    Answer(Box<Response>),
}

/// Receives a body. Its sender is admitted before a larger one is received: strangers are read a few KiB, so that they cannot fill
/// the room that is there for larger bodies. So is who lets us wait: strangers do not get a place among the requests for long, and a
/// token no more of them than are its own. That says nothing for later: who is let in is decided once the body has arrived.
pub(crate) async fn receive(
    gateway: &Arc<Inner>,
    headers: &HeaderMap,
    mut body: Body,
    sender: Sender<'_>,
) -> Result<Received, Refused> {
    let most = gateway.limits.body_bytes_max;
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_large(gateway));
    }
    let receiving = async {
        let mut room = None;
        let mut taken = BytesMut::new();
        if let Some(length) = announced.filter(|length| *length > SMALL_BODY_BYTES) {
            room = Some(room_for(gateway, length, sender).await?);
        }
        while let Some(frame) = body.frame().await {
            let broken = |_| refused(gateway, StatusCode::BAD_REQUEST, "the body could not be read");
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            if taken.len() + data.len() > most {
                return Err(too_large(gateway));
            }
            if room.is_none() && taken.len() + data.len() > SMALL_BODY_BYTES {
                room = Some(room_for(gateway, most, sender).await?);
            }
            // The usual body arrives in one piece, which is kept without a copy.
            if taken.is_empty() && body.is_end_stream() {
                return Ok(Received { bytes: data, room });
            }
            taken.extend_from_slice(&data);
        }
        let bytes = taken.freeze();
        Ok(Received { bytes, room })
    };
    let mut receiving = pin!(receiving);
    let soon = Duration::from_millis(gateway.limits.body_soon_ms);
    match tokio::time::timeout(soon, receiving.as_mut()).await {
        Ok(received) => received,
        Err(_) => {
            let _held = waits(gateway, sender).await?;
            let rest = Duration::from_millis(gateway.limits.body_ms.saturating_sub(gateway.limits.body_soon_ms));
            tokio::time::timeout(rest, receiving).await.unwrap_or_else(|_| {
                let why = "the body did not arrive in time";
                Err(refused(gateway, StatusCode::REQUEST_TIMEOUT, why))
            })
        }
    }
}

/// A place among the requests of its token for somebody whose body is slow.
async fn waits(gateway: &Arc<Inner>, sender: Sender<'_>) -> Result<Held, Refused> {
    let permit = gateway.admission.admit(sender.hash, sender.wanted).await;
    let permit = permit.map_err(Refused::Denied)?;
    let limits = gateway.quotas.limits(&permit);
    let held = gateway.quotas.take(&permit, Use::Request, &limits);
    held.map_err(|over| Refused::Answer(Box::new(over_quota(gateway, &permit, &over, None))))
}

async fn room_for(gateway: &Inner, bytes: usize, sender: Sender<'_>) -> Result<OwnedSemaphorePermit, Refused> {
    let admitted = gateway.admission.admit(sender.hash, sender.wanted).await;
    admitted.map_err(Refused::Denied)?;
    let room = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
    gateway.body_room.clone().try_acquire_many_owned(room).map_err(|_| {
        let why = "this node holds as many large requests as it can";
        Refused::Answer(Box::new(respond::overloaded(why, gateway.limits.retry_after_s, None)))
    })
}

fn too_large(gateway: &Inner) -> Refused {
    let most = gateway.limits.body_bytes_max;
    let why = format!("the body is larger than {most} bytes");
    refused(gateway, StatusCode::PAYLOAD_TOO_LARGE, &why)
}

fn refused(gateway: &Inner, status: StatusCode, why: &str) -> Refused {
    Metrics::add(&gateway.metrics.malformed);
    let refusal = Refusal::bad(INVALID_REQUEST, why).with_status(status);
    Refused::Answer(Box::new(respond::refusal(&refusal, None)))
}
