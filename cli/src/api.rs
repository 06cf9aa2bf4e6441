//! Talks to the API: to the first node that can answer. A write carries one idempotency key through all its tries, so that
//! trying the next node never does a thing twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_api::Problem;
use mcp_api::headers::IDEMPOTENCY_KEY;
use mcp_api::list::List;
use mcp_api::problem::Code;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH};
use reqwest::{Client, Method, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::args::{Global, Waiting};
use crate::clock;
use crate::failure::{Exit, Failure};
use crate::settings::Settings;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Longest wait for a sign of life, before anything is asked of a node that could be replaced by another.
const LIFE_WAIT: Duration = Duration::from_millis(1_500);
/// Longest wait for an answer to a read.
const READ_WAIT: Duration = Duration::from_secs(12);
/// Longest wait for an answer to a write: longer than a node waits for a receipt.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How long a request goes round the nodes while none of them has a leader or a lease, ms: longer than a failover.
const ROUNDS_MS: u64 = 8_000;
/// Pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// Where the nodes and certificates that a command uses are to be seen.
pub(crate) const SEE_CONFIG: &str = "mcpctl config view";

/// The API of a cluster.
pub(crate) struct Api {
    nodes: Vec<Node>,
    /// The node that answered last: the next request begins there, not at one that was found dead a moment ago.
    first: AtomicUsize,
    session: Option<Zeroizing<String>>,
    /// How changes are waited for.
    waiting: Waiting,
}

struct Node {
    url: String,
    http: Client,
}

/// What a node answered: what was asked for, or a problem.
pub(crate) struct Answer<T> {
    pub(crate) status: u16,
    pub(crate) body: T,
}

/// A request, the same for every node.
struct Ask<'a> {
    /// For messages: `create project "demo"`.
    what: &'a str,
    method: Method,
    path: &'a str,
    body: Option<Vec<u8>>,
    key: Option<String>,
    /// The version that the object must still have.
    version: Option<&'a str>,
}

/// Why one node did not answer.
enum Miss {
    /// It was not reached, so it did nothing.
    Unreached(String),
    /// It was reached and said nothing that counts: it may have done it.
    Lost(String),
    /// It cannot answer now, and says so.
    Unable(Problem),
}

impl Api {
    /// The cluster that flags, environment and context name.
    pub(crate) fn of(global: &Global) -> Result<Api, Failure> {
        Api::with(&Settings::of(global, &[])?)
    }

    pub(crate) fn with(settings: &Settings) -> Result<Api, Failure> {
        let extra = match &settings.cacert {
            Some(file) => mcp_wire::tls::read_certificates(file)
                .map_err(|why| Failure::usage("cannot read the certificates to trust", why).next(SEE_CONFIG))?,
            None => Vec::new(),
        };
        let tls = mcp_wire::tls::client_config(&extra);
        let node = |url: &String| {
            let builder = Client::builder()
                .user_agent(concat!("mcpctl/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_WAIT)
                .redirect(redirect::Policy::none())
                .tls_backend_preconfigured(tls.as_ref().clone());
            let builder = if is_loopback(url) { builder.no_proxy() } else { builder };
            let http = builder
                .build()
                .map_err(|error| Failure::new("cannot set up HTTP", chain(&error)).next(SEE_CONFIG))?;
            Ok(Node { url: url.clone(), http })
        };
        let nodes = settings.servers.iter().map(node).collect::<Result<_, Failure>>()?;
        Ok(Api {
            nodes,
            first: AtomicUsize::new(0),
            session: settings.session.clone(),
            waiting: Waiting::default(),
        })
    }

    /// Waits for changes in this way.
    pub(crate) fn waiting(self, waiting: &Waiting) -> Api {
        Api {
            waiting: *waiting,
            ..self
        }
    }

    /// Whether changes are waited for until they are in force everywhere.
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.no_wait
    }

    fn told_how_to_wait(&self, path: &str) -> String {
        let Some(query) = self.waiting.query() else {
            return path.to_owned();
        };
        let between = if path.contains('?') { '&' } else { '?' };
        format!("{path}{between}{query}")
    }

    /// How long an answer to a write may take: longer than the node itself waits.
    fn write_wait(&self) -> Duration {
        let asked = self.waiting.timeout.map_or(Duration::ZERO, Duration::from_secs);
        WRITE_WAIT.max(asked + WRITE_WAIT / 2)
    }

    /// Refuses before anything is sent when there is nobody to ask on behalf of.
    pub(crate) fn logged_in(&self, what: &str) -> Result<(), Failure> {
        if self.session.is_some() {
            return Ok(());
        }
        let why = "not logged in here: the context has no session for these nodes, and MCPCTL_SESSION is not set";
        Err(Failure::new(format!("cannot {what}"), why)
            .next("mcpctl login")
            .with_exit(Exit::NotAllowed))
    }

    /// Reads one object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, what: &str, path: &str) -> Result<T, Failure> {
        let read = self.try_get(what, path).await?;
        read.map_err(|problem| Failure::of_problem(what, &problem))
    }

