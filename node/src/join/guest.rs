//! `mcpnode join`: the side of the machine that wants to be let in.
//!
//! It knows one thing about the cluster: the hash of its authority, from the join token. Before a byte of its own leaves, the
//! other end has shown a certificate under exactly that authority. Nothing is written before the answer is complete.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::PlainJoin;
use mcp_raft::{JOIN_PATH, tls};
use rcgen::KeyPair;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::pinned::connect;
use super::{Answer, Code, No, Question, VERSION};
use crate::args::JoinArgs;
use crate::certs::{self, CA_FILE, LISTENER_FILE, PEER_FILE};
use crate::config::{Config, PEER_PORT};
use crate::home::{Files, Home};
use crate::identity::Identity;
use crate::init::{common_files, machine_name};
use crate::random;

const ANSWER_WAIT: Duration = Duration::from_secs(25);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Tries when the answer is lost or the cluster cannot answer just now. The question is the same each time.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
const TOKEN_BYTES_MAX: usize = 4_096;

/// Makes a node of this machine. Gives its configuration, if it is to run now.
pub(crate) async fn run(args: &JoinArgs) -> anyhow::Result<Option<Config>> {
    let token = read_token(&args.token_file)?;
    let address = address_of(&args.url)?;
    let home = Home::claim(&args.node.data_dir)?;
    let config = Config::of_new(&args.node, home.path(), &machine_name())?;
    let asking = Asking::new(&config, &token)?;
    let answer = asking.ask(&address, &token).await?;
    asking.settle(&answer, &config, &home)?;
    let part = if answer.voter {
        "votes once it has caught up"
    } else {
        "follows as a learner"
    };
    eprintln!(
        "node {:?} ({}) is part of cluster {} and {part}; its data is in {}",
        config.name.as_str(),
        asking.node,
        answer.cluster,
        home.path().display()
    );
    if args.no_start {
        eprintln!("\nStart it:\n");
        println!("mcpnode serve --config {}", home.config().display());
        return Ok(None);
    }
    eprintln!(
        "the next time it is started with: mcpnode serve --config {}\n",
        home.config().display()
    );
    Ok(Some(config))
}

fn read_token(file: &Path) -> anyhow::Result<PlainJoin> {
    let text = std::fs::read(file).with_context(|| format!("the join token cannot be read from {}", file.display()))?;
    let text = Zeroizing::new(text);
    token_in(&text).with_context(|| {
        format!(
            "{} holds no join token (mcpctl_join_…): make one on any node of the cluster with `mcpctl cluster join-token > {}`",
            file.display(),
            file.display()
        )
    })
}

fn token_in(text: &[u8]) -> Option<PlainJoin> {
    let head = &text[..text.len().min(TOKEN_BYTES_MAX)];
    PlainJoin::parse(std::str::from_utf8(head).ok()?.trim())
}

/// For the fuzzer: bytes as the file of a join token, the address of a node, and what the door answers.
pub(crate) fn decode_answer(bytes: &[u8]) {
    if let Some(token) = token_in(bytes) {
        assert!(String::from_utf8_lossy(bytes).contains(&**token.expose()));
    }
    let _address = address_of(&String::from_utf8_lossy(bytes)).is_ok();
    let _no = serde_json::from_slice::<No>(bytes).is_ok();
    if let Ok(answer) = serde_json::from_slice::<Answer>(bytes) {
        let _parts = (answer.cluster.parse::<Id>().is_ok(), data_key_of(&answer).is_ok());
    }
}

fn data_key_of(answer: &Answer) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let key = STANDARD.decode(&answer.data_key).map(Zeroizing::new);
    let key = key.context("the answer holds no data key")?;
    let key = key.as_slice().try_into().context("the answer holds no data key")?;
    Ok(Zeroizing::new(key))
}

/// `HOST`, `HOST:PORT` or `https://HOST:PORT`.
fn address_of(url: &str) -> anyhow::Result<String> {
    let rest = url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/');
    let authority: Result<hyper::http::uri::Authority, _> = rest.parse();
    let Some(authority) = authority.ok().filter(|a| !a.host().is_empty() && !rest.contains('@')) else {
        bail!("{url:?} is not the peers' listener of a node: write HOST:PORT, such as node-1.example:{PEER_PORT}");
    };
    Ok(format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(PEER_PORT)
    ))
}

