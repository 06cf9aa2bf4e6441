//! Replaces parts of a message in a copy of its bytes: one allocation, nothing reserialised.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::can::ClientCan;
use crate::fields::read_fields;
use crate::level::Level;
use crate::message::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_PROTOCOL_VERSION, Message};
use crate::version::{Era, NEWEST_MODERN};

/// Parts to replace.
#[derive(Default)]
pub struct Edits<'a> {
    list: Vec<(Range<usize>, Cow<'a, [u8]>)>,
}

impl<'a> Edits<'a> {
    /// Puts `with` in the place of `at`. An empty range inserts.
    pub fn replace(&mut self, at: Range<usize>, with: impl Into<Cow<'a, [u8]>>) {
        self.list.push((at, with.into()));
    }

    /// The bytes with every replacement made.
    ///
    /// # Panics
    /// If ranges overlap or lie outside: they come from one reading of the same bytes.
    pub fn apply(mut self, bytes: &[u8]) -> Bytes {
        self.list.sort_by_key(|(at, _)| at.start);
        let removed: usize = self.list.iter().map(|(at, _)| at.len()).sum();
        let added: usize = self.list.iter().map(|(_, with)| with.len()).sum();
        let mut out = Vec::with_capacity(bytes.len() + added - removed);
        let mut from = 0;
        for (at, with) in &self.list {
            out.extend_from_slice(&bytes[from..at.start]);
            out.extend_from_slice(with);
            from = at.end;
        }
        out.extend_from_slice(&bytes[from..]);
        Bytes::from(out)
    }
}

/// A JSON string of this text.
fn quoted(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}

/// A request as it goes to an upstream: under our id and progress token, with the upstream's own name or URI.
#[derive(Default, Clone, Copy)]
pub struct Forward<'a> {
    /// Our id for the request.
    pub id: u64,
    /// The upstream's name for the tool or prompt, where it differs.
    pub name: Option<&'a str>,
    /// The upstream's URI for the resource, where it differs.
    pub uri: Option<&'a str>,
    /// The era of the upstream's session, none if it does not matter. The modern `_meta` keys are supplied to a modern
    /// upstream, and taken away for a legacy one: some refuse a request that carries them.
    pub era: Option<Era>,
    /// What the client can do, for a modern upstream that a legacy client calls.
    pub can: ClientCan,
    /// Which log messages it has asked for, for the same.
    pub level: Option<Level>,
}

impl Forward<'_> {
    /// The request's bytes for the upstream.
    pub fn splice(&self, message: &Message) -> Bytes {
        let mut edits = Edits::default();
        if let Some(at) = message.id_span() {
            edits.replace(at, self.id.to_string().into_bytes());
        }
        match (self.era, message.names_protocol_version()) {
            (Some(Era::Legacy), true) => self.take_modern_meta_away(message, &mut edits),
            (Some(Era::Modern), false) => {
                self.put_progress_token(message, &mut edits);
                add_modern_meta(message, self.can, self.level, &mut edits);
            }
            (_, _) => self.put_progress_token(message, &mut edits),
        }
        if let (Some(name), Some(at)) = (self.name, message.name_span()) {
            edits.replace(at, quoted(name));
        }
        if let (Some(uri), Some(at)) = (self.uri, message.uri_span()) {
            edits.replace(at, quoted(uri));
        }
        edits.apply(message.bytes())
    }

    fn put_progress_token(&self, message: &Message, edits: &mut Edits<'_>) {
        if let Some(at) = message.progress_token_span() {
            edits.replace(at, self.id.to_string().into_bytes());
        }
    }

    /// Writes `_meta` anew without the keys that only the modern era knows.
    fn take_modern_meta_away(&self, message: &Message, edits: &mut Edits<'_>) {
        let Some(at) = message.meta_span() else { return };
        let members: Meta<'_> = serde_json::from_slice(&message.bytes()[at.clone()]).unwrap_or_default();
        let mut meta = String::from("{");
        for (key, value) in &members {
            if key.starts_with("io.modelcontextprotocol/") {
                continue;
            }
            if meta.len() > 1 {
                meta.push(',');
            }
            meta.push_str(&serde_json::Value::from(&**key).to_string());
            meta.push(':');
            match &**key {
                "progressToken" => meta.push_str(&self.id.to_string()),
                _ => meta.push_str(value.get()),
            }
        }
        meta.push('}');
        edits.replace(at, meta.into_bytes());
    }
}

