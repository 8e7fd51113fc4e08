//! The metrics over HTTP: `/metrics` for Prometheus, `/healthz` for whoever restarts what hangs.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, SystemTime},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinHandle;

use super::{ClientCounts, ServeError, clients::Clients};
use crate::telemetry::metrics::{Exposition, Metrics};

/// How long to wait after the kernel could not hand over a client (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request's head; the smallest that hyper allows.
const MAX_HEAD: usize = 8192;

/// The running server. Dropping it ends it.
#[derive(Debug)]
pub struct MetricsServer {
    task: JoinHandle<()>,
    counts: Arc<ClientCounts>,
    address: SocketAddr,
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MetricsServer {
    /// Answers at `address` from now on; port 0 takes a free one. Needs a tokio runtime around it.
    pub fn start(address: SocketAddr, metrics: Metrics) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let counts = Arc::new(ClientCounts::default());
        let clients = Clients::new(Arc::clone(&counts));
        Ok(Self {
            task: tokio::spawn(accept(listener, clients, Arc::new(metrics))),
            counts,
            address,
        })
    }

    /// How many clients there are.
    #[must_use]
    pub fn clients(&self) -> &ClientCounts {
        &self.counts
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: tokio::net::TcpListener, mut clients: Clients, metrics: Arc<Metrics>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        let service = service_fn(move |request| {
            let response = respond(&request, &metrics);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        clients
            .serve(async move {
                // A client that goes away, or talks nonsense, is nobody's trouble but its own.
                let _ = connection.await;
            })
            .await;
    }
}

fn respond(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered\n".to_owned(),
        );
    }
    match request.uri().path() {
        "/metrics" => {
            let wanted = request
                .headers()
                .get(ACCEPT)
                .and_then(|value| value.to_str().ok());
            let exposition = Exposition::wanted(wanted.unwrap_or_default());
            match metrics.encode(exposition) {
                Ok(text) => typed(StatusCode::OK, exposition.content_type(), text),
                Err(error) => plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("writing the metrics: {error}\n"),
                ),
            }
        }
        "/healthz" => match metrics.staleness(SystemTime::now().into()) {
            None => plain(StatusCode::OK, "ok\n".to_owned()),
            Some(age) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "the agent has not been heard of for {} s; it hangs\n",
                    age.as_secs()
                ),
            ),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /metrics and /healthz\n".to_owned(),
        ),
    }
}

fn plain(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(code, "text/plain; charset=utf-8", text)
}

fn typed(code: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
