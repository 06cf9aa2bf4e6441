//! Clients that take without giving, on real sockets: what each of them gets, and that others are served all the while.

use std::time::Duration;

use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;
use crate::clock::SystemClock;
use crate::places::Refused;

/// Limit of every wait here.
const LIMIT: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_millis(150);
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const LAST_GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A listener that waits for ever, but for what a test changes.
struct Open {
    at: SocketAddr,
    places: Arc<Places>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

fn patient() -> Waits {
    Waits {
        handshake: NEVER,
        first_bytes: NEVER,
        patience: Patience {
            head: NEVER,
            answer: NEVER,
        },
        idle: NEVER,
        ping: NEVER,
    }
}

async fn open(max: usize, waits: Waits, tls: Option<TlsAcceptor>) -> Open {
    open_with(max, waits, tls, None).await
}

async fn open_with(max: usize, waits: Waits, tls: Option<TlsAcceptor>, crew: Option<Crew>) -> Open {
    let listener = bind("test", ([127, 0, 0, 1], 0).into()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let places = Places::new(max, Arc::default());
    let stop = watch::Sender::new(false);
    let door = Door {
        listener,
        tls,
        places: Arc::clone(&places),
        waits,
        clock: Arc::new(SystemClock),
        crew,
    };
    let endless = || async {
        let piece = Bytes::from(vec![b'x'; 1 << 16]);
        Body::from_stream(futures_util::stream::repeat_with(move || {
            Ok::<_, Infallible>(piece.clone())
        }))
    };
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/", post(|body: Bytes| async move { format!("{} bytes", body.len()) }))
        .route(
            "/thread",
            get(|| async { std::thread::current().name().unwrap_or_default().to_owned() }),
        )
        .route("/endless", get(endless));
    let served = tokio::spawn(serve(door, router, stop.subscribe()));
    Open {
        at,
        places,
        stop,
        served,
    }
}

impl Open {
    /// A connection from 127.0.0.`host`.
    async fn connect(&self, host: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, host], 0).into()).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    /// What is said on a connection of its own until it is closed.
    async fn asked(&self, host: u8, sent: &str) -> String {
        let mut stream = self.connect(host).await;
        // Whoever is refused at once cannot be written to.
        stream.write_all(sent.as_bytes()).await.unwrap_or(());
        to_the_end(&mut stream).await
    }

    async fn taken(&self, places: usize) {
        until(|| self.places.open() == places).await;
    }
}

async fn until(mut done: impl FnMut() -> bool) {
    let waited = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waited)
        .await
        .expect("it comes about in time");
}

/// Everything until the other end closes.
async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await;
    // A reset is an end as well.
    drop(read.expect("the connection is closed in time"));
    String::from_utf8_lossy(&said).into_owned()
}

/// One answer of the router, on a connection that is kept.
async fn kept(stream: &mut TcpStream) {
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut said = String::new();
    while !said.ends_with("here") {
        let mut piece = [0; 1024];
        let read = tokio::time::timeout(LIMIT, stream.read(&mut piece))
            .await
            .expect("an answer")
            .unwrap();
        assert!(read > 0, "closed after {said:?}");
        said.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let door = open(16, patient(), None).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(door.connect(1).await);
    }
    door.taken(4).await;
    assert_eq!(door.asked(1, GET).await, "", "it is closed at once");
    assert!(door.asked(2, LAST_GET).await.starts_with("HTTP/1.1 200"));
    assert_eq!(door.places.refused(Refused::Share), 1);
    silent.pop();
    door.taken(3).await;
    assert!(
        door.asked(1, LAST_GET).await.starts_with("HTTP/1.1 200"),
        "a place came free"
    );
}

#[tokio::test]
async fn where_every_place_is_taken_the_next_is_closed_at_once() {
    let door = open(16, patient(), None).await;
    let mut silent = Vec::new();
    for host in 1..=16 {
        silent.push(door.connect(host).await);
    }
    door.taken(16).await;
    assert_eq!(door.asked(99, GET).await, "");
    assert_eq!(door.places.refused(Refused::Full), 1);
    silent.truncate(15);
    door.taken(15).await;
    assert!(door.asked(99, LAST_GET).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn when_places_are_short_nobody_keeps_one_for_later() {
    let door = open(16, patient(), None).await;
    let (mut idle, mut silent) = (door.connect(1).await, Vec::new());
    kept(&mut idle).await;
    kept(&mut idle).await;
    for host in 2..=14 {
        silent.push(door.connect(host).await);
    }
    assert_eq!(to_the_end(&mut idle).await, "", "fourteen of sixteen are taken");
    silent.push(door.connect(15).await);
    let said = door.asked(16, &GET.repeat(2)).await;
    assert!(said.starts_with("HTTP/1.1 200"), "whoever asks is answered: {said}");
    assert_eq!(said.matches("here").count(), 1, "once: {said}");
    assert!(said.contains("connection: close"), "{said}");
    silent.truncate(5);
    door.taken(5).await;
    let mut idle = door.connect(1).await;
    kept(&mut idle).await;
    kept(&mut idle).await;
}

#[tokio::test]
async fn silence_is_not_waited_for_for_ever() {
    let of = |change: fn(&mut Waits)| {
        let mut waits = patient();
        change(&mut waits);
        waits
    };
    let cases: [(&str, Waits, &str, usize); 5] = [
        ("no byte", of(|w| w.first_bytes = SOON), "", 0),
        ("half a preface", of(|w| w.first_bytes = SOON), "PRI * HT", 0),
        (
            "half a head",
            of(|w| w.patience.head = SOON),
            "GET / HTTP/1.1\r\nHost: x\r\n",
            0,
        ),
        (
            "half a head behind a request",
            of(|w| w.patience.head = SOON),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET",
            1,
        ),
        ("no further request", of(|w| w.idle = SOON), GET, 1),
    ];
    for (what, waits, sent, answers) in cases {
        let door = open(16, waits, None).await;
        let said = door.asked(1, sent).await;
        assert_eq!(said.matches("HTTP/1.1 200").count(), answers, "{what}: {said}");
    }
}

#[tokio::test]
async fn a_head_that_comes_in_drops_is_not_waited_for_for_ever() {
    let mut waits = patient();
    waits.patience.head = SOON;
    let door = open(16, waits, None).await;
    let (mut reader, mut writer) = door.connect(1).await.into_split();
    let dripping = async {
        writer.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SOON / 10).await;
        }
    };
    tokio::select! {
        () = dripping => {}
        ended = tokio::time::timeout(LIMIT, reader.read_u8()) => assert!(ended.expect("an end").is_err()),
    }
}