/// The members of `_meta`, raw.
type Meta<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// The modern `_meta` keys of a request that we send on our own account, as members without braces.
pub(crate) fn own_modern_meta() -> String {
    modern_meta(true, Some(ClientCan::ALL))
}

fn modern_meta(info: bool, capabilities: Option<ClientCan>) -> String {
    let mut members = format!(r#""{META_PROTOCOL_VERSION}":"{}""#, NEWEST_MODERN.as_str());
    if info {
        members.push_str(&format!(r#","{META_CLIENT_INFO}":{}"#, crate::OWN_INFO));
    }
    if let Some(can) = capabilities {
        members.push_str(&format!(r#","{META_CLIENT_CAPABILITIES}":{}"#, can.json()));
    }
    members
}

/// What a client has said of itself already must not stand there twice: its readers would differ about which one counts.
fn add_modern_meta(message: &Message, can: ClientCan, level: Option<Level>, edits: &mut Edits<'_>) {
    let mut members = modern_meta(
        message.meta_client_info().is_none(),
        message.meta_capabilities().is_none().then_some(can),
    );
    if let (Some(level), None) = (level, message.meta_log_level()) {
        members.push_str(&format!(r#","{META_LOG_LEVEL}":"{}""#, level.as_str()));
    }
    let comma = |object: &str| if is_empty_object(object) { "" } else { "," };
    match (message.meta_span(), message.params_span()) {
        (Some(meta), _) => {
            let comma = comma(&String::from_utf8_lossy(&message.bytes()[meta.clone()]));
            edits.replace(meta.start + 1..meta.start + 1, format!("{members}{comma}").into_bytes());
        }
        (None, Some(params)) => {
            let comma = comma(message.params().unwrap_or("{}"));
            edits.replace(
                params.start + 1..params.start + 1,
                format!("\"_meta\":{{{members}}}{comma}").into_bytes(),
            );
        }
        (None, None) => {
            let end = message
                .bytes()
                .iter()
                .rposition(|byte| *byte == b'}')
                .unwrap_or(message.bytes().len());
            edits.replace(
                end..end,
                format!(",\"params\":{{\"_meta\":{{{members}}}}}").into_bytes(),
            );
        }
    }
}

fn is_empty_object(object: &str) -> bool {
    object.trim_start_matches('{').trim_start().starts_with('}')
}

/// What a modern client expects in a result and a legacy upstream does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// Nothing: both are of the legacy era.
    Nothing,
    /// Nothing, and what only the modern era knows is taken away: the client is a legacy one and the upstream is not.
    Legacy,
    /// `resultType`.
    ResultType,
    /// `resultType`, and caching hints that forbid caching: `ttlMs` 0, `cacheScope` private.
    ResultTypeAndHints,
}

/// An upstream's message as it goes back to the client.
pub struct Backward<'a> {
    /// The client's id, raw JSON.
    pub id: &'a str,
    /// The client's progress token, raw JSON.
    pub progress_token: Option<&'a str>,
    /// What to supply in a result.
    pub supply: Supply,
}

/// A server's request as it goes to the client: under our id, which is our progress token for it too. `id` is raw JSON.
pub fn ask(request: &Message, id: &str) -> Bytes {
    let mut edits = Edits::default();
    for at in [request.id_span(), request.progress_token_span()].into_iter().flatten() {
        edits.replace(at, id.as_bytes());
    }
    edits.apply(request.bytes())
}

/// A client's progress on a server's request, under the server's own token, raw JSON.
pub fn progress_for(notification: &Message, token: &str) -> Option<Bytes> {
    let mut edits = Edits::default();
    edits.replace(notification.progress_of_span()?, token.as_bytes());
    Some(edits.apply(notification.bytes()))
}

impl Backward<'_> {
    /// A response under the client's id. A modern client gets what it needs supplied where it is missing, and the
    /// legacy code for an unknown resource replaced (2026-07-28, error codes: `-32002` must not be sent).
    pub fn response(&self, response: &Message) -> Bytes {
        let mut edits = Edits::default();
        match response.id_span() {
            Some(at) => edits.replace(at, self.id.as_bytes()),
            None => {
                let start = response
                    .bytes()
                    .iter()
                    .position(|byte| *byte == b'{')
                    .map_or(0, |at| at + 1);
                edits.replace(start..start, format!("\"id\":{},", self.id).into_bytes());
            }
        }
        match self.supply {
            Supply::Nothing => {}
            Supply::Legacy => take_modern_members_away(response, &mut edits),
            Supply::ResultType => modernise(response, false, &mut edits),
            Supply::ResultTypeAndHints => modernise(response, true, &mut edits),
        }
        edits.apply(response.bytes())
    }

    /// A progress notification under the client's token; nothing if the client asked for none.
    pub fn progress(&self, notification: &Message) -> Option<Bytes> {
        let mut edits = Edits::default();
        edits.replace(notification.progress_of_span()?, self.progress_token?.as_bytes());
        Some(edits.apply(notification.bytes()))
    }
}

/// Writes a result anew without `resultType`, `ttlMs` and `cacheScope`; one that is not the last is left alone.
fn take_modern_members_away(response: &Message, edits: &mut Edits<'_>) {
    const NAMES: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];
    let (Some(result), Some(at)) = (response.result(), response.result_span()) else {
        return;
    };
    let Ok(found) = read_fields(result, &NAMES) else {
        return;
    };
    let is_last = found[0].is_none_or(|kind| kind == r#""complete""#);
    if !is_last || found.iter().all(Option::is_none) {
        return;
    }
    let Ok(mut members) = serde_json::from_str::<Meta<'_>>(result) else {
        return;
    };
    members.retain(|key, _| !NAMES.contains(&&**key));
    if let Ok(result) = serde_json::to_vec(&members) {
        edits.replace(at, result);
    }
}

fn modernise(response: &Message, hints: bool, edits: &mut Edits<'_>) {
    if let (Some(result), Some(at)) = (response.result(), response.result_span()) {
        const NAMES: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];
        let Ok([result_type, ttl, scope]) = read_fields(result, &NAMES) else {
            return;
        };
        // An interim result is not cacheable and carries no hints.
        let hints = hints && result_type.is_none_or(|kind| kind == "\"complete\"");
        let mut members = String::new();
        for (missing, member) in [
            (result_type.is_none(), r#""resultType":"complete","#),
            (hints && ttl.is_none(), r#""ttlMs":0,"#),
            (hints && scope.is_none(), r#""cacheScope":"private","#),
        ] {
            if missing {
                members.push_str(member);
            }
        }
        if is_empty_object(result) {
            members.pop();
        }
        edits.replace(at.start + 1..at.start + 1, members.into_bytes());
    }
    if let (Some(error), Some(at)) = (response.error(), response.error_span()) {
        let code = read_fields(error, &["code"]).ok().and_then(|[code]| code);
        if let Some(code) = code.filter(|code| *code == "-32002") {
            let offset = at.start + (code.as_ptr() as usize - error.as_ptr() as usize);
            edits.replace(offset..offset + code.len(), &b"-32602"[..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_forwarded_call_keeps_every_other_byte() {
        let call = message(
            r#"{"jsonrpc":"2.0", "params":{"arguments":{ "id":1, "name":"x" },"name":"git__log","_meta":{"progressToken":"p"}},"method":"tools/call","id":"c-1"}"#,
        );
        let forward = Forward {
            id: 42,
            name: Some("lo\"g"),
            ..Forward::default()
        };
        assert_eq!(
            forward.splice(&call),
            r#"{"jsonrpc":"2.0", "params":{"arguments":{ "id":1, "name":"x" },"name":"lo\"g","_meta":{"progressToken":42}},"method":"tools/call","id":42}"#
        );
    }

    #[test]
    fn an_answer_comes_back_under_the_callers_id_and_token() {
        let back = Backward {
            id: "\"c-1\"",
            progress_token: Some("\"p\""),
            supply: Supply::Nothing,
        };
        let response = message(r#"{"result":{"id":42},"id":42,"jsonrpc":"2.0"}"#);
        assert_eq!(
            back.response(&response),
            r#"{"result":{"id":42},"id":"c-1","jsonrpc":"2.0"}"#
        );
        let nameless = message(r#"{"jsonrpc":"2.0","error":{"code":-1,"message":""}}"#);
        assert_eq!(
            back.response(&nameless),
            r#"{"id":"c-1","jsonrpc":"2.0","error":{"code":-1,"message":""}}"#
        );
        let progress = message(
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":42,"progress":1}}"#,
        );
        assert_eq!(
            back.progress(&progress).unwrap(),
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}"#
        );
        assert!(
            Backward {
                id: "1",
                progress_token: None,
                supply: Supply::Nothing
            }
            .progress(&progress)
            .is_none()
        );
    }

    #[test]
    fn modern_meta_is_added_wherever_it_has_to_go() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{ "name":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"_meta":{ },"name":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"_meta":{"a/b":1},"name":"x"}}"#,
            // Found by the fuzzer: half of it is there already.
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"_meta":{"io.modelcontextprotocol/clientInfo":{}}}}"#,
        ] {
            let added = Forward {
                id: 1,
                era: Some(Era::Modern),
                ..Forward::default()
            }
            .splice(&message(text));
            let read = Message::read(added.clone()).unwrap();
            assert_eq!(read.meta_version(), Some("2026-07-28"), "{added:?}");
            assert!(read.meta_capabilities().is_some());
        }
    }

    #[test]
    fn a_legacy_upstream_never_sees_the_modern_keys() {
        let call = message(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":"p","io.modelcontextprotocol/clientCapabilities":{},"traceparent":"00-1","x/y":{"z":[1]}},"name":"x"}}"#,
        );
        let forward = Forward {
            id: 42,
            era: Some(Era::Legacy),
            ..Forward::default()
        };
        assert_eq!(
            forward.splice(&call),
            r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"_meta":{"progressToken":42,"traceparent":"00-1","x/y":{"z":[1]}},"name":"x"}}"#
        );
    }

    #[test]
    fn a_legacy_client_does_not_see_what_only_the_modern_era_knows() {
        let rows = [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","b":[1, 2],"ttlMs":0,"cacheScope":"private"}}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{"b":[1, 2]}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{ "b":1}}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{ "b":1}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}"#,
            ),
        ];
        for (from, to) in rows {
            let back = Backward {
                id: "1",
                progress_token: None,
                supply: Supply::Legacy,
            };
            assert_eq!(back.response(&message(from)), to);
        }
    }

    #[test]
    fn a_modern_client_gets_what_a_legacy_upstream_left_out() {
        let rows = [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private"}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"a":1}}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","a":1}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"message":"no","code":-32002}}"#,
                r#"{"jsonrpc":"2.0","id":1,"error":{"message":"no","code":-32602}}"#,
            ),
        ];
        for (from, to) in rows {
            let back = Backward {
                id: "1",
                progress_token: None,
                supply: Supply::ResultTypeAndHints,
            };
            assert_eq!(back.response(&message(from)), to);
        }
    }
}
