//! Keeps this node's certificates good while it runs: its own are signed again before they end, and files of the operator's
//! are read again when they change. No restart, no broken connection.
//!
//! Every node can sign for itself: it holds the cluster's authority, sealed, in its replica, and the data key beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use mcp_model::clock::Clock;
use mcp_model::ids::NodeId;
use mcp_model::records::{AUTHORITY_KEY, Authority as Kept};
use mcp_model::tables;
use mcp_raft::Node;
use mcp_store::Replica;
use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::certs::{self, Authority, CA_FILE, LISTENER_FILE, PEER_FILE};
use crate::config::{Config, Listener, Tls};
use crate::identity::write_private;
use crate::tls::Certificate;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a failure it says so at most this often, ms.
const COMPLAIN_EVERY_MS: u64 = 600_000;

/// Where a listener's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    what: &'static str,
    cert: PathBuf,
    key: PathBuf,
    own: bool,
}

/// A listener's certificate, with what its files looked like when they were read.
struct Watched {
    source: Source,
    certificate: Arc<Certificate>,
    seen: Option<Looks>,
}

/// When and how long: what shows that a file has changed.
type Looks = [(SystemTime, u64); 2];

/// The certificates of the listeners, before there is a node.
pub(crate) struct Listeners {
    watched: Vec<Watched>,
    pub(crate) gateway: Option<Arc<rustls::ServerConfig>>,
    pub(crate) api: Option<Arc<rustls::ServerConfig>>,
}

impl Listeners {
    /// Reads them all. Says out loud which listener is not encrypted.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Listeners> {
        let mut watched = Vec::new();
        let mut open = |what, listener: &Listener| -> anyhow::Result<_> {
            let Some(source) = Source::of(what, listener, &config.data_dir) else {
                say_that_it_is_open(what, listener);
                return Ok(None);
            };
            let certificate = Certificate::read(&source.cert, &source.key).with_context(|| source.explain())?;
            let server = certificate.server_config()?;
            watched.push(Watched {
                seen: source.looks(),
                source,
                certificate,
            });
            Ok(Some(server))
        };
        let (gateway, api) = (open("gateway", &config.gateway)?, open("API", &config.api)?);
        Ok(Listeners { watched, gateway, api })
    }
}

impl Source {
    fn of(what: &'static str, listener: &Listener, data_dir: &Path) -> Option<Source> {
        let own = || data_dir.join(LISTENER_FILE);
        let (cert, key, own) = match &listener.tls {
            Tls::Auto => (own(), own(), true),
            Tls::Files { cert, key } => (cert.clone(), key.clone(), false),
            Tls::Off => return None,
        };
        Some(Source { what, cert, key, own })
    }

    fn explain(&self) -> String {
        let mode = if self.own { "auto" } else { "files" };
        format!(
            "the {} listener has tls = \"{mode}\", and its certificate cannot be used",
            self.what
        )
    }

    fn looks(&self) -> Option<Looks> {
        let look = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        Some([look(&self.cert)?, look(&self.key)?])
    }
}

fn say_that_it_is_open(what: &str, listener: &Listener) {
    let listen = listener.listen;
    if listen.ip().is_loopback() {
        tracing::info!(listener = what, %listen, "tls = \"off\": plain HTTP, on this machine alone");
        return;
    }
    tracing::warn!(
        listener = what,
        %listen,
        "tls = \"off\": bearers travel in the clear unless something in front of this listener encrypts"
    );
}

/// What keeping needs.
pub(crate) struct Keeper {
    pub(crate) node: Arc<Node>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) me: NodeId,
    pub(crate) data_key: Zeroizing<[u8; 32]>,
    pub(crate) data_dir: PathBuf,
    /// What the listeners' certificate is to name.
    pub(crate) hosts: Vec<String>,
}

