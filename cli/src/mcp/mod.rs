//! MCP from the command line: [`stdio`] bridges a client that speaks stdio only, [`call`] calls one tool. Both go through
//! [`link`] to whichever node of the cluster is there ([`endpoints`]), one [`exchange`] per request.

pub(crate) mod bridge;
pub(crate) mod call;
pub(crate) mod endpoints;
pub(crate) mod exchange;
pub(crate) mod link;
pub(crate) mod stdio;

use std::io::Write;

use zeroize::Zeroizing;

use crate::args::GatewayArgs;
use crate::failure::{Exit, Failure};

/// Talks to people. Whoever started us may have closed standard error; that is no reason to end.
pub(crate) fn say(text: &str) {
    let _closed = writeln!(std::io::stderr(), "mcpctl: {}", crate::show::printable(text)).is_err();
}

/// For the fuzzer: bytes as what a gateway, or whoever answers in its place, sends.
pub(crate) fn decode(bytes: &[u8]) {
    if let Some((_, message, _)) = link::json_rpc_error(bytes) {
        assert!(!crate::show::printable(&message).contains('\u{1b}'));
    }
    if let Ok(message) = mcp_wire::message::Message::read(bytes::Bytes::copy_from_slice(bytes)) {
        bridge::decode(&message);
        call::decode(&message);
    }
}

/// The token, from its file or the environment. It is never an argument: those can be read by others.
pub(crate) fn token(args: &GatewayArgs) -> Result<Zeroizing<String>, Failure> {
    let text = match &args.token_file {
        Some(file) => {
            let read = std::fs::read_to_string(file).map_err(|error| {
                Failure::usage(
                    format!("cannot read the token from {}", file.display()),
                    error.to_string(),
                )
                .next(format!("ls -l {}", file.display()))
            });
            Zeroizing::new(read?)
        }
        None => Zeroizing::new(std::env::var("MCPCTL_TOKEN").unwrap_or_default()),
    };
    let token = Zeroizing::new(text.trim().to_owned());
    let mint = "TOK=$(mcpctl create mcptoken NAME -p PROJECT --bind role:run,resource:servers | grep mcpctl_pat_) and export MCPCTL_TOKEN=$TOK";
    if token.is_empty() {
        let why = "MCPCTL_TOKEN is not set, and no --token-file is given";
        return Err(Failure::new("cannot speak MCP without a token", why)
            .next(mint)
            .with_exit(Exit::NotAllowed));
    }
    if !token.starts_with("mcpctl_pat_") {
        let why = "it does not begin with mcpctl_pat_; the gateway takes nothing else";
        return Err(Failure::new("cannot use the token", why)
            .next(mint)
            .with_exit(Exit::NotAllowed));
    }
    Ok(token)
}
