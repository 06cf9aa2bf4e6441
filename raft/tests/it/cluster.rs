//! The harness: nodes that can be stopped, started again and cut off.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_model::clock::{Clock, Reading};
use mcp_model::command::{Actor, Command, Envelope, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::records::{ProjectSpec, ToolNaming};
use mcp_model::timers::Timers;
use mcp_model::token::TokenHash;
use mcp_raft::recover::{self, OpenError, Opened, Opening};
use mcp_raft::{DiskLimits, Member, Node, NodeOptions, PeerTls, WaitFor, Written, tls};
use mcp_store::Replica;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long anything may take here before the test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const ADMIN: Id = Id::from_u128(1);

pub(crate) struct TestClock;

impl Clock for TestClock {
    fn reading(&self) -> Reading {
        use nix::time::{ClockId, clock_gettime};
        let ns = |id| Duration::from(clock_gettime(id).unwrap()).as_nanos() as u64;
        let (raw, running, boot) = (
            ns(ClockId::CLOCK_MONOTONIC_RAW),
            ns(ClockId::CLOCK_MONOTONIC),
            ns(ClockId::CLOCK_BOOTTIME),
        );
        Reading {
            boot_ns: boot,
            raw_ns: raw + boot.saturating_sub(running),
        }
    }

    fn wall_ms(&self) -> u64 {
        1_000
    }
}

fn random() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);
    let mut z = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 27)
}

/// An authority and the certificates it gives.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    pub(crate) fn new() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        Ca {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A bare client that trusts this authority, with a certificate of its own or without one.
    pub(crate) fn client(&self, certificate: Option<(&Ca, NodeId)>) -> rustls::ClientConfig {
        let Some((authority, named)) = certificate else {
            return self.trusting().with_no_client_auth();
        };
        let (cert, key) = authority.certify(named);
        self.client_with(&cert, &key)
    }

    /// The same with a certificate that ends on a date.
    pub(crate) fn client_until(&self, authority: &Ca, named: NodeId, end: (i32, u8, u8)) -> rustls::ClientConfig {
        let (cert, key) = authority.certify_until(named, end);
        self.client_with(&cert, &key)
    }

    fn client_with(&self, cert: &str, key: &str) -> rustls::ClientConfig {
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        self.trusting().with_client_auth_cert(vec![cert], key).unwrap()
    }

    fn trusting(&self) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }

    /// The identity of `named`, which trusts `trusted`.
    pub(crate) fn tls(&self, named: NodeId, trusted: &Ca) -> PeerTls {
        let (cert, key) = self.certify(named);
        PeerTls::from_pem(trusted.pem.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap()
    }

    /// Certificate and key of `named`, in PEM.
    fn certify(&self, named: NodeId) -> (String, String) {
        self.certify_until(named, (4096, 1, 1))
    }

    /// The same with an end: year, month, day.
    pub(crate) fn certify_until(&self, named: NodeId, (year, month, day): (i32, u8, u8)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![tls::peer_name(named)]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

/// What stands between a node and whoever calls it: closed, nothing passes in.
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    pub(crate) address: String,
}

impl Gate {
    async fn to(node: String) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let open = watch::Sender::new(true);
        let seen = open.subscribe();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let (node, mut seen) = (node.clone(), seen.clone());
                tokio::spawn(async move {
                    if !*seen.borrow() {
                        return;
                    }
                    let Ok(mut to) = TcpStream::connect(&node).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        _ = seen.wait_for(|open| !*open) => {}
                    }
                });
            }
        });
        Gate { open, address }
    }

    pub(crate) fn set(&self, open: bool) {
        self.open.send_replace(open);
    }
}

pub(crate) struct Site {
    pub(crate) id: NodeId,
    dir: TempDir,
    listen: String,
    pub(crate) gate: Gate,
    /// What the node is told about the space on its disk, bytes.
    pub(crate) free_bytes: Arc<AtomicU64>,
    had_data: bool,
    /// The cluster that it believes to be in.
    believes: &'static str,
    pub(crate) running: Option<(Node, Arc<Replica>)>,
}

