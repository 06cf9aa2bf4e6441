//! What a client declares that it can do for a server: sampling, elicitation in its two modes, roots. A set of a few bits, so
//! that a session id can hold it and an upstream's sessions can be told apart by it.

use crate::fields::read_fields;
use crate::message::Message;
use crate::refusal::{INVALID_PARAMS, METHOD_NOT_FOUND, Refusal};

/// A set of client capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClientCan(u8);

impl ClientCan {
    /// None of them.
    pub const NOTHING: ClientCan = ClientCan(0);
    /// `sampling/createMessage`.
    pub const SAMPLING: ClientCan = ClientCan(1);
    /// `elicitation/create` with a form.
    pub const FORM: ClientCan = ClientCan(2);
    /// `roots/list`.
    pub const ROOTS: ClientCan = ClientCan(4);
    /// `elicitation/create` with a URL to visit.
    pub const URL: ClientCan = ClientCan(8);
    /// Sampling with tools.
    pub const SAMPLING_TOOLS: ClientCan = ClientCan(16);
    /// Sampling with the context of servers.
    pub const SAMPLING_CONTEXT: ClientCan = ClientCan(32);
    /// All of them.
    pub const ALL: ClientCan = ClientCan(63);
    /// How many sets there are.
    pub const SETS: usize = 64;

    /// The set of these bits; bits that mean nothing are left out.
    pub fn from_bits(bits: u8) -> ClientCan {
        ClientCan(bits & ClientCan::ALL.0)
    }

    /// Its bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Its number among the sets, below [`ClientCan::SETS`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Whether all of `what` is in it.
    pub fn has(self, what: ClientCan) -> bool {
        self.0 & what.0 == what.0
    }

    /// Both sets together.
    #[must_use]
    pub fn and(self, other: ClientCan) -> ClientCan {
        ClientCan(self.0 | other.0)
    }

    /// What a client's `capabilities` object says. Elicitation without a mode means forms. What cannot be read declares nothing.
    pub fn read(capabilities: &str) -> ClientCan {
        let is_object = |value: &Option<&str>| value.is_some_and(|value| value.starts_with('{'));
        let Ok([sampling, elicitation, roots]) = read_fields(capabilities, &["sampling", "elicitation", "roots"])
        else {
            return ClientCan::NOTHING;
        };
        let mut can = ClientCan::NOTHING;
        if let Some(raw) = sampling.filter(|raw| raw.starts_with('{')) {
            let [tools, context] = read_fields(raw, &["tools", "context"]).unwrap_or_default();
            can = can.and(ClientCan::SAMPLING);
            can = can.and(ClientCan::SAMPLING_TOOLS.only_if(is_object(&tools)));
            can = can.and(ClientCan::SAMPLING_CONTEXT.only_if(is_object(&context)));
        }
        if let Some(raw) = elicitation.filter(|raw| raw.starts_with('{')) {
            let [form, url] = read_fields(raw, &["form", "url"]).unwrap_or_default();
            let (form, url) = (is_object(&form), is_object(&url));
            can = can.and(ClientCan::URL.only_if(url));
            can = can.and(ClientCan::FORM.only_if(form || !url));
        }
        can.and(ClientCan::ROOTS.only_if(is_object(&roots)))
    }

    fn only_if(self, condition: bool) -> ClientCan {
        if condition { self } else { ClientCan::NOTHING }
    }

