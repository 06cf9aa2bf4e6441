//! HTTP/1.1 connections to servers, kept for the next request, each driven by the request that uses it.
//!
//! A pooled client usually gives every connection a task of its own. A call then goes from its task to that one, often on another
//! thread, and back. Here whoever waits for the answer reads and writes the connection: nothing is handed over, and an answer
//! that nobody wants any more ends its connection by being dropped. For the same reason every thread keeps its own.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use rustls::ClientConfig;
use thread_local::ThreadLocal;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use crate::connect::{BoxError, Connector, Stream};
use crate::reach::Reach;
use crate::{limits, timers};

/// Where a request goes: which connection, and what of its URL the server is told.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The whole URL: what is connected to.
    url: Uri,
    origin: Origin,
    /// Path and query.
    path: Uri,
    host: HeaderValue,
}

/// Whose connection it is.
type Origin = Arc<str>;

impl Target {
    /// The target of a URL. None if it names no host, or not one that a header can carry.
    pub(crate) fn of(url: &Uri) -> Option<Target> {
        let authority = url.authority()?;
        let scheme = url.scheme().unwrap_or(&Scheme::HTTP);
        // Who is let in stands in headers, never in the URL of a request.
        let host = authority.as_str().rsplit('@').next()?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Some(Target {
            url: url.clone(),
            origin: format!("{scheme}://{host}").into(),
            path: path.parse().ok()?,
            host: HeaderValue::try_from(host).ok()?,
        })
    }

    /// The `Host` header of its requests.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }
}

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailed {
    /// There is no connection: nothing was sent.
    #[error("no connection")]
    Connect(#[source] BoxError),
    /// It was sent, at least in part.
    #[error("no answer")]
    Exchange(#[source] hyper::Error),
    /// The limit passed.
    #[error("no answer in time")]
    Late,
}

/// Connections, by origin. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    connector: Connector,
    /// Of each thread its own: a connection is woken by the runtime in which it was made, and threads may have one each.
    idle: ThreadLocal<Arc<Mutex<Idle>>>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is at the end. With each the tick at which it became idle.
    by_origin: HashMap<Origin, VecDeque<(Link, u64)>>,
    /// Whether a task closes what is idle for too long.
    watched: bool,
    /// Counted by that task: time is a timer here, and no clock is read.
    tick: u64,
}

/// One connection: where requests go in, and what moves their bytes when it is polled.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    io: Pin<Box<http1::Connection<Stream, Full<Bytes>>>>,
    closed: bool,
    /// When to give up what is waited for. One for the life of the connection: to put a timer off costs nothing, to register one
    /// takes a lock that all of them share.
    alarm: Pin<Box<Sleep>>,
    /// Where it goes when it is idle.
    origin: Origin,
    home: Weak<Mutex<Idle>>,
}

/// Why there is no head of an answer.
enum NoHead {
    Failed(Box<TrySendError<Request<Full<Bytes>>>>),
    Late,
}

impl Pool {
    /// A pool that trusts what `tls` trusts, and connects to what `reach` allows.
    pub(crate) fn new(tls: Arc<ClientConfig>, reach: Reach) -> Pool {
        Pool(Arc::new(Shared {
            connector: Connector::new(tls, reach),
            idle: ThreadLocal::new(),
        }))
    }

    /// Sends a request and waits for the head of its answer, no longer than `limit`. URI and `Host` are the target's. A connection
    /// that turns out to have been closed meanwhile is replaced, as long as nothing of the request went into it.
    pub(crate) async fn request(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Response<Answer>, SendFailed> {
        let until = timers::from_now(limit);
        *request.uri_mut() = target.path.clone();
        request
            .headers_mut()
            .entry(header::HOST)
            .or_insert_with(|| target.host.clone());
        loop {
            let kept = self.kept(target).await;
            let fresh = kept.is_none();
            let mut link = match kept {
                Some(link) => link,
                None => tokio::time::timeout_at(until, self.connect(target))
                    .await
                    .unwrap_or(Err(SendFailed::Late))?,
            };
            match link.exchange(request, until).await {
                Ok(answer) => return Ok(answer.map(|incoming| Answer::new(incoming, link))),
                Err(NoHead::Late) => return Err(SendFailed::Late),
                Err(NoHead::Failed(mut failed)) => match failed.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    Some(_) | None => return Err(SendFailed::Exchange((*failed).into_error())),
                },
            }
        }
    }

