//! One JSON-RPC message: the bytes as they came, and where in them the parts are that we read.
//!
//! Nothing is reserialised. What is not ours to read (arguments, results) is checked to be JSON and otherwise left
//! alone; what we replace (id, progress token, a renamed tool) is spliced into a copy of the bytes, see [`crate::splice`].

use std::ops::Range;

use bytes::Bytes;

use crate::fields::{FieldFault, members};
use crate::refusal::{INVALID_REQUEST, PARSE_ERROR, Refusal};
use crate::scan::{Place, Scan};
use crate::{limits, scan};

/// `_meta` key: the protocol version of a modern request.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key: who the client says it is.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// `_meta` key: what the client can do.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta` key: the least severe log message the client wants for this request.
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// `_meta` key: who the server says it is.
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// `_meta` key: the `subscriptions/listen` request a notification belongs to.
pub const META_SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

const TOP: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
/// Where `params` stands in it.
const PARAMS_AT: usize = 3;
const PARAMS: [&str; 11] = [
    "name",
    "uri",
    "_meta",
    "arguments",
    "progressToken",
    "requestId",
    "cursor",
    "ref",
    "level",
    "protocolVersion",
    "capabilities",
];
/// Where `_meta` and `ref` stand in it.
const META_AT: usize = 2;
const REF_AT: usize = 7;
const META: [&str; 5] = [
    "progressToken",
    META_PROTOCOL_VERSION,
    META_CLIENT_INFO,
    META_CLIENT_CAPABILITIES,
    META_LOG_LEVEL,
];

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wants an answer.
    Request,
    /// Wants none.
    Notification,
    /// The answer to a request.
    Response,
}

/// A part of the message: where it stands. In 32 bits, because there are many and messages are a few MiB at most.
type Span = Range<u32>;

/// The same as an index.
fn at(span: &Span) -> Range<usize> {
    let index = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
    index(span.start)..index(span.end)
}

/// A JSON string: where it stands (quotes included), and its text if that differs from the bytes between the quotes.
#[derive(Debug, Clone)]
struct Text {
    span: Span,
    decoded: Option<Box<str>>,
}

/// A JSON-RPC message, read once. Small to move: requests pass through many hands.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Bytes,
    kind: Kind,
    spans: Box<Spans>,
}

/// Where the parts stand that we read.
#[derive(Debug, Clone)]
struct Spans {
    id: Option<Span>,
    method: Option<Text>,
    params: Option<Span>,
    name: Option<Text>,
    uri: Option<Text>,
    arguments: Option<Span>,
    progress_token: Option<Span>,
    own_progress_token: Option<Span>,
    request_id: Option<Span>,
    cursor: Option<Text>,
    level: Option<Text>,
    initialize_version: Option<Text>,
    capabilities: Option<Span>,
    meta: Option<Span>,
    meta_version: Option<Span>,
    meta_client_info: Option<Span>,
    meta_capabilities: Option<Span>,
    meta_log_level: Option<Text>,
    result: Option<Span>,
    error: Option<Span>,
}

/// Two messages are equal if their bytes are.
impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Message {}

