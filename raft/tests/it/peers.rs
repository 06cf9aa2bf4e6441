//! Who may say what to a node: the certificate decides, and every message names the cluster and the node it means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::lease::RequestId;
use mcp_raft::{Answering, Doorkeeper, Hearing, Listener, MESSAGE_BYTES_MAX, Unheard, WaitFor, tls};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::cluster::{Ca, Cluster, LIMIT, Site};

const ASK: &str = "/peer/ask";
const WRITE: &str = "/peer/write";
const CONFIRM: &str = "/peer/confirm";
pub(crate) const RENEW: &str = "/peer/renew";
/// How the answer that grants nothing begins: the second kind of an index.
pub(crate) const NOT_LEADER: &[u8] = &[1];

/// On which timers the leases of the default configuration rest.
pub(crate) const LEASE: &str = "2000 ms, margin 100 ms, 1000 ppm";

/// What a message says about itself.
pub(crate) struct Says {
    pub(crate) cluster: &'static str,
    /// On which timers its leases rest.
    pub(crate) lease: &'static str,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
}

/// Sends one message and returns status and body of the answer. `Err`: there was no connection to send it on.
pub(crate) async fn send(
    client: ClientConfig,
    address: &str,
    expects: NodeId,
    says: &Says,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), String> {
    let sent = async {
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let mut client = client;
        client.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(tls::peer_name(expects)).unwrap();
        let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await;
        let stream = TokioIo::new(stream.map_err(|e| e.to_string())?);
        let shaken = http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, connection) = shaken.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let request = Request::post(format!("https://{}{path}", tls::peer_name(expects)))
            .header("mcp-cluster", says.cluster)
            .header("mcp-lease", says.lease)
            .header("mcp-from", says.from.to_string())
            .header("mcp-to", says.to.to_string())
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?;
        Ok((status, body.to_bytes()))
    };
    tokio::time::timeout(LIMIT, sent).await.expect("an answer or a refusal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_peer_is_who_its_certificate_says_and_means_this_cluster_and_this_node() {
    let cluster = Cluster::of(1).await;
    let (site, peer) = (&cluster.sites[0], NodeId(2));
    let foreign = Ca::new();
    let right = || Says {
        cluster: "test",
        lease: LEASE,
        from: peer,
        to: site.id,
    };
    let of_ours = || cluster.ca.client(Some((&cluster.ca, peer)));
    let ask = |client, expects, says: Says| async move {
        let answer = send(client, &site.gate.address, expects, &says, ASK, Vec::new()).await;
        answer.map(|(status, _)| status)
    };

    assert_eq!(ask(of_ours(), site.id, right()).await, Ok(StatusCode::OK));
    let mistaken = [
        (
            Says {
                cluster: "other",
                ..right()
            },
            StatusCode::MISDIRECTED_REQUEST,
        ),
        (
            Says {
                lease: "3000 ms, margin 100 ms, 1000 ppm",
                ..right()
            },
            StatusCode::PRECONDITION_FAILED,
        ),
        (
            Says {
                to: NodeId(3),
                ..right()
            },
            StatusCode::MISDIRECTED_REQUEST,
        ),
        (
            Says {
                from: NodeId(3),
                ..right()
            },
            StatusCode::FORBIDDEN,
        ),
        (
            Says {
                from: site.id,
                ..right()
            },
            StatusCode::FORBIDDEN,
        ),
    ];
    for (says, expected) in mistaken {
        let told = format!("cluster {}, from {}, to {}", says.cluster, says.from, says.to);
        assert_eq!(ask(of_ours(), site.id, says).await, Ok(expected), "{told}");
    }

    let of_theirs = cluster.ca.client(Some((&foreign, peer)));
    ask(of_theirs, site.id, right())
        .await
        .expect_err("another authority's certificate");
    let of_nobody = cluster.ca.client(None);
    ask(of_nobody, site.id, right()).await.expect_err("no certificate");
    let doubtful = foreign.client(Some((&cluster.ca, peer)));
    ask(doubtful, site.id, right())
        .await
        .expect_err("the caller does not trust our authority");
    ask(of_ours(), NodeId(3), right())
        .await
        .expect_err("the caller expects another node");
}

