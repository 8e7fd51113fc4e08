//! Answers on the unix socket: one line in, one line out, then the connection is closed. A command leaves its seat among
//! the clients once it is understood, and waits for the agent elsewhere: no crowd of other clients can push it out.

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    task::JoinHandle,
    time::timeout,
};

use super::{
    ClientCounts, CommandSender, Group, Request, ServeError, StatusFeed,
    access::Access,
    clients::Clients,
    commands::{HandedIn, PATIENCE},
    message::Answer,
    peer::Peer,
    socket::{self, SocketFile},
};
use crate::model::{Command, Status, Timestamp, healing::HealingStatus};

/// Bytes of a request, its line end included.
const MAX_REQUEST: u64 = 4096;
/// How long to wait after the kernel could not hand over a client (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);
/// How long whoever gave a command may take to read what came of it.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What is served, and to whom.
#[derive(Debug)]
pub struct Serving {
    /// What questions are answered with.
    pub status: StatusFeed,
    /// Where commands go; nowhere for a suture that takes none.
    pub commands: Option<CommandSender>,
    /// Whose members may ask and command, beside root and who suture runs as.
    pub group: Option<Group>,
}

/// The running server. Dropping it ends it and removes its socket.
#[derive(Debug)]
pub struct ControlServer {
    task: JoinHandle<()>,
    counts: Arc<ClientCounts>,
    _file: SocketFile,
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every client is served from.
#[derive(Debug)]
struct Desk {
    status: StatusFeed,
    commands: Option<CommandSender>,
    access: Access,
}

impl ControlServer {
    /// Answers at `path` from now on. Needs a tokio runtime around it.
    pub fn start(path: &Path, serving: Serving) -> Result<Self, ServeError> {
        let desk = Desk {
            status: serving.status,
            commands: serving.commands,
            access: Access::new(serving.group),
        };
        let (listener, file) = socket::listen(path, desk.access.group())?;
        let listener = UnixListener::from_std(listener).map_err(|source| ServeError::Bind {
            path: path.to_owned(),
            source,
        })?;
        let counts = Arc::new(ClientCounts::default());
        let clients = Clients::new(Arc::clone(&counts));
        Ok(Self {
            task: tokio::spawn(accept(listener, clients, Arc::new(desk))),
            counts,
            _file: file,
        })
    }

