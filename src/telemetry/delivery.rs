//! Between the SDK's batches and the collector: a collector that is down costs nothing but memory within a bound, and
//! gets what it missed when it is back.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter as _},
};

/// Spans kept while the collector is away; the oldest go first. A story of one leaked device is about ten.
pub const MAX_KEPT: usize = 4096;
/// How often delivery is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Whether traces get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// Where they are sent.
    pub endpoint: String,
    /// Why the last delivery failed; nothing when it did not.
    pub error: Option<String>,
    /// Spans waiting for the collector.
    pub kept: usize,
    /// Spans given up because more waited than are kept.
    pub dropped: u64,
}

#[derive(Debug)]
struct State {
    kept: VecDeque<SpanData>,
    dropped: u64,
    error: Option<String>,
}

/// The exporter with its memory.
#[derive(Debug)]
pub(super) struct Delivery {
    exporter: SpanExporter,
    endpoint: String,
    state: Mutex<State>,
    /// One delivery at a time: the SDK's thread and the retry thread share the exporter.
    turn: tokio::sync::Mutex<()>,
}

impl Delivery {
    pub(super) fn new(exporter: SpanExporter, endpoint: String) -> Self {
        let state = Mutex::new(State {
            kept: VecDeque::new(),
            dropped: 0,
            error: None,
        });
        Self {
            exporter,
            endpoint,
            state,
            turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn status(&self) -> DeliveryStatus {
        let state = self.state();
        DeliveryStatus {
            endpoint: self.endpoint.clone(),
            error: state.error.clone(),
            kept: state.kept.len(),
            dropped: state.dropped,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves plain data behind, good to use.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what waits, and tries to deliver all of it.
    async fn deliver(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let _turn = self.turn.lock().await;
        let mut waiting: Vec<SpanData> = self.state().kept.drain(..).collect();
        waiting.extend(batch);
        if waiting.is_empty() {
            return Ok(());
        }
        let result = self.exporter.export(waiting.clone()).await;
        let mut state = self.state();
        match &result {
            Ok(()) => state.error = None,
            Err(error) => {
                state.error = Some(error.to_string());
                state.kept.extend(waiting);
                while state.kept.len() > MAX_KEPT {
                    state.kept.pop_front();
                    state.dropped = state.dropped.saturating_add(1);
                }
            }
        }
        result
    }
}

/// What the SDK is given.
#[derive(Debug)]
pub(super) struct Exporter(pub(super) Arc<Delivery>);

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        // The SDK would print the error and drop the batch; it is kept here, and the agent tells.
        let _ = self.0.deliver(batch).await;
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, _resource: &Resource) {
        // Set before the exporter was shared.
    }
}

/// Tries again from time to time, until dropped.
pub(super) struct RetryThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RetryThread {
    pub(super) fn start(delivery: Arc<Delivery>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("suture-traces".to_owned())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(RETRY) {
                    if !delivery.state().kept.is_empty() {
                        // This thread runs no other future: the SDK's own thread does, which is why it awaits instead.
                        let _ = futures_executor::block_on(delivery.deliver(Vec::new()));
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for RetryThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