/// What stands in the log is carried out by everybody: a command that nobody can read would stop every replica at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_that_nobody_can_read_never_reaches_the_log() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let from = cluster.sites[(leader + 1) % 3].id;
    let site = &cluster.sites[leader];
    let says = Says {
        cluster: "test",
        lease: LEASE,
        from,
        to: site.id,
    };
    let deadline_ms: u64 = 1_000;
    for garbage in [Vec::new(), b"not a command".to_vec()] {
        let body = postcard::to_stdvec(&(garbage, WaitFor::Committed, deadline_ms)).unwrap();
        let client = cluster.ca.client(Some((&cluster.ca, from)));
        let status = send(client, &site.gate.address, site.id, &says, WRITE, body).await;
        assert_eq!(status.unwrap().0, StatusCode::BAD_REQUEST);
    }
    cluster.issue(leader, 7).await;
    let limit = Duration::from_secs(5);
    let told = tokio::time::timeout(limit, cluster.revoke((leader + 2) % 3, 7)).await;
    assert!(told.expect("the cluster goes on").receipt.unwrap().effective());
    assert!(cluster.sites.iter().all(Site::admits));
}

/// Rule 6: a confirmation says how far the view is, whatever index it was asked about, and which incarnation says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_confirmation_claims_no_more_than_the_view_shows() {
    let cluster = Cluster::of(1).await;
    let site = &cluster.sites[0];
    let from = NodeId(2);
    let says = Says {
        cluster: "test",
        lease: LEASE,
        from,
        to: site.id,
    };
    let (far, wait_ms) = (1_000_000_u64, 20_u64);
    let body = postcard::to_stdvec(&(far, wait_ms)).unwrap();
    let client = cluster.ca.client(Some((&cluster.ca, from)));
    let answer = send(client, &site.gate.address, site.id, &says, CONFIRM, body).await;
    let confirmed: (NodeId, Incarnation, u64) = postcard::from_bytes(&answer.unwrap().1).unwrap();
    let replica = site.replica();
    assert_eq!(confirmed, (site.id, replica.gate().incarnation(), replica.auth_index()));
    assert!(confirmed.2 < far);
}

/// Rule 2: a lease is granted by the leader, and to nodes of the applied configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stranger_with_a_good_certificate_is_granted_no_lease() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let follower = (leader + 1) % 3;
    let (member, stranger) = (cluster.sites[(leader + 2) % 3].id, NodeId(77));
    for (from, to, granted) in [
        (member, leader, true),
        (stranger, leader, false),
        (member, follower, false),
    ] {
        let site = &cluster.sites[to];
        let says = Says {
            cluster: "test",
            lease: LEASE,
            from,
            to: site.id,
        };
        let body = postcard::to_stdvec(&(Incarnation(1), RequestId(1))).unwrap();
        let client = cluster.ca.client(Some((&cluster.ca, from)));
        let answer = send(client, &site.gate.address, site.id, &says, RENEW, body).await;
        let (status, body) = answer.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body != NOT_LEADER, granted, "{from} asked {}: {body:?}", site.id);
    }
}