#[tokio::test]
async fn a_client_that_never_ends_its_side_of_the_handshake_is_let_go() {
    let certified = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let mut waits = patient();
    waits.handshake = SOON;
    let door = open(16, waits, Some(TlsAcceptor::from(Arc::new(config)))).await;
    for sent in ["", "\x16\x03\x01"] {
        assert_eq!(door.asked(1, sent).await, "");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_not_kept_for_ever() {
    let mut waits = patient();
    waits.patience.answer = SOON;
    let door = open(16, waits, None).await;
    let mut stream = door.connect(1).await;
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    door.taken(1).await;
    door.taken(0).await;
}

/// Speaks HTTP/2 by the byte: says hello, and answers so many pings.
async fn pings(mut stream: TcpStream, answered: usize) -> usize {
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut seen = 0;
    let mut head = [0; 9];
    while let Ok(read) = tokio::time::timeout(LIMIT, stream.read_exact(&mut head)).await {
        if read.is_err() {
            break;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if (head[3], head[4]) == (6, 0) {
            seen += 1;
            if seen <= answered {
                let pong = [&[0_u8, 0, 8, 6, 1, 0, 0, 0, 0][..], &payload].concat();
                stream.write_all(&pong).await.unwrap();
            }
        }
    }
    seen
}

#[tokio::test]
async fn an_http2_client_that_is_dead_is_noticed_and_one_that_only_rests_is_left_alone() {
    let mut waits = patient();
    waits.ping = SOON;
    let door = open(16, waits, None).await;
    assert_eq!(pings(door.connect(1).await, 0).await, 1, "asked once, and closed");
    assert_eq!(
        pings(door.connect(1).await, 3).await,
        4,
        "as long as it answers it stays"
    );
}

#[tokio::test]
async fn what_is_ambiguous_is_answered_with_400_and_what_is_in_chunks_is_the_last() {
    let door = open(16, patient(), None).await;
    let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}{GET}");
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let long = format!("X: {}\r\n", "x".repeat(33_000));
    let cases = [
        (
            "two framings",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks),
            vec!["400"],
        ),
        (
            "the same length twice",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            vec!["400"],
        ),
        ("a bare line feed", post("Content-Length: 5\n", "hello"), vec!["400"]),
        (
            "a bare line feed in the second request",
            format!("{}{}", GET, GET.replace("\r\n", "\n")),
            vec!["200", "400"],
        ),
        ("too long a head", post(&long, ""), vec!["431"]),
        (
            "chunks, and a request behind them",
            post("Transfer-Encoding: chunked\r\n", chunks),
            vec!["200"],
        ),
        (
            "a length, and a request behind it",
            post("Content-Length: 5\r\n", "hello") + LAST_GET,
            vec!["200"; 3],
        ),
    ];
    for (what, sent, statuses) in cases {
        let said = door.asked(1, &sent).await;
        let got: Vec<&str> = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(got, statuses, "{what}: {said}");
        if said.contains("5 bytes") && statuses.len() == 1 {
            assert!(said.contains("connection: close"), "{what}: {said}");
        }
    }
    let mut stream = door.connect(1).await;
    let expecting =
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(expecting.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert!(to_the_end(&mut stream).await.ends_with("5 bytes"));
}

#[tokio::test]
async fn a_listener_that_closes_waits_for_answers_and_for_nobody_who_is_silent() {
    let door = open(16, patient(), None).await;
    let mut half = door.connect(1).await;
    half.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    half.read_exact(&mut [0; 25]).await.unwrap();
    let mut silent = [door.connect(1).await, door.connect(1).await];
    kept(&mut silent[1]).await;
    door.taken(3).await;
    door.stop.send_replace(true);
    for stream in &mut silent {
        assert_eq!(to_the_end(stream).await, "");
    }
    half.write_all(b"hello").await.unwrap();
    let said = to_the_end(&mut half).await;
    assert!(
        said.ends_with("5 bytes") && said.contains("connection: close"),
        "{said}"
    );
    tokio::time::timeout(LIMIT, door.served).await.expect("an end").unwrap();
}

#[tokio::test]
async fn a_crew_serves_what_the_door_lets_in() {
    let ask = "GET /thread HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let door = open_with(10, patient(), None, Some(Crew::start().unwrap())).await;
    let answer = door.asked(1, ask).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nclients-"),
        "{answer}"
    );
    door.taken(0).await;
    let alone = open(10, patient(), None).await;
    assert!(!alone.asked(1, ask).await.contains("clients-"));
    // Its threads end with it.
    door.stop.send_replace(true);
    door.served.await.unwrap();
}