    /// How many clients there are.
    #[must_use]
    pub fn clients(&self) -> &ClientCounts {
        &self.counts
    }
}

async fn accept(listener: UnixListener, mut clients: Clients, desk: Arc<Desk>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => clients.serve(converse(stream, Arc::clone(&desk))).await,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A client that goes away, or talks nonsense, is nobody's trouble but its own.
async fn converse(stream: UnixStream, desk: Arc<Desk>) {
    let peer = Peer::of(stream.as_fd());
    let (from, mut to) = stream.into_split();
    // Read in any case: who is refused before he has asked dies of writing to a closed socket, and reads no sentence.
    let mut line = Vec::new();
    let mut from = BufReader::new(from.take(MAX_REQUEST));
    if from.read_until(b'\n', &mut line).await.is_err() {
        return;
    }
    let request = match &peer {
        Ok(peer) => desk.access.check(peer).and_then(|()| understand(&line)),
        Err(_) => Err("it can not be told who asks".to_owned()),
    };
    let command = match (request, peer) {
        (Ok(request), Ok(peer)) => desk.answer_or_hand_in(request, &peer, &mut to).await,
        (Err(why), _) => {
            put(&Answer::Refused { why }, &mut to).await;
            None
        }
        (Ok(_), Err(_)) => None,
    };
    if let Some(command) = command {
        tokio::spawn(follow(command, to));
    }
}

impl Desk {
    /// Answers a question at once; hands a command in.
    async fn answer_or_hand_in(
        &self,
        request: Request,
        peer: &Peer,
        to: &mut OwnedWriteHalf,
    ) -> Option<HandedIn> {
        // The feed is not held while somebody reads slowly.
        let status = Arc::clone(&self.status.borrow());
        let command = match command(request, peer, SystemTime::now().into()) {
            Ok(command) => command,
            Err(question) => {
                put(&answer(&question, &status), to).await;
                return None;
            }
        };
        let handed_in = match &self.commands {
            None => Err("this suture takes no commands (it only records)".to_owned()),
            Some(commands) => commands.hand_in(command).map_err(|why| why.to_string()),
        };
        match handed_in {
            Ok(handed_in) => Some(handed_in),
            Err(why) => {
                put(&Answer::Refused { why }, to).await;
                None
            }
        }
    }
}

/// Waits for what comes of a command, and says so.
async fn follow(command: HandedIn, mut to: OwnedWriteHalf) {
    let answer = match command.answer(PATIENCE).await {
        Ok(Ok(effect)) => Answer::Followed { effect },
        Ok(Err(refusal)) => Answer::NotFollowed {
            why: refusal.to_string(),
            refusal,
        },
        Err(why) => Answer::Refused { why: why.to_string() },
    };
    let _ = timeout(READ_WITHIN, put(&answer, &mut to)).await;
}

async fn put(answer: &Answer<'_>, to: &mut OwnedWriteHalf) {
    let Ok(line) = answer.line() else { return };
    let _ = to.write_all(&line).await;
    let _ = to.shutdown().await;
}

/// What is asked; or why that can not be told. Who ends their line without a word asks how suture is.
fn understand(line: &[u8]) -> Result<Request, String> {
    match line {
        [] => Ok(Request::Status {}),
        [.., b'\n'] => Request::understand(line),
        _ => Err(format!(
            "a request is one line of at most {MAX_REQUEST} bytes with its end"
        )),
    }
}

/// What a command is to the engine, with who gave it; a question comes back.
fn command(request: Request, peer: &Peer, now: Timestamp) -> Result<Command, Request> {
    Ok(match request {
        Request::Approve { plan, by } => Command::Approve {
            id: plan,
            who: who(peer, by.as_deref()),
        },
        Request::Reject { plan, why, by } => Command::Reject {
            id: plan,
            who: who(peer, by.as_deref()),
            why,
        },
        Request::Pause { for_seconds, why, by } => Command::Pause {
            who: who(peer, by.as_deref()),
            why,
            until: for_seconds.map(|seconds| now.plus(Duration::from_secs(seconds))),
        },
        Request::Resume { by } => Command::Resume {
            who: who(peer, by.as_deref()),
        },
        question @ (Request::Status {} | Request::Findings {} | Request::Plans { .. }) => {
            return Err(question);
        }
    })
}

/// Who gave a command: what the kernel says first, then what they say.
fn who(peer: &Peer, by: Option<&str>) -> String {
    let uid = if peer.uid == 0 {
        "root".to_owned()
    } else {
        format!("uid {}", peer.uid)
    };
    match by.filter(|by| !by.is_empty()) {
        Some(by) => format!("{uid} (for {}, as they say)", by.escape_debug()),
        None => uid,
    }
}

fn answer<'s>(question: &Request, status: &'s Status) -> Answer<'s> {
    match question {
        Request::Findings {} => Answer::Findings {
            at: status.at,
            pid: status.pid,
            total: status.finding_counts.values().sum(),
            findings: &status.findings,
            obstacles: status
                .healing
                .as_ref()
                .map(HealingStatus::obstacles)
                .unwrap_or_default(),
        },
        Request::Plans { about } => {
            let about = about.as_deref().unwrap_or_default();
            let plans = status.healing.iter().flat_map(|healing| &healing.plans);
            let fits =
                plans.filter(|plan| plan.id.as_str().starts_with(about) || plan.finding.0.starts_with(about));
            Answer::Plans {
                plans: fits.map(|plan| &**plan).collect(),
            }
        }
        _ => Answer::Status { status },
    }
}