/// What is over is over, on either side, and a peer that was renewed goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_expired_certificate_is_turned_away_and_a_renewed_one_is_not() {
    let cluster = Cluster::of(1).await;
    let (site, peer) = (&cluster.sites[0], NodeId(2));
    let says = Says {
        cluster: "test",
        lease: LEASE,
        from: peer,
        to: site.id,
    };
    let expired = cluster.ca.client_until(&cluster.ca, peer, (1999, 1, 1));
    let refused = send(expired, &site.gate.address, site.id, &says, ASK, Vec::new()).await;
    refused.expect_err("it ended in 1999");
    let living = cluster.ca.client_until(&cluster.ca, peer, (2900, 1, 1));
    let answer = send(living, &site.gate.address, site.id, &says, ASK, Vec::new()).await;
    assert_eq!(answer.unwrap().0, StatusCode::OK);

    // The node's own certificate is replaced while it runs: the next connection sees it.
    let trusting = || cluster.ca.client(Some((&cluster.ca, peer)));
    let (cert, key) = cluster.ca.certify_until(site.id, (1999, 1, 1));
    site.node()
        .replace_certificate(cert.as_bytes(), key.as_bytes())
        .unwrap();
    let refused = send(trusting(), &site.gate.address, site.id, &says, ASK, Vec::new()).await;
    refused.expect_err("nobody takes an expired one");
    let (cert, key) = cluster.ca.certify_until(site.id, (2900, 1, 1));
    site.node()
        .replace_certificate(cert.as_bytes(), key.as_bytes())
        .unwrap();
    let answer = send(trusting(), &site.gate.address, site.id, &says, ASK, Vec::new()).await;
    assert_eq!(answer.unwrap().0, StatusCode::OK);
    // What does not go together is not taken, and what is in use stays.
    let (_, another) = cluster.ca.certify_until(site.id, (2900, 1, 1));
    site.node()
        .replace_certificate(cert.as_bytes(), another.as_bytes())
        .unwrap_err();
    let answer = send(trusting(), &site.gate.address, site.id, &says, ASK, Vec::new()).await;
    assert_eq!(answer.unwrap().0, StatusCode::OK);
}

