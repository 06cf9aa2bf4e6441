//! What this package decodes, each as a function of bytes that anybody may have sent: none may panic, and what is passed on must be
//! what was read. `tests/fuzz` runs them, under libFuzzer and in `cargo test`.

use std::borrow::Cow;
use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::can::ClientCan;
use crate::fields::read_fields;
use crate::level::Level;
use crate::lines::LineReader;
use crate::message::{Kind, Message};
use crate::mirrored::MirroredParams;
use crate::scan::{self, ScanFault};
use crate::splice::{Backward, Forward, Supply};
use crate::sse::{Event, SseReader, TooLong, event};
use crate::version::{Era, Revision, era_of};
use crate::{headers, hidden, rounds, upstream};

/// A decoder with its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 9] = [
    ("json", json),
    ("message", message),
    ("splice", splice),
    ("headers", modern_headers),
    ("mirrored", mirrored),
    ("sse", sse),
    ("lines", lines),
    ("lists", lists),
    ("hidden", hidden_values),
];

const SUPPLIES: [Supply; 4] = [
    Supply::Nothing,
    Supply::Legacy,
    Supply::ResultType,
    Supply::ResultTypeAndHints,
];

/// What is JSON here is JSON for the general parser, and the other way round.
fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match scan::check(text) {
        // The general parser has a limit of its own, close to ours.
        Err(ScanFault::TooDeep) => {}
        here => {
            let there = serde_json::from_str::<serde::de::IgnoredAny>(text);
            let too_deep = there
                .as_ref()
                .is_err_and(|error| error.to_string().starts_with("recursion"));
            assert!(
                too_deep || here.is_ok() == there.is_ok(),
                "{text:?}: {here:?}, {there:?}"
            );
        }
    }
}