impl Site {
    pub(crate) fn node(&self) -> &Node {
        &self.running.as_ref().expect("the node runs").0
    }

    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.running.as_ref().expect("the node runs").1
    }

    /// Where it answers peers itself, without the gate in between.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    /// Where its data is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn admits(&self) -> bool {
        self.replica().gate().holds(TestClock.reading())
    }
}

pub(crate) struct Cluster {
    pub(crate) ca: Ca,
    pub(crate) sites: Vec<Site>,
    /// Whether the nodes have noted outside of their stores who the others are.
    pub(crate) noted: bool,
    /// How often the nodes compare their states.
    compare_every: Duration,
}

impl Cluster {
    /// A cluster of `n` nodes that has a leader, an administrator and the project `demo`.
    pub(crate) async fn of(n: u64) -> Cluster {
        Cluster::comparing(n, mcp_raft::COMPARE_EVERY).await
    }

    /// The same of nodes that compare their states that often.
    pub(crate) async fn comparing(n: u64, every: Duration) -> Cluster {
        let mut cluster = Cluster {
            ca: Ca::new(),
            sites: Vec::new(),
            noted: true,
            compare_every: every,
        };
        for id in 1..=n {
            cluster.add(id).await;
        }
        let members = cluster.members();
        let begun = cluster.sites[0].node().bootstrap(&members).await.unwrap();
        assert!(matches!(begun, mcp_raft::Begun::Here), "{begun:?}");
        cluster.seed().await;
        cluster
            .until("all hold a lease", |c| c.sites.iter().all(Site::admits))
            .await;
        cluster
    }

    /// Starts a node of which no other knows.
    pub(crate) async fn add(&mut self, id: u64) {
        self.add_of(id, "test").await;
    }