    /// Reads one object. The caller looks at the problem.
    pub(crate) async fn try_get<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
    ) -> Result<Result<T, Problem>, Failure> {
        self.logged_in(what)?;
        let ask = Ask {
            what,
            method: Method::GET,
            path,
            body: None,
            key: None,
            version: None,
        };
        Ok(self.send(&ask).await?.map(|answer| answer.body))
    }

    /// Reads one object that need not exist.
    pub(crate) async fn find<T: DeserializeOwned>(&self, what: &str, path: &str) -> Result<Option<T>, Failure> {
        match self.try_get(what, path).await? {
            Ok(found) => Ok(Some(found)),
            Err(problem) if problem.code == Code::NotFound.as_str() => Ok(None),
            Err(problem) => Err(Failure::of_problem(what, &problem)),
        }
    }

    /// Reads a list, all pages. `query` begins with `&` if it says anything.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        query: &str,
    ) -> Result<List<T>, Failure> {
        let mut all: List<T> = self.get(what, &format!("{path}?limit=1000{query}")).await?;
        while let Some(more) = all.more.take() {
            let page: List<T> = self
                .get(what, &format!("{path}?limit=1000&continue={more}{query}"))
                .await?;
            all.items.extend(page.items);
            all.more = page.more;
        }
        Ok(all)
    }

    /// Writes. A problem is a failure.
    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, Failure> {
        let answer = self.try_write(what, method, path, body).await?;
        answer.map_err(|problem| Failure::of_problem(what, &problem))
    }

    /// Writes. The caller looks at the problem.
    pub(crate) async fn try_write<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Result<Answer<T>, Problem>, Failure> {
        self.logged_in(what)?;
        self.post(what, method, path, body).await
    }

    /// Writes what must still have this version. The caller looks at the problem.
    pub(crate) async fn write_over<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
        version: &str,
    ) -> Result<Result<Answer<T>, Problem>, Failure> {
        self.logged_in(what)?;
        let (body, key) = (encode(what, body)?, Some(random_key()?));
        let path = &self.told_how_to_wait(path);
        self.send(&Ask {
            what,
            method,
            path,
            body: Some(body),
            key,
            version: Some(version),
        })
        .await
    }

    /// The same without a session: for the login itself.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Result<Answer<T>, Problem>, Failure> {
        let (body, key) = (encode(what, body)?, Some(random_key()?));
        let path = &self.told_how_to_wait(path);
        self.send(&Ask {
            what,
            method,
            path,
            body: Some(body),
            key,
            version: None,
        })
        .await
    }

    /// Asks node after node, and again from the first while they say that they have no leader or no lease.
    async fn send<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<Result<Answer<T>, Problem>, Failure> {
        let until_ms = clock::steady_ms() + ROUNDS_MS;
        let mut lost = None;
        loop {
            let mut misses = Vec::new();
            let first = self.first.load(Ordering::Relaxed);
            for at in (first..self.nodes.len()).chain(0..first) {
                let node = &self.nodes[at];
                match self.ask(node, ask).await {
                    Ok((status, bytes)) => {
                        self.first.store(at, Ordering::Relaxed);
                        return read(ask.what, status, &bytes);
                    }
                    Err(miss) => misses.push((node.url.as_str(), miss)),
                }
            }
            for (url, miss) in &misses {
                match miss {
                    Miss::Lost(why) => lost = Some(format!("{url}: {why}")),
                    Miss::Unable(problem) if problem.code == Code::OutcomeUnknown.as_str() => {
                        lost = Some(format!("{url}: {}", problem.detail));
                    }
                    Miss::Unreached(_) | Miss::Unable(_) => {}
                }
            }
            let hope = misses.iter().any(|(_, miss)| matches!(miss, Miss::Unable(_)));
            if !hope || clock::steady_ms() >= until_ms {
                return Err(self.gave_up(ask, misses, lost));
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    async fn ask(&self, node: &Node, ask: &Ask<'_>) -> Result<(u16, Vec<u8>), Miss> {
        // A node that is frozen takes connections and never answers: find out before a long wait, if there are others.
        if self.nodes.len() > 1 {
            let life = node
                .http
                .get(format!("{}/livez", node.url))
                .timeout(LIFE_WAIT)
                .send()
                .await;
            life.map_err(|error| Miss::Unreached(chain(&error)))?;
        }
        let wait = if ask.key.is_some() {
            self.write_wait()
        } else {
            READ_WAIT
        };
        let url = format!("{}/api/v1/{}", node.url, ask.path);
        let mut request = node.http.request(ask.method.clone(), url).timeout(wait);
        if let Some(bearer) = self.session.as_ref().and_then(|s| sensitive(s)) {
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(key) = &ask.key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if let Some(version) = ask.version {
            request = request.header(IF_MATCH, format!("\"{version}\""));
        }
        if let Some(body) = &ask.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let miss = |error: reqwest::Error| match error.is_connect() {
            true => Miss::Unreached(chain(&error)),
            false => Miss::Lost(chain(&error)),
        };
        let response = request.send().await.map_err(miss)?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(miss)?.to_vec();
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) if status >= 500 => Err(Miss::Unable(problem)),
            Err(_) if status >= 500 => Err(Miss::Lost(format!("HTTP status {status}"))),
            Ok(_) | Err(_) => Ok((status, bytes)),
        }
    }

    /// Takes a file from the first node that gives it, piece by piece.
    pub(crate) async fn download(
        &self,
        what: &str,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), Failure> {
        self.logged_in(what)?;
        let ask = Ask {
            what,
            method: Method::GET,
            path,
            body: None,
            key: None,
            version: None,
        };
        let failed = |why: String| Failure::new(format!("cannot {what}"), why).next("mcpctl cluster status");
        let mut misses = Vec::new();
        for node in &self.nodes {
            let mut request = node.http.get(format!("{}/api/v1/{path}", node.url));
            if let Some(bearer) = self.session.as_ref().and_then(|s| sensitive(s)) {
                request = request.header(AUTHORIZATION, bearer);
            }
            let mut response = match tokio::time::timeout(READ_WAIT, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    misses.push((node.url.as_str(), Miss::Unreached(chain(&error))));
                    continue;
                }
                Err(_) => {
                    misses.push((node.url.as_str(), Miss::Unreached("no answer in time".to_owned())));
                    continue;
                }
            };
            let status = response.status().as_u16();
            if status != 200 {
                let bytes = response.bytes().await.map_err(|error| failed(chain(&error)))?;
                match serde_json::from_slice::<Problem>(&bytes) {
                    Ok(problem) if status >= 500 => misses.push((node.url.as_str(), Miss::Unable(problem))),
                    Ok(problem) => return Err(Failure::of_problem(what, &problem)),
                    Err(_) => misses.push((node.url.as_str(), Miss::Lost(format!("HTTP status {status}")))),
                }
                continue;
            }
            // What has begun is not mixed with what another node would send.
            loop {
                let piece = tokio::time::timeout(READ_WAIT, response.chunk()).await;
                let piece = piece.map_err(|_| failed(format!("{}: nothing more comes", node.url)))?;
                match piece.map_err(|error| failed(format!("{}: {}", node.url, chain(&error))))? {
                    Some(bytes) => take(&bytes).map_err(failed)?,
                    None => return Ok(()),
                }
            }
        }
        Err(self.gave_up(&ask, misses, None))
    }

    fn gave_up(&self, ask: &Ask<'_>, misses: Vec<(&str, Miss)>, lost: Option<String>) -> Failure {
        let what = format!("cannot {}", ask.what);
        if let (Some(why), true) = (lost, ask.key.is_some()) {
            return Failure::new(what, format!("the outcome is not known: {why}"))
                .next("run the command again: it is safe to repeat")
                .with_exit(Exit::Uncertain);
        }
        let unable = misses.iter().find_map(|(_, miss)| match miss {
            Miss::Unable(problem) => Some(problem),
            Miss::Unreached(_) | Miss::Lost(_) => None,
        });
        if let Some(problem) = unable {
            return Failure::of_problem(ask.what, problem);
        }
        let reasons = misses.into_iter().map(|(url, miss)| match miss {
            Miss::Unreached(why) | Miss::Lost(why) => format!("{url}: {why}"),
            Miss::Unable(problem) => format!("{url}: {}", problem.detail),
        });
        let reasons: Vec<String> = reasons.collect();
        if reasons.iter().any(|why| why.contains("UnknownIssuer")) {
            let why = format!("no node is trusted: {}", reasons.join("; "));
            return Failure::new(what, why).next(
                "if the nodes use the cluster's own authority, copy ca.crt from the data directory of one and give it: --cacert FILE",
            );
        }
        Failure::new(what, format!("no node answers: {}", reasons.join("; ")))
            .next("mcpctl config view (are the URLs right, and do the nodes run?)")
    }
}

