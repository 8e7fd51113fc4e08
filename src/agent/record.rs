//! Everything that the brain takes in goes into the recording first, where one is asked for.

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{Agent, AgentError, Options, now, tell};
use crate::{
    brain::{Brain, Input, Report},
    model::{Timestamp, World},
    observe::pages::DatabasePages,
    recording::{Header, RecordError, Recorder},
    reporter::Reporter,
    words::explain,
};

/// Without anything to flush, when to ask again.
const IDLE: Duration = Duration::from_mins(1);

/// Begins the recording, where one is asked for.
pub(super) fn start(
    options: &Options,
    brain: &Brain,
    reporter: &mut Reporter<io::Stdout>,
) -> Result<Option<Recorder>, AgentError> {
    let Some(record) = &options.record else {
        return Ok(None);
    };
    let began = now();
    let header = Header {
        suture: env!("CARGO_PKG_VERSION").to_owned(),
        pool: options.places.pool.clone(),
        boot: procfs::sys::kernel::random::boot_id().unwrap_or_default(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        began,
    };
    let recorder = Recorder::start(record.clone(), header, brain)?;
    let file = record.file.clone();
    tell(reporter, began, &Report::Recording { file });
    Ok(Some(recorder))
}

impl Agent {
    pub(super) fn record_input(&mut self, input: &Input) {
        let result = match &mut self.recorder {
            Some(recorder) => recorder.input(&self.brain, now(), input),
            None => return,
        };
        self.recorded(result);
    }

    pub(super) fn record_world(&mut self, world: &World, pages: Option<DatabasePages>) {
        // A reading that was begun before the recording has no pages; the next one has.
        if let (Some(recorder), Some(pages)) = (&mut self.recorder, pages) {
            let result = recorder.world(world, pages);
            self.recorded(result);
        }
    }

    pub(super) fn record_judgement(&mut self, at: Timestamp) {
        if let Some(recorder) = &mut self.recorder {
            let result = recorder.judged(at);
            self.recorded(result);
        }
    }

    /// When what was recorded is to be handed to the operating system.
    pub(super) fn flush_at(&self) -> tokio::time::Instant {
        let at = self.recorder.as_ref().and_then(Recorder::flush_at);
        at.unwrap_or_else(|| Instant::now() + IDLE).into()
    }

    pub(super) fn flush_recording(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let result = recorder.flush();
            self.recorded(result);
        }
    }

    pub(super) fn end_recording(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            let file = recorder.file().to_owned();
            if let Err(error) = recorder.end() {
                self.recording_stopped(file, error);
            }
        }
    }

    /// A recording that can not be written ends, with one report; watching goes on.
    fn recorded(&mut self, result: Result<(), RecordError>) {
        if let Err(error) = result
            && let Some(recorder) = self.recorder.take()
        {
            let file = recorder.file().to_owned();
            self.recording_stopped(file, error);
        }
    }

    fn recording_stopped(&mut self, file: PathBuf, error: RecordError) {
        let why = explain(&error);
        self.tell(&Report::RecordingStopped { file, why });
        if self.options.only_record {
            self.recording_failed = Some(error);
        }
    }
}