impl Keeper {
    /// Keeps as long as the node runs.
    pub(crate) async fn run(self, listeners: Listeners) {
        let keeper = Arc::new(self);
        let mut watched = listeners.watched;
        let mut complained_ms: Option<u64> = None;
        loop {
            let at = Arc::clone(&keeper);
            // Files, keys and signatures: not on the threads that serve.
            let looked = tokio::task::spawn_blocking(move || {
                let failed = [at.renew_own(), at.reread(&mut watched)]
                    .into_iter()
                    .find_map(Result::err);
                (watched, failed)
            });
            let Ok((back, failed)) = looked.await else { return };
            watched = back;
            let now_ms = keeper.clock.wall_ms();
            let due = complained_ms.is_none_or(|then| now_ms.saturating_sub(then) >= COMPLAIN_EVERY_MS);
            match failed {
                Some(error) if due => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "a certificate could not be replaced: the old one stays"
                    );
                    complained_ms = Some(now_ms);
                }
                Some(_) => {}
                None => complained_ms = None,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn renew_own(&self) -> anyhow::Result<()> {
        let now_ms = self.clock.wall_ms();
        let peer = self.data_dir.join(PEER_FILE);
        if certs::life(&peer)?.renew_ms <= now_ms {
            let authority = self.authority()?;
            let key = KeyPair::generate()?;
            let cert = authority.sign_peer(&key, self.me, now_ms)?;
            let both = certs::both(&cert, &key);
            self.node.replace_certificate(&both, &both)?;
            write_private(&peer, &both)?;
            tracing::info!(file = %peer.display(), "the peer certificate is renewed");
        }
        let listener = self.data_dir.join(LISTENER_FILE);
        if !listener.exists() {
            return Ok(());
        }
        let life = certs::life(&listener)?;
        let named = self.hosts.iter().all(|host| life.names.contains(host));
        if life.renew_ms <= now_ms || !named {
            let authority = self.authority()?;
            let key = KeyPair::generate()?;
            let cert = authority.sign_listeners(&key, &self.hosts, now_ms)?;
            write_private(&listener, &certs::both(&cert, &key))?;
            tracing::info!(file = %listener.display(), "the listeners' certificate is renewed");
        }
        Ok(())
    }

    fn authority(&self) -> anyhow::Result<Authority> {
        let kept = self.replica.read(|t| tables::load::<Kept>(t, &AUTHORITY_KEY))?;
        let kept = kept.context("the cluster's authority is not in this node's state (yet)")?;
        Authority::open(&kept, &self.data_key)
    }

    fn reread(&self, watched: &mut [Watched]) -> anyhow::Result<()> {
        for one in watched {
            let looks = one.source.looks();
            // Half of a pair that is being replaced: the other half comes.
            if looks.is_none() || looks == one.seen {
                continue;
            }
            let replaced = one.certificate.replace(&one.source.cert, &one.source.key);
            replaced.with_context(|| one.source.explain())?;
            one.seen = looks;
            tracing::info!(listener = one.source.what, file = %one.source.cert.display(), "another certificate is in use");
        }
        Ok(())
    }
}

/// When this node's certificates end, for people: file name and ms since 1970.
pub(crate) fn ends(data_dir: &Path) -> Vec<(&'static str, Option<u64>)> {
    let all = [CA_FILE, PEER_FILE, LISTENER_FILE].into_iter();
    all.map(|name| (name, certs::life(&data_dir.join(name)).ok().map(|life| life.ends_ms)))
        .collect()
}

#[cfg(test)]
mod tests {
    use mcp_model::names::Email;
    use tokio::sync::watch;

    use super::*;
    use crate::args::NodeArgs;
    use crate::clock::SystemClock;
    use crate::home::Home;
    use crate::{init, serve};

    const LIMIT: Duration = Duration::from_secs(60);
    const DAY_MS: u64 = 86_400_000;

    fn config(dir: &Path) -> Config {
        let anywhere = || Some("127.0.0.1:0".to_owned());
        let args = NodeArgs {
            data_dir: dir.to_owned(),
            name: Some("one".to_owned()),
            gateway_listen: anywhere(),
            api_listen: anywhere(),
            peer_listen: anywhere(),
            advertise: None,
            gateway_url: None,
            api_url: None,
            tls: None,
        };
        Config::of_new(&args, dir, "one").unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn certificates_are_signed_again_before_they_end_while_the_node_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (config, home) = (config(dir.path()), Home::claim(dir.path()).unwrap());
        let now_ms = SystemClock.wall_ms();
        let email = Email::parse("a@b.c").unwrap();
        init::make(&config, &home, &email, now_ms - 70 * DAY_MS).unwrap();
        let [peer, listener] = [PEER_FILE, LISTENER_FILE].map(|file| dir.path().join(file));
        let life = |path: &Path| certs::life(path).unwrap();
        assert!(life(&peer).renew_ms < now_ms && now_ms < life(&peer).ends_ms);
        let names = life(&listener).names;
        let (stop, stopped) = watch::channel(false);
        let node = tokio::spawn(serve::run(config, stopped));
        let renewed = async {
            while [&peer, &listener]
                .iter()
                .any(|path| life(path).ends_ms < now_ms + 89 * DAY_MS)
            {
                assert!(!node.is_finished());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, renewed).await.unwrap();
        assert_eq!(life(&listener).names, names);
        stop.send_replace(true);
        node.await.unwrap().unwrap();
    }
}