impl Message {
    /// Reads one message. Refuses invalid UTF-8 and JSON (`-32700`), and whatever is not exactly one unambiguous
    /// JSON-RPC 2.0 message: batches, doubled keys, a null id on a request, nesting deeper than
    /// [`limits::DEPTH_MAX`] (`-32600`). The size is the business of whoever read the bytes.
    pub fn read(bytes: Bytes) -> Result<Message, Refusal> {
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| Refusal::bad(PARSE_ERROR, format!("the body is not UTF-8: {error}")))?;
        match text.trim_start().as_bytes().first() {
            Some(b'{') => {}
            Some(b'[') => return Err(invalid("batches are not supported")),
            Some(_) | None => return Err(not_an_object(text)),
        }
        let parts = Parts::read(text)?;
        Ok(parts.into_message(bytes.clone()))
    }

    /// Composes a request of our own.
    ///
    /// # Panics
    /// If `id` and `params` are not JSON: they come from us.
    pub fn request(id: u64, method: &str, params: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        Message::read(Bytes::from(text)).expect("a request of our own is valid")
    }

    /// The message as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Request, notification or response.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The id as raw JSON: a string, an integer, or `null` in an error response that could not name one.
    pub fn id(&self) -> Option<&str> {
        self.raw(self.spans.id.as_ref())
    }

    /// The method; none in a response.
    pub fn method(&self) -> Option<&str> {
        self.text(self.spans.method.as_ref())
    }

    /// The raw `params` object.
    pub fn params(&self) -> Option<&str> {
        self.raw(self.spans.params.as_ref())
    }

    /// `params.name`: a tool or a prompt. In a completion request, the name in its reference.
    pub fn name(&self) -> Option<&str> {
        self.text(self.spans.name.as_ref())
    }

    /// `params.uri`: a resource. In a completion request, the URI in its reference.
    pub fn uri(&self) -> Option<&str> {
        self.text(self.spans.uri.as_ref())
    }

    /// The raw `params.arguments`.
    pub fn arguments(&self) -> Option<&str> {
        self.raw(self.spans.arguments.as_ref())
    }

    /// `params._meta.progressToken` as raw JSON: the caller wants progress under this token.
    pub fn progress_token(&self) -> Option<&str> {
        self.raw(self.spans.progress_token.as_ref())
    }

    /// `params.progressToken` as raw JSON: which request a progress notification is about.
    pub fn progress_of(&self) -> Option<&str> {
        self.raw(self.spans.own_progress_token.as_ref())
    }

    /// `params.requestId` as raw JSON: which request a cancellation is about.
    pub fn cancelled_id(&self) -> Option<&str> {
        self.raw(self.spans.request_id.as_ref())
    }

    /// `params.cursor` of a list request.
    pub fn cursor(&self) -> Option<&str> {
        self.text(self.spans.cursor.as_ref())
    }

    /// `params.level` of `logging/setLevel`.
    pub fn level(&self) -> Option<&str> {
        self.text(self.spans.level.as_ref())
    }

    /// `params.protocolVersion` of `initialize`.
    pub fn initialize_version(&self) -> Option<&str> {
        self.text(self.spans.initialize_version.as_ref())
    }

    /// The raw `params.capabilities` of `initialize`.
    pub fn capabilities(&self) -> Option<&str> {
        self.raw(self.spans.capabilities.as_ref())
    }

    /// Whether `_meta` carries a protocol version, whatever its value: the mark of the modern era.
    pub fn names_protocol_version(&self) -> bool {
        self.spans.meta_version.is_some()
    }

    /// The protocol version in `_meta`, if it is a plain string.
    pub fn meta_version(&self) -> Option<&str> {
        let raw = self.raw(self.spans.meta_version.as_ref())?;
        raw.strip_prefix('"')?
            .strip_suffix('"')
            .filter(|text| !text.contains('\\'))
    }

    /// The raw client capabilities in `_meta`.
    pub fn meta_capabilities(&self) -> Option<&str> {
        self.raw(self.spans.meta_capabilities.as_ref())
    }

    /// The raw client info in `_meta`.
    pub fn meta_client_info(&self) -> Option<&str> {
        self.raw(self.spans.meta_client_info.as_ref())
    }

    /// The log level asked for in `_meta`.
    pub fn meta_log_level(&self) -> Option<&str> {
        self.text(self.spans.meta_log_level.as_ref())
    }

    /// The raw `result` of a response.
    pub fn result(&self) -> Option<&str> {
        self.raw(self.spans.result.as_ref())
    }

    /// The raw `error` of a response.
    pub fn error(&self) -> Option<&str> {
        self.raw(self.spans.error.as_ref())
    }

    /// The code of the error in a response.
    pub fn error_code(&self) -> Option<i32> {
        let [code] = crate::fields::read_fields(self.error()?, &["code"]).ok()?;
        code?.parse().ok()
    }

    pub(crate) fn id_span(&self) -> Option<Range<usize>> {
        self.spans.id.as_ref().map(at)
    }

    pub(crate) fn name_span(&self) -> Option<Range<usize>> {
        self.spans.name.as_ref().map(|text| at(&text.span))
    }

    pub(crate) fn uri_span(&self) -> Option<Range<usize>> {
        self.spans.uri.as_ref().map(|text| at(&text.span))
    }

    pub(crate) fn progress_token_span(&self) -> Option<Range<usize>> {
        self.spans.progress_token.as_ref().map(at)
    }

    pub(crate) fn progress_of_span(&self) -> Option<Range<usize>> {
        self.spans.own_progress_token.as_ref().map(at)
    }

    pub(crate) fn params_span(&self) -> Option<Range<usize>> {
        self.spans.params.as_ref().map(at)
    }

    pub(crate) fn meta_span(&self) -> Option<Range<usize>> {
        self.spans.meta.as_ref().map(at)
    }

    pub(crate) fn result_span(&self) -> Option<Range<usize>> {
        self.spans.result.as_ref().map(at)
    }

    pub(crate) fn error_span(&self) -> Option<Range<usize>> {
        self.spans.error.as_ref().map(at)
    }

    fn raw(&self, span: Option<&Span>) -> Option<&str> {
        std::str::from_utf8(&self.bytes[at(span?)]).ok()
    }

    fn text<'a>(&'a self, text: Option<&'a Text>) -> Option<&'a str> {
        let text = text?;
        match &text.decoded {
            Some(decoded) => Some(decoded),
            None => {
                let quoted = at(&text.span);
                std::str::from_utf8(&self.bytes[quoted.start + 1..quoted.end - 1]).ok()
            }
        }
    }
}