/// Every part that can be asked for lies in the bytes, and is asked for once.
fn message(bytes: &[u8]) {
    let Ok(message) = Message::read(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let raw = [
        message.id(),
        message.params(),
        message.arguments(),
        message.progress_token(),
        message.progress_of(),
        message.cancelled_id(),
        message.capabilities(),
        message.meta_capabilities(),
        message.meta_client_info(),
        message.result(),
        message.error(),
    ];
    for part in raw.into_iter().flatten() {
        serde_json::from_str::<serde::de::IgnoredAny>(part).expect("a raw part is JSON");
    }
    let texts = [
        message.method(),
        message.name(),
        message.uri(),
        message.cursor(),
        message.level(),
        message.initialize_version(),
        message.meta_version(),
        message.meta_log_level(),
    ];
    for version in texts.into_iter().flatten() {
        let _known = Revision::parse(version);
    }
    rounds::decode(&message);
    assert_eq!(
        message.kind() == Kind::Request,
        message.method().is_some() && message.id().is_some()
    );
}

/// What goes on is a message as well, under our id, with the upstream's name; and what comes back under the client's.
fn splice(bytes: &[u8]) {
    let Ok(read) = Message::read(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    match read.kind() {
        Kind::Request | Kind::Notification => {
            for era in [None, Some(Era::Legacy), Some(Era::Modern)] {
                let forward = Forward {
                    id: 77,
                    name: Some("a \"name\""),
                    uri: Some("file:///\\"),
                    era,
                    can: ClientCan::ALL,
                    level: Level::from_number(1),
                };
                let sent = forward.splice(&read);
                let again = Message::read(sent.clone());
                let again = again.unwrap_or_else(|no| panic!("{era:?}: {no:?}: {}", String::from_utf8_lossy(&sent)));
                assert_eq!(again.method(), read.method());
                assert_eq!(again.id(), read.id().map(|_| "77"));
                assert_eq!(again.arguments(), read.arguments(), "what is not ours stays as it is");
                assert_eq!(again.name(), read.name().map(|_| "a \"name\""));
            }
            let back = Backward {
                id: "1",
                progress_token: Some("\"mine\""),
                supply: Supply::Nothing,
            };
            if let Some(told) = back.progress(&read) {
                let told = Message::read(told).expect("progress that is passed on is a message");
                assert_eq!(told.progress_of(), Some("\"mine\""));
            }
        }
        Kind::Response => {
            for supply in SUPPLIES {
                let back = Backward {
                    id: "\"theirs\"",
                    progress_token: None,
                    supply,
                };
                let given = back.response(&read);
                let again = Message::read(given.clone());
                let again =
                    again.unwrap_or_else(|no| panic!("{supply:?}: {no:?}: {}", String::from_utf8_lossy(&given)));
                assert_eq!(again.id(), Some("\"theirs\""));
                assert_eq!(again.result().is_some(), read.result().is_some());
            }
        }
    }
}

/// A head of `Name: value` lines with a message behind an empty line.
fn head(bytes: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = bytes;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

/// The headers of a modern request beside its body; and a text as a header and back.
fn modern_headers(bytes: &[u8]) {
    let (headers, body) = head(bytes);
    for value in headers.values() {
        let _text = headers::decode_value(value);
    }
    if let Ok(message) = Message::read(Bytes::copy_from_slice(body)) {
        let _era = era_of(&message, &headers);
        let _revision = headers::check_modern(&message, &headers).is_ok();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let sent = headers::encode_value(text);
        assert_eq!(headers::decode_value(&sent), Some(Cow::Borrowed(text)));
    }
}

/// The first line is a tool's input schema, the second the arguments of a call: what we would send is what we would accept.
fn mirrored(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (schema, arguments) = text.split_once('\n').unwrap_or((&text, "{}"));
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return;
    };
    let Ok(params) = MirroredParams::compile(&schema) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for (name, value) in params.build(Some(arguments)) {
        headers.append(name, value);
    }
    params
        .check(Some(arguments), &headers)
        .expect("headers that were made of the arguments fit them");
}

fn events(chunks: &[&[u8]], bytes_max: usize) -> Result<Vec<Event>, TooLong> {
    let mut reader = SseReader::new(bytes_max);
    let mut found = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        while let Some(event) = reader.next_event()? {
            found.push(event);
        }
    }
    Ok(found)
}

/// However a stream is cut into chunks, it holds the same events; and what we write is read back.
fn sse(bytes: &[u8]) {
    let whole = events(&[bytes], usize::MAX).expect("there is no limit");
    let (left, right) = bytes.split_at(bytes.len() / 2);
    assert_eq!(events(&[left, right], usize::MAX).as_ref(), Ok(&whole));
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(events(&single, usize::MAX).as_ref(), Ok(&whole));
    if let Ok(short) = events(&[bytes], 16) {
        assert!(short.iter().all(|event| event.data.len() <= 16));
    }
    if !bytes.is_empty() && !bytes.contains(&b'\r') {
        let back = events(&[&event(bytes)], usize::MAX).expect("there is no limit");
        assert_eq!(back.len(), 1);
        assert_eq!(&back[0].data[..], bytes);
    }
}

/// Lines of a pipe: none is longer than the limit, and together they are no more than what came.
fn lines(bytes: &[u8]) {
    let all = async {
        let mut reader = LineReader::new(bytes, 64);
        let mut taken = 0;
        while let Ok(Some(line)) = reader.next_line().await {
            assert!(line.len() <= 64 && !line.contains(&b'\n'));
            taken += line.len();
        }
        assert!(taken <= bytes.len());
        let mut reader = LineReader::new(bytes, 64);
        while let Ok(Some(line)) = reader.next_cut_line().await {
            assert!(line.len() <= 64);
        }
    };
    let mut now = Context::from_waker(Waker::noop());
    assert!(
        pin!(all).poll(&mut now).is_ready(),
        "bytes in memory are not waited for"
    );
}

/// Objects of which chosen members are read, as an upstream's lists and handshake are.
fn lists(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(found) = read_fields(&text, &["tools", "nextCursor"]) {
        for part in found.into_iter().flatten() {
            assert!(text.contains(part));
        }
    }
    upstream::decode_handshake(&text);
}

/// The first line is a secret value, the rest a text that must not show it afterwards.
fn hidden_values(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some((secret, said)) = text.split_once('\n') else {
        return;
    };
    let shown = hidden::take_out(said.to_owned(), &[secret.to_owned()]);
    if !secret.is_empty() && !secret.contains('*') {
        assert!(!shown.contains(secret), "{shown}");
    }
}
