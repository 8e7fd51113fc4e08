//! The host's end of the serial port to the guest's agent.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use suture_vm_guest::{Ask, NO_REQUEST, Reply, Request, Stream, Tell, receive, send};

use super::cut::Source;
use super::machine::Machine;

/// Sends requests, and gives each reply to who waits for it.
pub(super) struct Link {
    to_guest: Mutex<UnixStream>,
    waiting: Mutex<Option<HashMap<u64, Sender<Tell>>>>,
    next: AtomicU64,
    machine: Arc<Machine>,
}

/// What is told about one request.
pub(super) struct Replies {
    pub(super) id: u64,
    pub(super) receiver: Receiver<Tell>,
}

impl Link {
    /// Takes over the connection, and waits until the guest is up.
    pub(super) fn open(stream: UnixStream, machine: Arc<Machine>, limit: Duration) -> Result<Arc<Self>> {
        let (sender, ready) = channel();
        let mut from_guest = stream.try_clone().context("sharing the connection to the VM")?;
        let link = Arc::new(Self {
            to_guest: Mutex::new(stream),
            waiting: Mutex::new(Some(HashMap::from([(NO_REQUEST, sender)]))),
            next: AtomicU64::new(NO_REQUEST + 1),
            machine,
        });
        let reader = Arc::downgrade(&link);
        thread::spawn(move || {
            while let Ok(Some(reply)) = receive::<Reply>(&mut from_guest) {
                let Some(link) = reader.upgrade() else { return };
                link.dispatch(reply);
            }
            // Nobody may wait for a reply that cannot come any more.
            if let Some(link) = reader.upgrade() {
                *link.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        });
        match ready.recv_timeout(limit) {
            Ok(Tell::Ready) => Ok(link),
            Ok(other) => bail!("the VM began with {other:?} instead of saying that it is ready"),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                bail!(
                    "the VM did not come up within {limit:?}; its console ends with:\n{}",
                    link.machine.console_tail()
                )
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                Err(link.gone().context("booting the VM"))
            }
        }
    }

    fn dispatch(&self, Reply { id, what }: Reply) {
        if let Tell::Output(stream, piece) = &what {
            let is_err = *stream == Stream::Err;
            self.machine
                .look_at(Source::Program { request: id, is_err }, piece);
        }
        let ends = !matches!(what, Tell::Started(_) | Tell::Output(..));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = waiting.as_mut() else { return };
        if let Some(sender) = waiting.get(&id) {
            // Who dropped the receiver does not want to know.
            let _ = sender.send(what);
        }
        if ends {
            waiting.remove(&id);
        }
    }

    /// Sends a request whose replies come one by one.
    pub(super) fn request(&self, what: Ask) -> Result<Replies> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        match self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(self.gone()),
        };
        self.send(&Request { id, what })?;
        Ok(Replies { id, receiver })
    }

    /// Sends a request and waits for its only reply.
    pub(super) fn ask(&self, what: Ask) -> Result<Tell> {
        match self.request(what)?.receiver.recv() {
            Ok(Tell::Failed(reason)) => Err(anyhow!(reason)),
            Ok(tell) => Ok(tell),
            Err(_) => Err(self.gone()),
        }
    }

    /// Sends a request that is not answered.
    pub(super) fn tell(&self, what: Ask) -> Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(&Request { id, what })
    }

    fn send(&self, request: &Request) -> Result<()> {
        let mut stream = self.to_guest.lock().unwrap_or_else(PoisonError::into_inner);
        match send(&mut *stream, request) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::Other => Err(error).context("asking the VM"),
            Err(_) => Err(self.gone()),
        }
    }

    /// Why no reply comes any more.
    pub(super) fn gone(&self) -> Error {
        anyhow!("the VM is gone: {}", self.machine.why_gone())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Ends the reader, which holds a second handle of the connection.
        let stream = self.to_guest.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
    }
}
