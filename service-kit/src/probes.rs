//! The plain HTTP listener: `/metrics` (Prometheus text), `/livez`, `/readyz`.
//!
//! It answers whoever reaches it, so it takes little: GET and HEAD, small requests in time, one to a
//! connection, few connections.

use std::{convert::Infallible, fmt::Write as _, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::health_state::Health;

const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// From accept to the last byte of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The least that hyper takes.
const BUFFER_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 32;
/// After an accept error, for instance when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `shutdown`; then lets open connections end, which takes at most ten seconds.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) {
    let probes = Arc::new(Probes { health, metrics });
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = TaskTracker::new();
    let accept = async {
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let probes = Arc::clone(&probes);
                    open.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = probes.answer(stream).await {
                            tracing::debug!(%error, "a probe connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a probe connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(accept).await;
    drop(listener);
    open.close();
    open.wait().await;
}

struct Probes {
    health: Health,
    metrics: PrometheusHandle,
}

impl Probes {
    async fn answer(&self, stream: TcpStream) -> io::Result<()> {
        let service = service_fn(|request| async move { Ok::<_, Infallible>(self.route(&request)) });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
            Ok(outcome) => outcome.map_err(io::Error::other),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn route(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => respond(StatusCode::OK, TEXT, "alive\n".to_owned()),
            "/readyz" => self.readiness(),
            "/metrics" => {
                self.metrics.run_upkeep();
                respond(StatusCode::OK, PROMETHEUS, self.metrics.render())
            }
            _ => respond(StatusCode::NOT_FOUND, TEXT, "/metrics, /livez or /readyz\n".to_owned()),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let mut unmet = String::new();
        for (name, state) in self.health.conditions() {
            if let Err(why) = state {
                writeln!(unmet, "{name}: {why}").expect("a String takes all");
            }
        }
        if unmet.is_empty() {
            respond(StatusCode::OK, TEXT, "ready\n".to_owned())
        } else {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, unmet)
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// No step of a test takes longer.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Served {
        address: SocketAddr,
        health: Health,
        shutdown: CancellationToken,
    }

    async fn served() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (health, shutdown) = (Health::new(["store"]), CancellationToken::new());
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::counter!("probed_total").increment(3));
        tokio::spawn(serve(listener, health.clone(), recorder.handle(), shutdown.clone()));
        Served { address, health, shutdown }
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let talk = async {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            // A reset after the answer is an end too.
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).expect("text")
        };
        tokio::time::timeout(PATIENCE, talk).await.expect("answered in time")
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
    }

    #[tokio::test]
    async fn probes_tell_life_readiness_and_metrics() {
        let served = served().await;
        assert!(exchange(served.address, &get("/livez")).await.starts_with("HTTP/1.1 200"));
        let unready = exchange(served.address, &get("/readyz")).await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("store: starting\n"), "{unready}");
        served.health.set("store", Ok(()));
        assert!(exchange(served.address, &get("/readyz")).await.starts_with("HTTP/1.1 200"));
        let metrics = exchange(served.address, &get("/metrics")).await;
        assert!(metrics.contains("probed_total 3"), "{metrics}");
        assert!(exchange(served.address, &get("/other")).await.starts_with("HTTP/1.1 404"));
        served.shutdown.cancel();
    }

    #[tokio::test]
    async fn only_small_reads_in_time_are_answered() {
        let served = served().await;
        let post = "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        assert!(exchange(served.address, post).await.starts_with("HTTP/1.1 405"));
        let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * BUFFER_BYTES_MAX));
        assert!(!exchange(served.address, &long).await.starts_with("HTTP/1.1 200"));
        // A request that never ends: the connection is closed from the other side.
        assert!(!exchange(served.address, "GET /livez HTTP/1.1\r\nhost").await.starts_with("HTTP/1.1 200"));
        served.shutdown.cancel();
    }
}