    /// The connection of this thread to this target that was used last, if it still stands.
    async fn kept(&self, target: &Target) -> Option<Link> {
        loop {
            let (mut link, _) = locked(self.idle()).by_origin.get_mut(&target.origin)?.pop_back()?;
            // What the server has closed says so when it is read.
            poll_fn(|cx| {
                link.drive(cx);
                Poll::Ready(())
            })
            .await;
            if !link.closed && link.sender.is_ready() {
                return Some(link);
            }
        }
    }

    /// What this thread keeps.
    fn idle(&self) -> &Arc<Mutex<Idle>> {
        self.0.idle.get_or_default()
    }

    async fn connect(&self, target: &Target) -> Result<Link, SendFailed> {
        let mut connector = self.0.connector.clone();
        let stream = connector.call(target.url.clone()).await.map_err(SendFailed::Connect)?;
        let made = http1::Builder::new()
            .max_buf_size(limits::READ_BYTES_MAX)
            .handshake(stream)
            .await;
        let (sender, io) = made.map_err(|error| SendFailed::Connect(error.into()))?;
        Ok(Link {
            sender,
            io: Box::pin(io),
            closed: false,
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            origin: target.origin.clone(),
            home: Arc::downgrade(self.idle()),
        })
    }
}

/// How many ticks a connection may be idle: below what servers allow, so that it is us who close it.
const IDLE_TICKS: u64 = 4;
const TICK: Duration = Duration::from_millis(limits::POOL_IDLE_MS / IDLE_TICKS);

fn locked(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Idle {
    /// Keeps a connection for the next request. Says whether nobody closes yet what is idle for too long.
    fn keep(&mut self, link: Link) -> bool {
        let now = self.tick;
        match self.by_origin.get_mut(&link.origin) {
            Some(links) if links.len() >= limits::POOL_IDLE_MAX => return false,
            Some(links) => links.push_back((link, now)),
            None => {
                self.by_origin
                    .insert(link.origin.clone(), VecDeque::from([(link, now)]));
            }
        }
        !std::mem::replace(&mut self.watched, true)
    }

    /// Closes what was idle for too long. Says whether anything is left.
    fn close_old(&mut self) -> bool {
        self.tick += 1;
        let now = self.tick;
        self.by_origin.retain(|_, links| {
            // The oldest stands first.
            while links.front().is_some_and(|(_, since)| now - *since >= IDLE_TICKS) {
                links.pop_front();
            }
            !links.is_empty()
        });
        self.watched = !self.by_origin.is_empty();
        self.watched
    }
}

async fn close_idle(idle: Weak<Mutex<Idle>>) {
    loop {
        tokio::time::sleep(TICK).await;
        match idle.upgrade() {
            Some(idle) if locked(&idle).close_old() => {}
            Some(_) | None => return,
        }
    }
}

impl Link {
    /// Moves bytes, as far as it goes now.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.closed {
            // An error of the connection reaches the request or the body that waits for it.
            self.closed = self.io.as_mut().poll(cx).is_ready();
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>, until: Instant) -> Result<Response<Incoming>, NoHead> {
        self.alarm.as_mut().reset(until);
        let mut answering = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.drive(cx);
            // The answer can only come out of the connection, which was just polled: nobody has to be woken for it.
            match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answered) => Poll::Ready(answered.map_err(|error| NoHead::Failed(Box::new(error)))),
                Poll::Pending => timers::poll(&mut self.alarm, cx).map(|()| Err(NoHead::Late)),
            }
        })
        .await
    }

    /// Gives it back to the pool it came from.
    fn go_home(self) {
        let Some(home) = self.home.upgrade().filter(|_| !self.closed) else {
            return;
        };
        if !locked(&home).keep(self) {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(close_idle(Arc::downgrade(&home)))),
            Err(_) => locked(&home).watched = false,
        }
    }
}

/// The body of an answer. Read to its end it gives its connection back; dropped before, it closes it.
pub(crate) struct Answer {
    incoming: Incoming,
    link: Option<Link>,
    /// Whether the alarm is set for what is waited for now.
    alarmed: bool,
}

/// Why the next piece of a body did not come.
#[derive(Debug)]
pub(crate) enum NoData {
    Failed(hyper::Error),
    /// The limit passed.
    Late,
}

