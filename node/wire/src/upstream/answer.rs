//! What one HTTP answer holds: a JSON body or a stream of events, message by message, within bounds.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{CallLimits, Cause, UpstreamError};
use crate::message::Message;
use crate::pool::{Answer, NoData};
use crate::sse::{SseReader, TooLong};
use crate::timers::Turn;

/// The messages of one HTTP answer.
pub(super) enum Messages {
    /// One JSON body. `taken` is what has arrived, so that waiting for the rest can be given up and resumed.
    Body {
        body: Answer,
        taken: BytesMut,
        bytes_max: usize,
        turn: Turn,
    },
    /// Server-sent events.
    Events {
        body: Answer,
        reader: SseReader,
        turn: Turn,
    },
    /// What was read already.
    Known(VecDeque<Message>),
}

impl Messages {
    /// The answer is one JSON body.
    pub(super) fn body(body: Answer, bytes_max: usize) -> Messages {
        Messages::Body {
            body,
            taken: BytesMut::new(),
            bytes_max,
            turn: Turn::default(),
        }
    }

    /// The answer is a stream of events.
    pub(super) fn events(body: Answer, bytes_max: usize) -> Messages {
        Messages::Events {
            body,
            reader: SseReader::new(bytes_max),
            turn: Turn::default(),
        }
    }

    pub(super) async fn next(&mut self, limits: &CallLimits) -> Result<Message, UpstreamError> {
        if let Messages::Known(known) = self {
            return known
                .pop_front()
                .ok_or_else(|| UpstreamError::after(Cause::Closed("no response".into())));
        }
        if let Messages::Body { body, .. } | Messages::Events { body, .. } = self {
            body.begin_wait();
        }
        let bytes = self
            .next_bytes(limits.idle_ms)
            .await?
            .ok_or_else(|| UpstreamError::after(Cause::Closed("the stream ended".into())))?;
        Message::read(bytes).map_err(|refusal| UpstreamError::rubbish(&refusal))
    }

    /// Where a stream that ended can be taken up again, and how long to wait before that, in milliseconds.
    pub(super) fn resume_at(&self) -> (Option<String>, Option<u64>) {
        match self {
            Messages::Events { reader, .. } => (reader.last_id().map(str::to_owned), reader.retry_ms()),
            Messages::Body { .. } | Messages::Known(_) => (None, None),
        }
    }

    /// Waits no longer than `idle_ms` for all of it.
    async fn next_bytes(&mut self, idle_ms: u64) -> Result<Option<Bytes>, UpstreamError> {
        match self {
            Messages::Known(_) => Ok(None),
            Messages::Body {
                body,
                taken,
                bytes_max,
                turn,
            } => {
                while let Some(data) = next_data(body, idle_ms).await? {
                    if taken.len() + data.len() > *bytes_max {
                        return Err(UpstreamError::after(Cause::TooMuch(*bytes_max)));
                    }
                    let bytes = data.len();
                    // The usual answer arrives in one piece: keep it without a copy.
                    if taken.is_empty() {
                        *taken = BytesMut::from(data);
                    } else {
                        taken.extend_from_slice(&data);
                    }
                    turn.took(bytes).await;
                }
                let whole = taken.split().freeze();
                *self = Messages::Known(VecDeque::new());
                Ok(Some(whole))
            }
            Messages::Events { body, reader, turn } => loop {
                let too_much = |long: TooLong| UpstreamError::after(Cause::TooMuch(long.bytes_max));
                match reader.next_event().map_err(too_much)? {
                    // An empty event only carries an id to resume from.
                    Some(event) if event.name == "message" && !event.data.is_empty() => return Ok(Some(event.data)),
                    Some(_) => {}
                    None => match next_data(body, idle_ms).await? {
                        Some(data) => {
                            reader.push(&data);
                            turn.took(data.len()).await;
                        }
                        None => return Ok(None),
                    },
                }
            },
        }
    }
}

async fn next_data(body: &mut Answer, idle_ms: u64) -> Result<Option<Bytes>, UpstreamError> {
    body.next_data(Duration::from_millis(idle_ms)).await.map_err(|error| {
        UpstreamError::after(match error {
            NoData::Failed(error) => Cause::Closed(innermost(&error)),
            NoData::Late => Cause::Deadline(idle_ms),
        })
    })
}

/// The whole body, if it is within the limits.
pub(super) async fn collect(body: Answer, bytes_max: usize, idle_ms: u64) -> Result<Bytes, UpstreamError> {
    let mut messages = Messages::body(body, bytes_max);
    messages
        .next_bytes(idle_ms)
        .await?
        .ok_or_else(|| UpstreamError::after(Cause::Closed("no body".into())))
}

/// What is at the bottom of an error.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