    /// The same for a node that believes to be in this cluster.
    pub(crate) async fn add_of(&mut self, id: u64, believes: &'static str) {
        let listen = free_address().await;
        let gate = Gate::to(listen.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        self.sites.push(Site {
            id: NodeId(id),
            dir,
            listen,
            gate,
            free_bytes: Arc::new(AtomicU64::new(u64::MAX)),
            had_data: false,
            believes,
            running: None,
        });
        self.start(self.sites.len() - 1).await;
    }

    /// Starts every node once more, to compare states that often.
    pub(crate) async fn compare_from_now_on(&mut self, every: Duration) {
        self.compare_every = every;
        for at in 0..self.sites.len() {
            self.stop(at).await;
            self.start(at).await;
        }
    }

    fn members(&self) -> Vec<Member> {
        let member = |site: &Site| Member {
            id: site.id,
            name: site.id.to_string(),
            address: site.gate.address.clone(),
        };
        self.sites.iter().map(member).collect()
    }

    pub(crate) async fn start(&mut self, at: usize) {
        self.try_start(at).await.unwrap();
    }

    /// Starts a node as `mcpnode` does: what is damaged is set aside, and a node without its log waits to be let go.
    pub(crate) async fn try_start(&mut self, at: usize) -> Result<(), OpenError> {
        let known = if self.noted { self.members() } else { Vec::new() };
        let site = &mut self.sites[at];
        let (dir, id) = (site.dir.path().to_owned(), site.id);
        let opening = Opening {
            dir: dir.clone(),
            had_data: site.had_data,
            lease_ms: 2_000,
            me: id,
            known,
            now_ms: random() >> 1,
            random: Arc::new(random),
            ticks: Arc::new(|| TestClock.reading().boot_ns),
        };
        let opened = tokio::task::spawn_blocking(|| recover::open(opening)).await.unwrap()?;
        site.had_data = true;
        let tls = self.ca.tls(id, &self.ca);
        let whole = match opened {
            Opened::Whole(whole) => whole,
            Opened::LogLost(lost) => {
                let let_go = lost.be_let_go("test".to_owned(), tls.clone(), watch::Sender::new(String::new()));
                tokio::time::timeout(LIMIT, let_go)
                    .await
                    .expect("let go in time")
                    .unwrap()
            }
        };
        let free_bytes = Arc::clone(&site.free_bytes);
        let options = NodeOptions {
            cluster: site.believes.to_owned(),
            me: id,
            timers: Timers::default(),
            snapshot_entries: 100,
            kept_entries: 10,
            compare_every: self.compare_every,
            snapshots: dir.join("snapshots"),
            disk: DiskLimits::default(),
            free_bytes: Arc::new(move || Some(free_bytes.load(Ordering::Relaxed))),
            random: Arc::new(random),
        };
        let listener = TcpListener::bind(&site.listen).await.unwrap();
        let replica = whole.replica;
        let node = Node::start(
            options,
            Arc::clone(&replica),
            whole.log,
            Arc::new(TestClock),
            tls,
            listener,
        );
        let node = node.await.unwrap();
        if let Some(returning) = whole.returning {
            let (name, address) = (id.to_string(), site.gate.address.clone());
            node.come_back(returning, Member { id, name, address });
        }
        site.running = Some((node, replica));
        Ok(())
    }

    pub(crate) async fn stop(&mut self, at: usize) {
        let (node, replica) = self.sites[at].running.take().unwrap();
        node.shutdown().await;
        drop(node);
        // The files are free when nobody holds the replica any more.
        let weak = Arc::downgrade(&replica);
        drop(replica);
        until("the replica is closed", || weak.strong_count() == 0).await;
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.sites
            .iter()
            .position(|s| s.running.as_ref().is_some_and(|(node, _)| node.leads()))
    }

    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Cluster) -> bool) {
        until(what, || done(self)).await;
    }

    async fn seed(&self) {
        let email = Email::parse("admin@example.com").unwrap();
        let init = Command::InitCluster {
            cluster_id: Id::from_u128(9),
            admin: ADMIN,
            email,
            password_hash: None,
            rbac: Id::from_u128(2),
        };
        let written = self.write(0, Actor::System, init, WaitFor::Committed).await;
        assert_eq!(written.outcome.reply, Reply::ClusterInitialised);
        let spec = ProjectSpec {
            description: String::new(),
            servers: Vec::new(),
            gated: true,
            allow_sse: false,
            proxy_model: None,
            tool_naming: ToolNaming::Plain,
            instructions: None,
        };
        let project = Command::CreateProject {
            id: Id::from_u128(50),
            name: Name::parse("demo").unwrap(),
            spec,
        };
        self.write(0, Actor::User(ADMIN), project, WaitFor::Committed).await;
    }

    pub(crate) async fn write(&self, at: usize, actor: Actor, command: Command, wait: WaitFor) -> Written {
        let envelope = envelope(actor, command);
        self.sites[at].node().write(&envelope, wait, LIMIT).await.unwrap()
    }

    /// Mints a token through a node.
    pub(crate) async fn issue(&self, at: usize, n: u8) -> Written {
        self.write(at, Actor::User(ADMIN), issue(n), WaitFor::Effective).await
    }

    pub(crate) async fn revoke(&self, at: usize, n: u8) -> Written {
        self.write(at, Actor::User(ADMIN), revoke(n), WaitFor::Effective).await
    }

    pub(crate) fn knows(&self, at: usize, n: u8) -> bool {
        self.sites[at].replica().view().token(&TokenHash([n; 32])).is_some()
    }
}

/// An address that is free, and stays so while its node is stopped: not one that the system hands out itself.
async fn free_address() -> String {
    loop {
        let address = format!("127.0.0.1:{}", 10_000 + random() % 20_000);
        if TcpListener::bind(&address).await.is_ok() {
            return address;
        }
    }
}

pub(crate) fn envelope(actor: Actor, command: Command) -> Envelope {
    Envelope {
        id: CommandId(u128::from(random()) << 64 | u128::from(random())),
        now_ms: 1_000,
        actor,
        command,
    }
}

pub(crate) fn issue(n: u8) -> Command {
    Command::IssueToken {
        id: Id::from_u128(u128::from(n) + 1_000),
        name: Name::parse(&format!("t{n}")).unwrap(),
        project: Name::parse("demo").unwrap(),
        hash: TokenHash([n; 32]),
        shown_prefix: "mcpctl_pat_abcd".to_owned(),
        description: String::new(),
        expires_ms: None,
        grant: TokenGrant::Bindings(Vec::new()),
        replace: false,
    }
}

pub(crate) fn revoke(n: u8) -> Command {
    Command::RevokeToken {
        id: Id::from_u128(u128::from(n) + 1_000),
    }
}

pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {LIMIT:?}: {what}");
}