    /// The `capabilities` object that declares it. `roots` without `listChanged`: in a session that clients share, a change of one
    /// client's roots would be read as one of all.
    pub fn json(self) -> String {
        self.declared(r#""roots":{}"#)
    }

    /// The same in a session of one client, whose changes of roots are passed on.
    pub fn json_of_one(self) -> String {
        self.declared(r#""roots":{"listChanged":true}"#)
    }

    fn declared(self, roots: &'static str) -> String {
        let member = |what: ClientCan, text: &'static str| self.has(what).then_some(text);
        let object = |members: &[Option<&str>]| {
            let members: Vec<&str> = members.iter().copied().flatten().collect();
            format!("{{{}}}", members.join(","))
        };
        let sampling = self.has(ClientCan::SAMPLING).then(|| {
            let tools = member(ClientCan::SAMPLING_TOOLS, r#""tools":{}"#);
            let context = member(ClientCan::SAMPLING_CONTEXT, r#""context":{}"#);
            format!(r#""sampling":{}"#, object(&[tools, context]))
        });
        let elicitation = (self.0 & (ClientCan::FORM.0 | ClientCan::URL.0) != 0).then(|| {
            let form = member(ClientCan::FORM, r#""form":{}"#);
            let url = member(ClientCan::URL, r#""url":{}"#);
            format!(r#""elicitation":{}"#, object(&[form, url]))
        });
        let roots = member(ClientCan::ROOTS, roots);
        object(&[sampling.as_deref(), elicitation.as_deref(), roots])
    }

    /// Why a server's request may not be put to a client that can this much; none: it may.
    pub fn refusal_of(self, request: &Message) -> Option<Refusal> {
        self.refusal(request.method().unwrap_or_default(), request.params().unwrap_or("{}"))
    }

    /// The same for a request that is not a message of its own.
    pub fn refusal(self, method: &str, params: &str) -> Option<Refusal> {
        let fields = read_fields(params, &["mode", "tools", "toolChoice"]);
        let Ok([mode, tools, choice]) = fields else {
            return Some(Refusal::bad(
                INVALID_PARAMS,
                format!("the params of {method} are ambiguous"),
            ));
        };
        let (capability, needed, more) = match (method, mode) {
            ("sampling/createMessage", _) if tools.or(choice).is_some() => {
                ("sampling", ClientCan::SAMPLING, ClientCan::SAMPLING_TOOLS)
            }
            ("sampling/createMessage", _) => ("sampling", ClientCan::SAMPLING, ClientCan::NOTHING),
            ("roots/list", _) => ("roots", ClientCan::ROOTS, ClientCan::NOTHING),
            ("elicitation/create", mode) => {
                let wanted = match mode {
                    None | Some(r#""form""#) => ClientCan::FORM,
                    Some(r#""url""#) => ClientCan::URL,
                    Some(_) => return Some(Refusal::bad(INVALID_PARAMS, "elicitation has the modes form and url")),
                };
                let either = ClientCan::FORM.and(ClientCan::URL);
                let any = if self.0 & either.0 == 0 {
                    either
                } else {
                    ClientCan::NOTHING
                };
                ("elicitation", any, wanted)
            }
            _ => {
                return Some(Refusal::bad(
                    METHOD_NOT_FOUND,
                    "the gateway does not relay this request",
                ));
            }
        };
        if !self.has(needed) {
            return Some(Refusal::bad(
                METHOD_NOT_FOUND,
                format!("the client does not support {capability}"),
            ));
        }
        if !self.has(more) {
            return Some(Refusal::bad(
                INVALID_PARAMS,
                format!("the client supports {capability}, and not in this form"),
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_read_and_written_again() {
        let both = ClientCan::FORM.and(ClientCan::URL);
        let rows = [
            ("{}", ClientCan::NOTHING),
            ("null", ClientCan::NOTHING),
            (r#"{"sampling":true}"#, ClientCan::NOTHING),
            (r#"{"sampling":{},"SAMPLING":{}}"#, ClientCan::NOTHING),
            (r#"{"sampling":{}}"#, ClientCan::SAMPLING),
            (
                r#"{"sampling":{"tools":{}}}"#,
                ClientCan::SAMPLING.and(ClientCan::SAMPLING_TOOLS),
            ),
            (r#"{"elicitation":{}}"#, ClientCan::FORM),
            (r#"{"elicitation":{"url":{}}}"#, ClientCan::URL),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, both),
            (r#"{"roots":{"listChanged":true}}"#, ClientCan::ROOTS),
        ];
        for (text, can) in rows {
            assert_eq!(ClientCan::read(text), can, "{text}");
        }
        for bits in 0..64 {
            let can = ClientCan::from_bits(bits);
            // Sampling with tools is sampling.
            let more = ClientCan::SAMPLING_TOOLS.and(ClientCan::SAMPLING_CONTEXT);
            if can.has(ClientCan::SAMPLING) || can.bits() & more.bits() == 0 {
                assert_eq!(ClientCan::read(&can.json()), can, "{}", can.json());
            }
        }
    }

    #[test]
    fn a_client_is_asked_only_for_what_it_can() {
        let rows = [
            (ClientCan::NOTHING, "roots/list", "{}", METHOD_NOT_FOUND),
            (ClientCan::ROOTS, "roots/list", "{}", 0),
            (ClientCan::NOTHING, "elicitation/create", "{}", METHOD_NOT_FOUND),
            (ClientCan::URL, "elicitation/create", "{}", INVALID_PARAMS),
            (ClientCan::FORM, "elicitation/create", r#"{"mode":"form"}"#, 0),
            (
                ClientCan::FORM,
                "elicitation/create",
                r#"{"mode":"url"}"#,
                INVALID_PARAMS,
            ),
            (ClientCan::URL, "elicitation/create", r#"{"mode":"url"}"#, 0),
            (ClientCan::ALL, "elicitation/create", r#"{"mode":"x"}"#, INVALID_PARAMS),
            (ClientCan::SAMPLING, "sampling/createMessage", "{}", 0),
            (
                ClientCan::SAMPLING,
                "sampling/createMessage",
                r#"{"tools":[]}"#,
                INVALID_PARAMS,
            ),
            (ClientCan::ALL, "sampling/createMessage", r#"{"tools":[]}"#, 0),
            (ClientCan::ALL, "tasks/get", "{}", METHOD_NOT_FOUND),
        ];
        for (can, method, params, code) in rows {
            let refusal = can.refusal(method, params);
            assert_eq!(refusal.map_or(0, |refusal| refusal.code), code, "{method} {params}");
        }
    }
}