impl Answer {
    fn new(incoming: Incoming, link: Link) -> Answer {
        Answer {
            incoming,
            link: Some(link),
            alarmed: false,
        }
    }

    /// From now on it is the next message that is waited for.
    pub(crate) fn begin_wait(&mut self) {
        self.alarmed = false;
    }

    /// The next piece; none at the end. Waits no longer than `limit` from when nothing was there for the first time after
    /// [`Answer::begin_wait`].
    pub(crate) async fn next_data(&mut self, limit: Duration) -> Result<Option<Bytes>, NoData> {
        poll_fn(|cx| {
            loop {
                let Poll::Ready(next) = Pin::new(&mut *self).poll_frame(cx) else {
                    return self.poll_alarm(limit, cx).map(|()| Err(NoData::Late));
                };
                match next.map(|frame| frame.map(Frame::into_data)) {
                    None => return Poll::Ready(Ok(None)),
                    Some(Err(error)) => return Poll::Ready(Err(NoData::Failed(error))),
                    Some(Ok(Ok(data))) => return Poll::Ready(Ok(Some(data))),
                    // Trailers say nothing to us.
                    Some(Ok(Err(_))) => {}
                }
            }
        })
        .await
    }

    fn poll_alarm(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let Some(link) = &mut self.link else {
            return Poll::Pending;
        };
        if !std::mem::replace(&mut self.alarmed, true) {
            link.alarm.as_mut().reset(timers::from_now(limit));
        }
        timers::poll(&mut link.alarm, cx)
    }

