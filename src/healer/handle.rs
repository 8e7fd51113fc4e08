//! The agent's side: a worker that is started when there is something to ask, and ended when it does not answer in time.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use super::{
    message::{self, Answer, Ask, Begin},
    restart::Restart,
};

/// The hidden word of the command line that starts a worker.
pub(crate) const WORD: &str = "heal-worker";
/// Time for a worker that was told to end, and again after it was killed.
const TO_END: Duration = Duration::from_millis(300);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HealerError {
    /// The worker could not be started.
    #[error("starting the process that looks and acts")]
    Start(#[source] io::Error),
    /// systemd could not be asked.
    #[error("asking systemd to restart containerd with a repair (systemd-run)")]
    Restart(#[source] io::Error),
    /// It ended, or the socket to it broke.
    #[error("the process that looks and acts broke off; it was: {doing}")]
    Broke {
        /// What it was doing.
        doing: String,
        /// How that was noticed.
        source: io::Error,
    },
    /// It says what nobody understands.
    #[error("understanding the process that looks and acts")]
    Message(#[from] serde_json::Error),
    /// It took too long, and was ended.
    #[error(
        "the process that looks and acts did not answer within {} s and was ended; it was: {doing}; what it had begun is settled by looking",
        .after.as_secs()
    )]
    Late {
        /// What it was doing.
        doing: String,
        /// The deadline.
        after: Duration,
    },
    /// One that hangs in the kernel is still there.
    #[error(
        "an earlier process that looks and acts hangs in the kernel and can not be ended ({doing}); nothing is done before it is gone"
    )]
    Hangs {
        /// What it was doing.
        doing: String,
    },
}

/// Asks workers. At most one runs, also where an earlier one hangs for ever.
#[derive(Debug)]
pub struct Healer {
    begin: Begin,
    worker: Option<Connected>,
    /// One that could be neither asked nor ended, and what it was doing.
    hung: Option<(Child, String)>,
}

#[derive(Debug)]
struct Connected {
    child: Child,
    answers: BufReader<OwnedReadHalf>,
    asks: OwnedWriteHalf,
}

impl Healer {
    /// One that has not been asked yet.
    #[must_use]
    pub fn new(begin: Begin) -> Self {
        Self {
            begin,
            worker: None,
            hung: None,
        }
    }

    /// Asks, and waits for the answer at most so long. After an error the worker is gone, or hangs; the next question has a
    /// new one.
    pub async fn ask(&mut self, ask: &Ask, within: Duration) -> Result<Answer, HealerError> {
        if let Some((child, doing)) = &mut self.hung {
            match child.try_wait() {
                Ok(Some(_)) => self.hung = None,
                _ => return Err(HealerError::Hangs { doing: doing.clone() }),
            }
        }
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => start(&self.begin).await?,
        };
        let mut doing = "starting".to_owned();
        let deadline = Instant::now() + within;
        let answered = timeout_at(deadline, worker.ask(ask, &mut doing)).await;
        match answered {
            Ok(Ok(answer)) => {
                self.worker = Some(worker);
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.end(worker, doing).await;
                Err(error)
            }
            Err(_) => {
                self.end(worker, doing.clone()).await;
                Err(HealerError::Late { doing, after: within })
            }
        }
    }

    /// Has containerd stopped, repaired and started again; the exit code of the repair.
    pub async fn restart(&mut self, restart: &Restart) -> Result<i32, HealerError> {
        let this = std::env::current_exe().map_err(HealerError::Start)?;
        match timeout(Restart::WAIT, restarted(restart, &this)).await {
            Ok(done) => done.map_err(HealerError::Restart),
            Err(_) => Err(HealerError::Late {
                doing: "restarting containerd with a repair".to_owned(),
                after: Restart::WAIT,
            }),
        }
    }

    /// Ends the worker that waits for a question, and gives its memory back.
    pub async fn rest(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.end(worker, "waiting for a question".to_owned()).await;
        }
    }

    async fn end(&mut self, worker: Connected, doing: String) {
        let Connected {
            mut child,
            answers,
            asks,
        } = worker;
        // The end of its questions is its end, unless it is in the middle of something.
        drop((answers, asks));
        if timeout(TO_END, child.wait()).await.is_ok() {
            return;
        }
        // What it does is whole at every instant, so it may be killed.
        let _ = child.start_kill();
        if timeout(TO_END, child.wait()).await.is_err() {
            self.hung = Some((child, doing));
        }
    }
}

/// Has systemd do it, and waits for its end.
async fn restarted(restart: &Restart, this: &Path) -> io::Result<i32> {
    // Where there is nothing to forget, it fails, which is as well.
    let _ = Restart::forget().status().await?;
    let begun = restart.command(this).output().await?;
    if !begun.status.success() {
        let said = String::from_utf8_lossy(&begun.stderr);
        return Err(io::Error::other(said.trim().escape_debug().to_string()));
    }
    loop {
        let answer = Restart::question().output().await?;
        if let Some(code) = Restart::ended(&String::from_utf8_lossy(&answer.stdout)) {
            return Ok(code);
        }
        tokio::time::sleep(Restart::ASK).await;
    }
}

async fn start(begin: &Begin) -> Result<Connected, HealerError> {
    let (ours, theirs) = StdUnixStream::pair().map_err(HealerError::Start)?;
    ours.set_nonblocking(true).map_err(HealerError::Start)?;
    // This very program, also when its file was replaced meanwhile.
    let child = Command::new("/proc/self/exe")
        .arg(WORD)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(HealerError::Start)?;
    let ours = UnixStream::from_std(ours).map_err(HealerError::Start)?;
    let (answers, asks) = ours.into_split();
    let mut worker = Connected {
        child,
        answers: BufReader::new(answers),
        asks,
    };
    let line = message::line(begin)?;
    worker.asks.write_all(&line).await.map_err(HealerError::Start)?;
    Ok(worker)
}

impl Connected {
    async fn ask(&mut self, ask: &Ask, doing: &mut String) -> Result<Answer, HealerError> {
        let broke = |source, doing: &str| HealerError::Broke {
            doing: doing.to_owned(),
            source,
        };
        let line = message::line(ask)?;
        self.asks
            .write_all(&line)
            .await
            .map_err(|error| broke(error, doing))?;
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = u64::try_from(message::LONGEST).unwrap_or(u64::MAX);
            let read = (&mut self.answers).take(limit).read_until(b'\n', &mut line).await;
            match read {
                Ok(0) => return Err(broke(io::ErrorKind::UnexpectedEof.into(), doing)),
                Ok(_) => {}
                Err(error) => return Err(broke(error, doing)),
            }
            match message::parse(&line)? {
                Answer::Doing { what } => *doing = what,
                answer => return Ok(answer),
            }
        }
    }
}