/// Places, before they are joined with the bytes.
struct Parts<'a> {
    base: &'a str,
    top: [Option<Place>; 6],
    params: [Option<Place>; 11],
    meta: [Option<Place>; 5],
    kind: Kind,
}

impl<'a> Parts<'a> {
    /// Walks over the whole message once.
    fn read(base: &'a str) -> Result<Parts<'a>, Refusal> {
        let mut params = [const { None }; 11];
        let mut meta = [const { None }; 5];
        let mut scan = Scan::of(base);
        let walked = members(base, &mut scan, &TOP, |scan, at| {
            if at != PARAMS_AT || scan.peek() != Some(b'{') {
                return Ok(scan.value()?);
            }
            let (whole, found) = members(base, scan, &PARAMS, |scan, at| {
                if at != META_AT || scan.peek() != Some(b'{') {
                    return Ok(scan.value()?);
                }
                let (whole, found) = members(base, scan, &META, |scan, _| Ok(scan.value()?))?;
                meta = found;
                Ok(whole)
            })?;
            params = found;
            Ok(whole)
        });
        let (_, top) = walked.map_err(refuse)?;
        scan.end().map_err(|fault| refuse(fault.into()))?;
        let raw = |place: &Option<Place>| place.clone().map(|place| &base[place]);
        let [jsonrpc, id, method, whole_params, result, error] = top.each_ref().map(raw);
        if jsonrpc != Some("\"2.0\"") {
            return Err(invalid("jsonrpc must be \"2.0\""));
        }
        let kind = match (method, id, result, error) {
            (Some(_), Some(_), None, None) => Kind::Request,
            (Some(_), None, None, None) => Kind::Notification,
            (None, Some(_), Some(_), None) | (None, _, None, Some(_)) => Kind::Response,
            _ => return Err(invalid("not a request, a notification or a response")),
        };
        check_id(kind, id)?;
        if method.is_some_and(|method| !method.starts_with('"')) {
            return Err(invalid("method must be a string"));
        }
        if whole_params.is_some_and(|params| !params.starts_with('{')) {
            return Err(invalid("params must be an object"));
        }
        if raw(&params[META_AT]).is_some_and(|meta| !meta.starts_with('{')) {
            return Err(invalid("_meta must be an object"));
        }
        if let (Some("\"completion/complete\""), Some(reference)) = (method, params[REF_AT].clone()) {
            // What a completion is about stands one level deeper.
            let within = |place: Place| reference.start + place.start..reference.start + place.end;
            let mut scan = Scan::of(&base[reference.clone()]);
            let found = members(&base[reference.clone()], &mut scan, &["name", "uri"], |scan, _| {
                Ok(scan.value()?)
            });
            let (_, found) = found.map_err(refuse)?;
            let [name, uri] = found.map(|place| place.map(within));
            (params[0], params[1]) = (name, uri);
        }
        for token in [&meta[0], &params[4], &params[5]].into_iter().filter_map(raw) {
            if !is_id(token) {
                return Err(invalid("a progress token or request id must be a string or an integer"));
            }
        }
        let parts = Parts {
            base,
            top,
            params,
            meta,
            kind,
        };
        parts.check_texts()?;
        Ok(parts)
    }

    /// A string that cannot be decoded (a lone surrogate) names nothing: refuse it here, so that a text is a text.
    fn check_texts(&self) -> Result<(), Refusal> {
        let texts = [&self.top[2], &self.params[0], &self.params[1]];
        for raw in texts.into_iter().flatten().map(|place| &self.base[place.clone()]) {
            if !raw.starts_with('"') {
                return Err(Refusal::bad(
                    crate::refusal::INVALID_PARAMS,
                    "params.name and params.uri must be strings",
                ));
            }
            if raw.contains('\\') && serde_json::from_str::<String>(raw).is_err() {
                return Err(Refusal::bad(PARSE_ERROR, "a string holds an invalid escape"));
            }
        }
        Ok(())
    }

    fn span(place: Option<Place>) -> Option<Span> {
        let place = place?;
        Some(u32::try_from(place.start).ok()?..u32::try_from(place.end).ok()?)
    }

    /// A string; none where the value is not one.
    fn text(&self, place: Option<Place>) -> Option<Text> {
        let text = &self.base[place.clone()?];
        if !text.starts_with('"') {
            return None;
        }
        let decoded = match text.contains('\\') {
            true => Some(serde_json::from_str::<Box<str>>(text).ok()?),
            false => None,
        };
        Some(Text {
            span: Self::span(place)?,
            decoded,
        })
    }

    fn into_message(mut self, bytes: Bytes) -> Message {
        let [_, id, method, params, result, error] = std::mem::take(&mut self.top);
        let [
            name,
            uri,
            meta,
            arguments,
            own_token,
            request_id,
            cursor,
            _,
            level,
            version,
            capabilities,
        ] = std::mem::take(&mut self.params);
        let [token, meta_version, client_info, client_capabilities, log_level] = std::mem::take(&mut self.meta);
        let spans = Box::new(Spans {
            id: Self::span(id),
            method: self.text(method),
            params: Self::span(params),
            name: self.text(name),
            uri: self.text(uri),
            arguments: Self::span(arguments),
            progress_token: Self::span(token),
            own_progress_token: Self::span(own_token),
            request_id: Self::span(request_id),
            cursor: self.text(cursor),
            level: self.text(level),
            initialize_version: self.text(version),
            capabilities: Self::span(capabilities),
            meta: Self::span(meta),
            meta_version: Self::span(meta_version),
            meta_client_info: Self::span(client_info),
            meta_capabilities: Self::span(client_capabilities),
            meta_log_level: self.text(log_level),
            result: Self::span(result),
            error: Self::span(error),
        });
        Message {
            bytes,
            kind: self.kind,
            spans,
        }
    }
}

fn invalid(message: &str) -> Refusal {
    Refusal::bad(INVALID_REQUEST, message)
}

fn refuse(fault: FieldFault) -> Refusal {
    match fault {
        FieldFault::Syntax(why) => Refusal::bad(PARSE_ERROR, format!("the body is not valid JSON: {why}")),
        FieldFault::TooDeep => invalid("the message is nested too deeply"),
        FieldFault::Ambiguous(name) => invalid(&format!("\"{name}\" is given more than once or in another spelling")),
    }
}

fn not_an_object(text: &str) -> Refusal {
    match scan::check(text) {
        Ok(()) => invalid("the body is not a JSON object"),
        Err(fault) => refuse(fault.into()),
    }
}

fn check_id(kind: Kind, id: Option<&str>) -> Result<(), Refusal> {
    match (kind, id) {
        (Kind::Notification, None) | (Kind::Response, None | Some("null")) => Ok(()),
        (_, Some(id)) if is_id(id) => Ok(()),
        (_, _) => Err(invalid("id must be a string or an integer")),
    }
}

/// Whether a raw value can be an id or a progress token: a string or an integer, of bounded length.
fn is_id(raw: &str) -> bool {
    raw.len() <= limits::ID_BYTES_MAX
        && match raw.as_bytes() {
            [b'"', ..] => true,
            [b'-', digits @ ..] | digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        }
}

#[cfg(test)]
mod tests;