    fn poll_incoming(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // As above: what is not there yet comes by driving the connection.
        Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            link.go_home();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let answer = self.get_mut();
        let mut next = answer.poll_incoming();
        if let (Poll::Pending, Some(link)) = (&next, &mut answer.link) {
            link.drive(cx);
            next = answer.poll_incoming();
        }
        match &next {
            Poll::Ready(None) => answer.give_back(),
            Poll::Ready(Some(Ok(_))) if answer.incoming.is_end_stream() => answer.give_back(),
            Poll::Ready(Some(Err(_))) => answer.link = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Answer {
    /// Of an answer without a body nobody reads the end.
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that answers each request on a connection with the next of `answers`, and closes the connection after the last.
    /// Counts connections.
    async fn server(answers: &'static [&'static str]) -> (Target, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/mcp?x=1", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, answers));
            }
        });
        (Target::of(&url).unwrap(), connections)
    }

    async fn serve(mut stream: TcpStream, answers: &[&str]) {
        for answer in answers {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n{}") {
                match stream.read_buf(&mut request).await {
                    Ok(bytes) if bytes > 0 => {}
                    _ => return,
                }
            }
            let text = String::from_utf8(request).unwrap();
            assert!(text.starts_with("POST /mcp?x=1 HTTP/1.1\r\n"), "{text}");
            assert!(text.to_lowercase().contains("\r\nhost: 127.0.0.1:"), "{text}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    const SHORT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const NOTHING: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok";

    fn pool() -> Pool {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Pool::new(Arc::new(tls), Reach::anywhere())
    }

    async fn ask(pool: &Pool, target: &Target) -> Result<Response<Answer>, SendFailed> {
        let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
        *request.method_mut() = http::Method::POST;
        pool.request(target, request, Duration::from_secs(5)).await
    }

    async fn ask_and_read(pool: &Pool, target: &Target) -> Bytes {
        let answer = ask(pool, target).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn requests_one_after_the_other_share_a_connection() {
        let (target, connections) = server(&[SHORT, SHORT, NOTHING, SHORT]).await;
        let pool = pool();
        assert_eq!(ask_and_read(&pool, &target).await, "ok");
        assert_eq!(ask_and_read(&pool, &target).await, "ok");
        // Whoever is told nothing reads nothing.
        drop(ask(&pool, &target).await.unwrap());
        assert_eq!(ask_and_read(&pool, &target).await, "ok");
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn requests_at_once_have_a_connection_each() {
        let (target, connections) = server(&[SHORT, SHORT]).await;
        let pool = pool();
        let (one, other) = tokio::join!(ask(&pool, &target), ask(&pool, &target));
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        for answer in [one, other] {
            assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
        }
        assert_eq!(locked(pool.idle()).by_origin[&target.origin].len(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closed_is_replaced() {
        let (target, connections) = server(&[SHORT]).await;
        let pool = pool();
        for round in 1..=20 {
            assert_eq!(ask_and_read(&pool, &target).await, "ok");
            assert_eq!(connections.load(Ordering::SeqCst), round);
            // Where the end of the connection came with the answer, it is not kept at all. Otherwise it is on its way.
            let kept = locked(pool.idle())
                .by_origin
                .get_mut(&target.origin)
                .and_then(VecDeque::pop_back);
            let Some((mut link, _)) = kept else { continue };
            poll_fn(|cx| {
                link.drive(cx);
                if link.closed { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            link.go_home();
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_to_its_end_closes_its_connection() {
        let (target, connections) = server(&[HALF, SHORT]).await;
        let pool = pool();
        drop(ask(&pool, &target).await.unwrap());
        assert!(locked(pool.idle()).by_origin.is_empty());
        let answer = ask(&pool, &target).await.unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        assert!(answer.status().is_success());
    }

    #[tokio::test]
    async fn a_connection_that_breaks_within_an_answer_is_an_error_and_not_kept() {
        let (target, _) = server(&[HALF]).await;
        let pool = pool();
        let answer = ask(&pool, &target).await.unwrap();
        assert!(answer.into_body().collect().await.is_err());
        assert!(locked(pool.idle()).by_origin.is_empty());
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_an_answer_that_did_not_come() {
        let pool = pool();
        let nobody = Target::of(&Uri::from_static("http://127.0.0.1:1/mcp?x=1")).unwrap();
        assert!(matches!(ask(&pool, &nobody).await, Err(SendFailed::Connect(_))));
        let (mute, _) = server(&[]).await;
        assert!(matches!(ask(&pool, &mute).await, Err(SendFailed::Exchange(_))));
    }

    #[tokio::test]
    async fn every_thread_keeps_connections_of_its_own() {
        let (target, connections) = server(&[SHORT, SHORT]).await;
        let pool = pool();
        let (other, there) = (pool.clone(), target.clone());
        let elsewhere = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                assert_eq!(ask_and_read(&other, &there).await, "ok");
                assert_eq!(ask_and_read(&other, &there).await, "ok");
            });
        };
        assert!(locked(pool.idle()).by_origin.is_empty());
        tokio::task::spawn_blocking(elsewhere).await.unwrap();
        assert!(locked(pool.idle()).by_origin.is_empty());
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        assert_eq!(ask_and_read(&pool, &target).await, "ok");
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_for_too_long_is_closed() {
        let (target, _) = server(&[SHORT, SHORT]).await;
        let pool = pool();
        assert_eq!(ask_and_read(&pool, &target).await, "ok");
        assert!(locked(pool.idle()).watched);
        tokio::time::sleep(TICK * 6).await;
        assert!(locked(pool.idle()).by_origin.is_empty());
        assert!(!locked(pool.idle()).watched);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_head_nor_a_body_is_waited_for_longer_than_was_said() {
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", mute.local_addr().unwrap());
        let target = Target::of(&url.parse().unwrap()).unwrap();
        let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
        *request.method_mut() = http::Method::POST;
        let late = pool().request(&target, request, TICK).await;
        assert!(matches!(late, Err(SendFailed::Late)));
        let (target, _) = server(&[HALF, SHORT]).await;
        let mut body = ask(&pool(), &target).await.unwrap().into_body();
        assert_eq!(body.next_data(TICK).await.unwrap().unwrap(), "ok");
        body.begin_wait();
        let mut almost = pin!(tokio::time::sleep(TICK - Duration::from_millis(10)));
        let early = tokio::select! { _ = body.next_data(TICK) => true, () = &mut almost => false };
        assert!(!early);
        assert!(matches!(body.next_data(TICK).await, Err(NoData::Late)));
    }

    #[test]
    fn the_server_is_told_the_host_and_never_the_credentials_of_a_url() {
        let target = Target::of(&Uri::from_static("https://user:secret@example.com:8443")).unwrap();
        assert_eq!(
            (target.host.to_str().unwrap(), target.path.path()),
            ("example.com:8443", "/")
        );
        assert!(!target.origin.contains("secret"));
        assert!(Target::of(&Uri::from_static("/mcp")).is_none());
    }
}
