//! What goes further and what does not, however it is cut into pieces, and whether hyper sees the same requests in it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::guarded::{Guarded, Patience};

const LIMIT: Duration = Duration::from_secs(60);

/// How many of these bytes go further, cut at these places; all of them, or fewer because something is refused.
fn passed(bytes: &[u8], cuts: &[usize]) -> usize {
    let mut framing = Framing::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        if let Err(good) = framing.follow(&bytes[from..to]) {
            return from + good;
        }
        from = to;
    }
    bytes.len()
}

#[test]
fn what_is_ambiguous_goes_no_further() {
    let good = [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\na\nb\rGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-LENGTH:\t 0 \r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n\n\r\0 whatever\n\n",
        "GET / HTTP/1.1\r\nContent-Length-Of-Something: a, b\r\nTransfer-Encodings: x\r\nC: 1\r\nT: 1\r\n\r\n",
    ];
    for text in good {
        assert_eq!(passed(text.as_bytes(), &[]), text.len(), "{text:?}");
    }
    // Everything before the stroke goes further, and nothing behind it.
    let refused = [
        "GET / HTTP/1.1|\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x|\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n|\n",
        "|\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r|y: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r|\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r|\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1, 1\r|\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +1\r|\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: \r|\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1234567890123456789\r|\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r|\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r|\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r|\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r|\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r|\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r|\n\r\n",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1|\n\r\n",
    ];
    let padded = format!("POST / HTTP/1.1\r\nContent-Length:{:60}1\r|\n\r\n", "");
    for text in refused.into_iter().chain([padded.as_str()]) {
        let at = text.find('|').unwrap();
        let sent = text.replacen('|', "", 1);
        assert_eq!(passed(sent.as_bytes(), &[]), at, "{text:?}");
        for cut in 0..sent.len() {
            assert_eq!(passed(sent.as_bytes(), &[cut]), at, "{text:?} cut at {cut}");
        }
    }
}