/// Without a certificate there is the door, and nothing behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_has_no_certificate_gets_as_far_as_the_door() {
    let cluster = Cluster::of(1).await;
    let site = &cluster.sites[0];
    let knock = |method: &'static str, path: &'static str, body: Vec<u8>| {
        let mut client = cluster.ca.client(None);
        client.alpn_protocols = vec![tls::JOIN_ALPN.to_vec()];
        async move {
            let stream = TcpStream::connect(&site.gate.address).await.unwrap();
            let name = ServerName::try_from(tls::peer_name(site.id)).unwrap();
            let stream = TlsConnector::from(Arc::new(client))
                .connect(name, stream)
                .await
                .unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .unwrap();
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "x")
                .header("mcp-cluster", "test")
                .header("mcp-from", "0000000000000002")
                .header("mcp-to", site.id.to_string())
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            sender.send_request(request).await.map(|answer| answer.status())
        }
    };
    // Nobody keeps the door yet.
    assert_eq!(
        knock("POST", "/join", Vec::new()).await.unwrap(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    site.node().open_door(Arc::new(Echo));
    assert_eq!(
        knock("POST", "/join", b"{}".to_vec()).await.unwrap(),
        StatusCode::IM_A_TEAPOT
    );
    for path in [
        ASK,
        WRITE,
        CONFIRM,
        RENEW,
        "/raft/append",
        "/raft/vote",
        "/raft/snapshot",
        "/",
    ] {
        assert_eq!(
            knock("POST", path, Vec::new()).await.unwrap(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert_eq!(knock("GET", "/join", Vec::new()).await.unwrap(), StatusCode::NOT_FOUND);
    let too_long = knock("POST", "/join", vec![b' '; 65 * 1024]).await;
    assert_eq!(too_long.unwrap(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// Answers with something that nobody else says.
struct Echo;

impl Doorkeeper for Echo {
    fn answer(&self, _: std::net::SocketAddr, question: Bytes) -> Answering<'_> {
        Box::pin(async move { (StatusCode::IM_A_TEAPOT, question) })
    }
}

/// Sockets of these addresses that say nothing.
async fn silent(to: &str, from: impl Iterator<Item = [u8; 4]>) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for address in from {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        silent.push(socket.connect(to.parse().unwrap()).await.unwrap());
    }
    silent
}

/// Three hundred sockets that say nothing: of one address, of as many as there can be in a network, of the peer's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silence_keeps_no_peer_out() {
    let cluster = Cluster::of(1).await;
    let (site, peer) = (&cluster.sites[0], NodeId(2));
    site.node().open_door(Arc::new(Echo));
    let says = Says {
        cluster: "test",
        lease: LEASE,
        from: peer,
        to: site.id,
    };
    let floods: [(&str, Vec<[u8; 4]>); 3] = [
        ("one address", vec![[127, 0, 1, 1]; 300]),
        (
            "256 addresses",
            (0..300).map(|n| [127, 0, 2, (n % 256) as u8]).collect(),
        ),
        ("the peer's own address", vec![[127, 0, 0, 1]; 300]),
    ];
    for (what, from) in floods {
        let mut flood = silent(site.listen(), from.into_iter()).await;
        // Once, without trying again: a peer that has to come back a second time has lost half of its time.
        let client = cluster.ca.client(Some((&cluster.ca, peer)));
        let served = send(client, site.listen(), site.id, &says, ASK, Vec::new()).await;
        assert_eq!(served.map(|(status, _)| status), Ok(StatusCode::OK), "{what}");
        let mut oldest = flood.remove(0);
        let ended = tokio::time::timeout(LIMIT, oldest.read(&mut [0])).await;
        assert!(ended.is_ok(), "{what}: the oldest has made room");
    }
}

/// Strangers say nothing, sixteen guests of eight addresses shake hands and do not ask: another guest is heard all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guests_that_do_not_ask_keep_nobody_from_the_door() {
    let cluster = Cluster::of(1).await;
    let site = &cluster.sites[0];
    site.node().open_door(Arc::new(Echo));
    let knock = |address: [u8; 4]| {
        let mut client = cluster.ca.client(None);
        client.alpn_protocols = vec![tls::JOIN_ALPN.to_vec()];
        async move {
            let stream = silent(site.listen(), [address].into_iter()).await.remove(0);
            let name = ServerName::try_from(tls::peer_name(site.id)).unwrap();
            TlsConnector::from(Arc::new(client))
                .connect(name, stream)
                .await
                .unwrap()
        }
    };
    let _flood = silent(site.listen(), (0..=255).map(|n| [127, 0, 5, n])).await;
    let mut silent_guests = Vec::new();
    for n in 0..16 {
        silent_guests.push(knock([127, 0, 3, n / 2]).await);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(knock([127, 0, 4, 1]).await))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post("/join")
        .header("host", "x")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let answer = tokio::time::timeout(LIMIT, sender.send_request(request)).await;
    let answer = answer.expect("an answer in time").expect("the guest is heard");
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    let mut first = silent_guests.remove(0);
    let ended = tokio::time::timeout(LIMIT, first.read(&mut [0])).await;
    assert!(ended.is_ok(), "the oldest has made room");
}

/// Says who spoke and what was said.
struct Ears;

impl Listener for Ears {
    fn hear(&self, from: NodeId, message: Bytes) -> Hearing<'_> {
        Box::pin(async move { format!("{from} said {}", String::from_utf8_lossy(&message)).into_bytes() })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_tell_each_other_what_is_not_consensus_business_and_nobody_else_is_heard() {
    let cluster = Cluster::of(2).await;
    let [here, there] = &cluster.sites[..] else {
        panic!("two sites")
    };
    assert_eq!(here.node().others(), [there.id]);
    let tell = |message: Vec<u8>| here.node().tell(there.id, message, LIMIT);
    assert_eq!(tell(b"hi".to_vec()).await, Err(Unheard(there.id)), "nobody listens yet");
    there.node().listen(Arc::new(Ears));
    let said = format!("{} said hi", here.id).into_bytes();
    assert_eq!(tell(b"hi".to_vec()).await, Ok(said));
    assert!(tell(vec![b'x'; MESSAGE_BYTES_MAX]).await.is_ok());
    assert_eq!(tell(vec![b'x'; MESSAGE_BYTES_MAX + 1]).await, Err(Unheard(there.id)));
    let nobody = NodeId(77);
    assert_eq!(here.node().tell(nobody, Vec::new(), LIMIT).await, Err(Unheard(nobody)));
    // A certificate of the cluster is not enough: who speaks must be a member.
    let says = Says {
        cluster: "test",
        lease: LEASE,
        from: nobody,
        to: there.id,
    };
    let client = cluster.ca.client(Some((&cluster.ca, nobody)));
    let body = postcard::to_stdvec(&b"hi".to_vec()).unwrap();
    let refused = send(client, there.listen(), there.id, &says, "/peer/tell", body).await;
    assert_eq!(refused.map(|(status, _)| status), Ok(StatusCode::FORBIDDEN));
}
