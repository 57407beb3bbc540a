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