/// Requests, most of them good, in all kinds of states.
fn conversations() -> impl Strategy<Value = Vec<u8>> {
    let end =
        prop_oneof![60 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\r\n"), 1 => Just("\n\r\n")];
    let start = prop_oneof![
        20 => Just("POST /a HTTP/1.1"),
        5 => Just("GET /b HTTP/1.1"),
        2 => Just("POST /c HTTP/1.0"),
        1 => Just("\r\nPOST /d HTTP/1.1"),
        1 => Just("POST /e"),
        1 => Just("PRI * HTTP/2.0"),
    ];
    let header = prop_oneof![
        12 => Just("Host: x"),
        12 => Just("Content-Length: 5"),
        3 => Just("content-length:0"),
        3 => Just("Content-Length: 37"),
        1 => Just("Content-Length: 5, 5"),
        1 => Just("Content-Length : 5"),
        1 => Just("Content-Length: 0x5"),
        1 => Just("Content-Length: 005"),
        1 => Just(" Content-Length: 5"),
        1 => Just("\tfolded"),
        3 => Just("Transfer-Encoding: chunked"),
        1 => Just("Transfer-Encoding: gzip, chunked"),
        1 => Just("Transfer-Encoding:\tchunked\t"),
        1 => Just("Transfer-Encoding : chunked"),
        1 => Just("Transfer-Encoding: chunked, gzip"),
        2 => Just("Connection: close"),
        2 => Just("Expect: 100-continue"),
        1 => Just("X: \u{0}"),
        1 => Just("X"),
        1 => Just(""),
        2 => Just("Upgrade: x"),
        2 => Just("X-Long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ];
    let body = prop_oneof![
        10 => Just("hello"),
        5 => Just(""),
        2 => Just("5\r\nhello\r\n0\r\n\r\n"),
        2 => Just("GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"),
        1 => Just("\n\r\n\r"),
    ];
    let request = (start, end.clone(), vec((header, end.clone()), 0..4), end, body);
    vec(request, 1..5).prop_map(|requests| {
        let mut text = String::new();
        for (start, its_end, headers, end, body) in requests {
            text.extend([start, its_end]);
            text.extend(headers.into_iter().flat_map(|(header, its_end)| [header, its_end]));
            text.extend([end, body]);
        }
        text.into_bytes()
    })
}

/// One request as somebody sees it: its body, or nothing where that is in chunks.
type Seen = Option<Vec<u8>>;

/// The requests that stand in bytes of which all may go further; the last one may be cut short.
fn requests(bytes: &[u8]) -> Vec<Seen> {
    let mut framing = Framing::new();
    let mut seen = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        let before = framing.requested;
        framing.follow(&[*byte]).unwrap();
        if before && !framing.requested {
            seen.push(match framing.at {
                At::Unfollowed => None,
                At::Head => Some(Vec::new()),
                At::Body(length) => {
                    let from = at + 1;
                    let to = bytes.len().min(from + usize::try_from(length).unwrap());
                    Some(bytes[from..to].to_vec())
                }
            });
        }
    }
    seen
}

/// What hyper makes of bytes, behind the guard or without it: the requests, and the statuses that it answers with.
fn served(bytes: &[u8], cuts: &[usize], guarded: bool) -> (Vec<Seen>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let into = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let into = Arc::clone(&into);
        async move {
            let chunked = request.headers().contains_key(TRANSFER_ENCODING);
            let at = {
                let mut into = into.lock().unwrap();
                into.push((!chunked).then(Vec::new));
                into.len() - 1
            };
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let (Some(data), Some(all)) = (frame.data_ref(), &mut into.lock().unwrap()[at]) {
                    all.extend_from_slice(data);
                }
            }
            let mut answer = Response::new(Full::new(Bytes::new()));
            if chunked {
                answer.headers_mut().insert(CONNECTION, "close".parse().unwrap());
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let talked = async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut builder = http1::Builder::new();
        // The client says everything and then only listens.
        builder.half_close(true);
        let hour = Duration::from_secs(3600);
        let patience = Patience {
            head: hour,
            answer: hour,
        };
        let serving = async {
            if !guarded {
                return builder
                    .serve_connection(TokioIo::new(server), service)
                    .await
                    .unwrap_or(());
            }
            if let Some(server) = Guarded::begin(server, patience).await.unwrap() {
                builder
                    .serve_connection(TokioIo::new(server), service)
                    .await
                    .unwrap_or(());
            }
        };
        let saying = async {
            let mut from = 0;
            for to in cuts.iter().copied().chain([bytes.len()]) {
                // A server that has refused does not listen any more.
                client.write_all(&bytes[from..to]).await.unwrap_or(());
                tokio::task::yield_now().await;
                from = to;
            }
            client.shutdown().await.unwrap_or(());
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap_or(0);
            said
        };
        tokio::join!(serving, saying).1
    };
    let said = runtime.block_on(async { tokio::time::timeout(LIMIT, talked).await.expect("an end") });
    let said = String::from_utf8(said).unwrap();
    let statuses = said.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned());
    let statuses = statuses.filter(|status| status != "100").collect();
    (std::mem::take(&mut seen.lock().unwrap()), statuses)
}

fn cut(bytes: &[u8], at: &[prop::sample::Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = at.iter().map(|at| at.index(bytes.len())).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_does_not_matter_how_bytes_are_cut(bytes in conversations(), at in vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = passed(&bytes, &[]);
        prop_assert_eq!(passed(&bytes, &cut(&bytes, &at)), whole);
        let every: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(passed(&bytes, &every), whole);
    }

    /// What goes further is for hyper the same requests, as far as it takes them.
    #[test]
    fn hyper_sees_the_requests_that_we_see(bytes in conversations()) {
        let let_through = &bytes[..passed(&bytes, &[])];
        let (by_hyper, statuses) = served(let_through, &[], false);
        let by_us = requests(let_through);
        prop_assert!(by_us.starts_with(&by_hyper), "{by_us:?} is not how hyper sees it: {by_hyper:?}");
        if statuses.iter().all(|status| status == "200") && by_hyper.len() < by_us.len() {
            // It has not refused anything: then somebody has asked it to close.
            let text = String::from_utf8_lossy(let_through);
            prop_assert!(["close", "HTTP/1.0", "chunked", "PRI "].iter().any(|why| text.contains(why)), "{text:?}");
        }
    }

    /// Whatever is refused is answered with 400 and is the end, and no byte is lost or comes twice, wherever the cuts are.
    #[test]
    fn behind_the_guard_hyper_answers_the_same_to_every_cut(bytes in conversations(), at in vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = served(&bytes, &[], true);
        prop_assert_eq!(&served(&bytes, &cut(&bytes, &at), true), &whole);
        let let_through = passed(&bytes, &[]);
        let (by_hyper, answers) = served(&bytes[..let_through], &[], false);
        prop_assert!(whole.0.starts_with(&by_hyper[..by_hyper.len().min(whole.0.len())]));
        let ended = answers.iter().any(|status| status != "200") || requests(&bytes[..let_through]).len() > by_hyper.len();
        if let_through < bytes.len() && !ended {
            let text = String::from_utf8_lossy(&bytes);
            let closes = ["close", "HTTP/1.0", "PRI "].iter().any(|why| text.contains(why));
            prop_assert!(closes || whole.1.last().is_some_and(|status| status == "400"), "{:?} got {:?}", text, whole);
        }
    }
}
