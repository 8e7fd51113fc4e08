//! Answers on the unix socket: one line in, one line out, then the connection is closed.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::{
    Answer, ClientCounts, Request, ServeError, StatusFeed,
    clients::Clients,
    socket::{self, SocketFile},
};
use crate::model::Status;

/// Bytes of a request, its line end included.
const MAX_REQUEST: u64 = 4096;
/// How long to wait after the kernel could not hand over a client (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

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

impl ControlServer {
    /// Answers at `path` from now on. Needs a tokio runtime around it.
    pub fn start(path: &Path, status: StatusFeed) -> Result<Self, ServeError> {
        let (listener, file) = socket::listen(path)?;
        let listener = UnixListener::from_std(listener).map_err(|source| ServeError::Bind {
            path: path.to_owned(),
            source,
        })?;
        let counts = Arc::new(ClientCounts::default());
        let clients = Clients::new(Arc::clone(&counts));
        Ok(Self {
            task: tokio::spawn(accept(listener, clients, status)),
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

async fn accept(listener: UnixListener, mut clients: Clients, status: StatusFeed) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => clients.serve(converse(stream, status.clone())).await,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A client that goes away, or talks nonsense, is nobody's trouble but its own.
async fn converse(stream: UnixStream, status: StatusFeed) {
    let own = rustix::process::geteuid().as_raw();
    let uid = stream.peer_cred().map(|credentials| credentials.uid());
    let (from, mut to) = stream.into_split();
    // Read in any case: who is refused before he has asked dies of writing to a closed socket, and reads no sentence.
    let mut line = Vec::new();
    let mut from = BufReader::new(from.take(MAX_REQUEST));
    if !matches!(from.read_until(b'\n', &mut line).await, Ok(1..)) {
        return;
    }
    let request = match uid {
        Ok(uid) if uid == 0 || uid == own => understand(&line),
        Ok(uid) => Err(format!("uid {uid} may not ask; root may, and uid {own}")),
        Err(_) => Err("it can not be told who asks".to_owned()),
    };
    let status = Arc::clone(&status.borrow());
    let answer: Answer<&Status> = match request {
        Ok(Request::Status) => Answer::Status { status: &status },
        Err(why) => Answer::Refused { why },
    };
    let Ok(mut line) = serde_json::to_vec(&answer) else {
        return;
    };
    line.push(b'\n');
    let _ = to.write_all(&line).await;
    let _ = to.shutdown().await;
}

/// What is asked; or why that can not be told.
fn understand(line: &[u8]) -> Result<Request, String> {
    if !line.ends_with(b"\n") {
        return Err(format!(
            "a request is one line of at most {MAX_REQUEST} bytes with its end"
        ));
    }
    serde_json::from_slice(line).map_err(|error| {
        format!("the request is not understood ({error}); one that is: {{\"ask\":\"status\"}}")
    })
}
