//! Traces: the abandoned operation, the finding and the remedy as one story, over OTLP where a collector is named by
//! the standard environment variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, …). `delivery` keeps what could not be delivered,
//! within bounds, and says so once; `story` builds the spans. `metrics` are what Prometheus reads.

mod delivery;
mod exposition;
pub mod metrics;
#[cfg(test)]
mod metrics_tests;
mod process;
pub mod story;

use std::{env, sync::Arc};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};

use delivery::{Delivery, RetryThread};
pub use delivery::{DeliveryStatus, MAX_KEPT as MAX_SPANS_KEPT};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Target of the `tracing` spans that belong to a story: only these go to the collector.
pub const TARGET: &str = "suture::story";

/// Why traces can not be exported.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter could not be made from the environment.
    #[error("setting up the export of traces from the OTEL_EXPORTER_OTLP_* variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The thread could not be started.
    #[error("starting the thread that delivers traces late")]
    Thread(#[from] std::io::Error),
    /// Something else in the process gathers traces already.
    #[error("installing the gathering of traces")]
    Subscriber(#[source] tracing_subscriber::util::TryInitError),
}

/// The tracer and what it takes to end it well.
pub struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    delivery: Option<Arc<Delivery>>,
    // Dropped last: it delivers what is left.
    _retry: Option<RetryThread>,
}

impl Telemetry {
    /// Exports where the environment names an endpoint; otherwise traces only get their ids. An endpoint that can not be
    /// used is told beside it: nobody is left unwatched for a typing error. Needs a tokio runtime around it for gRPC.
    pub fn from_environment() -> Result<(Self, Option<TelemetryError>), TelemetryError> {
        let resource = Resource::builder()
            .with_service_name("suture")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("host.name", host_name()))
            .build();
        let mut builder = SdkTracerProvider::builder().with_resource(resource.clone());
        let (mut delivery, mut retry, mut no_export) = (None, None, None);
        match endpoint().map(|endpoint| (SpanExporter::builder().build(), endpoint)) {
            None => {}
            Some((Err(error), _)) => no_export = Some(error.into()),
            Some((Ok(mut exporter), endpoint)) => {
                opentelemetry_sdk::trace::SpanExporter::set_resource(&mut exporter, &resource);
                let shared = Arc::new(Delivery::new(exporter, endpoint));
                retry = Some(RetryThread::start(Arc::clone(&shared))?);
                builder = builder.with_batch_exporter(delivery::Exporter(Arc::clone(&shared)));
                delivery = Some(shared);
            }
        }
        let provider = builder.build();
        let tracer = provider.tracer("suture");
        Ok((
            Self {
                provider,
                tracer,
                delivery,
                _retry: retry,
            },
            no_export,
        ))
    }

    /// Makes this the end of all `tracing` spans and messages of the process: messages go to standard error as far as
    /// `SUTURE_LOG` asks (warnings by default), spans of stories to the collector.
    pub fn install(&self) -> Result<(), TelemetryError> {
        let asked = EnvFilter::builder()
            .with_default_directive(LevelFilter::WARN.into())
            .with_env_var("SUTURE_LOG")
            .from_env_lossy();
        // The SDK's own complaints repeat what `delivery_status` says.
        let own = filter_fn(|metadata| !metadata.target().starts_with("opentelemetry"));
        let messages = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_filter(own)
            .with_filter(asked);
        let stories = tracing_opentelemetry::layer()
            .with_tracer(self.tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(filter_fn(|metadata| {
                metadata.is_span() && metadata.target() == TARGET
            }));
        tracing_subscriber::registry()
            .with(messages)
            .with(stories)
            .try_init()
            .map_err(TelemetryError::Subscriber)
    }

    /// Whether traces get through; nothing when nobody wants them.
    #[must_use]
    pub fn delivery_status(&self) -> Option<DeliveryStatus> {
        self.delivery.as_ref().map(|delivery| delivery.status())
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let _ = self
            .provider
            .shutdown_with_timeout(std::time::Duration::from_secs(3));
    }
}

fn endpoint() -> Option<String> {
    let named = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ]
    .iter()
    .find_map(|variable| env::var(variable).ok().filter(|value| !value.is_empty()))?;
    let disabled = env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let none = env::var("OTEL_TRACES_EXPORTER").is_ok_and(|value| value == "none");
    (!disabled && !none).then_some(named)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