fn encode(what: &str, body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let wrong = |e: serde_json::Error| Failure::new(format!("cannot {what}"), e.to_string()).next("mcpctl --help");
    serde_json::to_vec(body).map_err(wrong)
}

fn read<T: DeserializeOwned>(what: &str, status: u16, bytes: &[u8]) -> Result<Result<Answer<T>, Problem>, Failure> {
    let strange = |why: String| {
        Failure::new(
            format!("cannot {}", what),
            format!("unusable answer (HTTP status {status}): {why}"),
        )
        .next("mcpctl config view (is the URL that of a node's API?)")
    };
    if (200..300).contains(&status) {
        let body = serde_json::from_slice(bytes).map_err(|error| strange(error.to_string()))?;
        return Ok(Ok(Answer { status, body }));
    }
    let problem = serde_json::from_slice(bytes).map_err(|_| strange("not a problem of the API".to_owned()))?;
    Ok(Err(problem))
}

/// For the fuzzer: bytes as the answer of a node.
pub(crate) fn decode(status: u16, bytes: &[u8]) {
    let _answer = read::<serde_json::Value>("do it", status, bytes).is_ok();
}

fn sensitive(session: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {session}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An id that nobody else has: a uuid.
pub(crate) fn random_id() -> Result<String, Failure> {
    let key = random_key()?;
    let parts = [&key[..8], &key[8..12], &key[12..16], &key[16..20], &key[20..]];
    Ok(parts.join("-"))
}

/// 128 random bits: one key for one run of one command.
pub(crate) fn random_key() -> Result<String, Failure> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new("cannot draw a random number", error.to_string()).next("try again"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

pub(crate) fn is_loopback(url: &str) -> bool {
    let url: Option<Url> = url.parse().ok();
    url.is_some_and(|url| match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    })
}

/// What a transport error says, down to its innermost cause, without the URL that stands before it anyway.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A name as one segment of a path or one value of a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    // A path segment of dots alone would be taken for a way up.
    if out.bytes().all(|b| b == b'.') {
        out.replace('.', "%2E")
    } else {
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(encoded("my-ha"), "my-ha");
        assert_eq!(encoded("a/../b?c=d&e"), "a%2F..%2Fb%3Fc%3Dd%26e");
        assert_eq!(encoded(".."), "%2E%2E");
        assert!(is_loopback("http://127.0.0.1:3100") && is_loopback("http://[::1]:1") && !is_loopback("http://a:1"));
    }
}