/// A question, with the keys that belong to it.
struct Asking {
    node: NodeId,
    peer_key: KeyPair,
    listener_key: KeyPair,
    question: Question,
}

/// What came of one try.
enum Tried {
    Answered(Box<Answer>),
    Refused(No),
    /// Asking again may help, and cannot hurt.
    Lost(anyhow::Error),
}

impl Asking {
    fn new(config: &Config, token: &PlainJoin) -> anyhow::Result<Asking> {
        let node = random::node_id();
        let (peer_key, peer_request) = certs::request()?;
        let (listener_key, listener_request) = certs::request()?;
        let question = Question {
            version: VERSION,
            secret: token.secret().to_owned(),
            node: node.to_string(),
            name: config.name.to_string(),
            peer_address: config.peers.address(),
            peer_request,
            listener_request,
            hosts: config.certified_hosts(),
        };
        Ok(Asking {
            node,
            peer_key,
            listener_key,
            question,
        })
    }

    async fn ask(&self, address: &str, token: &PlainJoin) -> anyhow::Result<Answer> {
        let mut tries = 1;
        loop {
            match self.try_once(address, token).await? {
                Tried::Answered(answer) => return Ok(*answer),
                Tried::Refused(no) if no.code == Code::Unavailable && tries < TRIES_MAX => {
                    eprintln!(
                        "{address} cannot let this machine in just now ({}): trying again",
                        no.detail
                    );
                }
                Tried::Refused(no) => bail!(
                    "{address} does not let this machine in: {}\n  next: {}",
                    no.detail,
                    no.hint
                ),
                Tried::Lost(error) if tries < TRIES_MAX => eprintln!("{address}: {error:#}: trying again"),
                Tried::Lost(error) => {
                    return Err(error.context(format!(
                        "{address} gave no answer. If it has used up the token, the next try says so: then make another with \
                         `mcpctl cluster join-token`"
                    )));
                }
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_once(&self, address: &str, token: &PlainJoin) -> anyhow::Result<Tried> {
        let stream = connect(address, token.authority()).await?;
        let exchanged = tokio::time::timeout(ANSWER_WAIT, self.exchange(stream)).await;
        let (status, body) = match exchanged {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Ok(Tried::Lost(error)),
            Err(_) => return Ok(Tried::Lost(anyhow::anyhow!("no answer within {ANSWER_WAIT:?}"))),
        };
        if status == StatusCode::OK {
            let answer = serde_json::from_slice(&body).context("the answer cannot be read")?;
            return Ok(Tried::Answered(Box::new(answer)));
        }
        Ok(match serde_json::from_slice(&body) {
            Ok(no) => Tried::Refused(no),
            Err(_) => Tried::Lost(anyhow::anyhow!("it answers {status}")),
        })
    }

    async fn exchange(
        &self,
        stream: tokio_rustls::client::TlsStream<TcpStream>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driven = tokio::spawn(connection);
        let body = Full::new(Bytes::from(serde_json::to_vec(&self.question)?));
        let request = Request::post(JOIN_PATH)
            .header(hyper::header::HOST, tls::ANY_PEER)
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(body)?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
            .to_bytes();
        driven.abort();
        Ok((status, body))
    }

    /// Writes the directory: complete, or not at all.
    fn settle(&self, answer: &Answer, config: &Config, home: &Home) -> anyhow::Result<()> {
        let cluster: Id = answer.cluster.parse().context("the answer names no cluster")?;
        let data_key = data_key_of(answer)?;
        let mut files = Files::default();
        files.add(CA_FILE, answer.authority.as_bytes());
        files.add(PEER_FILE, &certs::both(&answer.peer_certificate, &self.peer_key));
        files.add(
            LISTENER_FILE,
            &certs::both(&answer.listener_certificate, &self.listener_key),
        );
        files.append(common_files(config, &data_key));
        home.furnish(&files, &Identity::new(cluster, self.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_write_it() {
        for (url, address) in [
            ("node-1.example", "node-1.example:3300"),
            ("10.0.0.1:4400", "10.0.0.1:4400"),
            ("https://node-1.example:3300/", "node-1.example:3300"),
            ("[::1]:3300", "[::1]:3300"),
        ] {
            assert_eq!(address_of(url).unwrap(), address);
        }
        for bad in ["", "http://a:1", "https://a/join", "a b"] {
            assert!(address_of(bad).is_err(), "{bad}");
        }
    }
}
