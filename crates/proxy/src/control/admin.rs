//! The admin port: `/healthz` for who restarts the process, `/readyz` for who sends clients to it, `/metrics` for Prometheus.
//!
//! It speaks to probes, not to clients, and shares the control plane's thread: a connection lives for one request and a few
//! seconds, and there are few at a time, so that whoever floods it hurts nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::health::Health;
use super::metrics::Exposition;
use crate::net::listener::Acceptor;
use crate::net::socket::Stream;

/// Connections served at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// From accepting a connection to its end.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// What a request and its headers may take; hyper's minimum.
const MAX_HEAD: usize = 8 * 1024;
/// After an error of the machine's.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What the admin port tells of.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) health: Health,
    pub(super) metrics: Exposition,
}

/// Adds to `tasks` what serves until they end.
pub(super) fn start(tasks: &mut JoinSet<()>, admin: Admin, acceptors: Vec<Acceptor>) {
    let admin = Arc::new(admin);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for acceptor in acceptors {
        tasks.spawn(accept_all(Arc::clone(&admin), acceptor, Arc::clone(&slots)));
    }
}

async fn accept_all(admin: Arc<Admin>, acceptor: Acceptor, slots: Arc<Semaphore>) {
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match acceptor.accept().await {
            Ok(stream) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    // Whoever is cut off, or breaks the protocol, has only itself to tell.
                    let _ = timeout(CONNECTION_TIME, serve(admin, stream)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!("the admin port cannot accept a connection: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(admin: Arc<Admin>, stream: Stream) -> anyhow::Result<()> {
    match stream {
        Stream::Tcp(stream) => serve_one(admin, TcpStream::from_std(stream)?).await,
        Stream::Unix(stream) => serve_one(admin, UnixStream::from_std(stream)?).await,
    }
}

async fn serve_one(admin: Arc<Admin>, stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    let service = service_fn(|request| {
        let response = admin.respond(&request);
        async { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

impl Admin {
    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let answer: fn(&Self) -> Response<Full<Bytes>> = match request.uri().path() {
            "/healthz" => |_| text(StatusCode::OK, "ok"),
            "/readyz" => Self::readyz,
            "/metrics" => Self::metrics,
            _ => return text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics"),
        };
        match *request.method() {
            Method::GET | Method::HEAD => answer(self),
            _ => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "this is only to be read");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        match self.health.check() {
            Ok(()) => text(StatusCode::OK, "ready"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        response(StatusCode::OK, HeaderValue::from_static(Exposition::CONTENT_TYPE), self.metrics.text())
    }
}

fn text(status: StatusCode, line: impl std::fmt::Display) -> Response<Full<Bytes>> {
    response(status, TEXT, format!("{line}\n"))
}

fn response(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::Ordering;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::control::fixture;

    fn admin() -> Arc<Admin> {
        let (shared, _) = fixture::shared(&[]);
        let (health, _) = Health::new(Arc::clone(&shared));
        Arc::new(Admin { metrics: Exposition::new(shared, health.clone()), health })
    }

    fn connect(admin: &Arc<Admin>) -> DuplexStream {
        let (client, server) = duplex(64 * 1024);
        let admin = Arc::clone(admin);
        tokio::spawn(async move { timeout(CONNECTION_TIME, serve_one(admin, server)).await });
        client
    }

    /// The whole answer to `request`, at whose end the connection is closed.
    async fn answer(admin: &Arc<Admin>, request: &str) -> String {
        let mut client = connect(admin);
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(admin: &Arc<Admin>, path: &str) -> String {
        answer(admin, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    #[tokio::test]
    async fn it_is_alive_also_when_it_is_not_ready_and_says_why_it_is_not() {
        let admin = admin();
        assert!(get(&admin, "/healthz").await.starts_with("HTTP/1.1 200 "));
        let answer = get(&admin, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nthe upstream has not answered yet\n"), "{answer}");
    }

    #[tokio::test]
    async fn metrics_come_with_their_content_type_and_end() {
        let answer = get(&admin(), "/metrics?x=y").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.ends_with("\n# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn other_paths_and_other_methods_are_refused() {
        let admin = admin();
        for path in ["/", "/healthz/", "/Metrics", "//metrics"] {
            let answer = get(&admin, path).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "FOO"] {
            let request = format!("{method} /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            let answer = answer(&admin, &request).await;
            assert!(
                answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"),
                "{method}: {answer}"
            );
        }
        let head = answer(&admin, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_request_larger_than_any_probes_is_refused() {
        let request = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        let answer = answer(&admin(), &request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_holds_a_connection_for_a_few_seconds_only() {
        let mut client = connect(&admin());
        let began = Instant::now();
        client.write_all(b"GET /healthz HT").await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(began.elapsed() <= CONNECTION_TIME, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn it_is_not_ready_once_a_shutdown_has_begun() {
        let (shared, _) = fixture::shared(&[]);
        let (health, pings) = Health::new(Arc::clone(&shared));
        let admin = Arc::new(Admin { metrics: Exposition::new(Arc::clone(&shared), health.clone()), health });
        pings.send_replace(super::super::health::LastPing::Answered(Instant::now()));
        assert!(get(&admin, "/readyz").await.starts_with("HTTP/1.1 200 "));
        shared.draining.store(true, Ordering::Release);
        assert!(get(&admin, "/readyz").await.starts_with("HTTP/1.1 503 "));
    }
}
