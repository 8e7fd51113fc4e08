//! Serves the host's requests, each in a thread of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use suture_vm_guest::{Ask, NO_REQUEST, PORT_NAME, Program, Reply, Request, Stream, Tell, receive, send};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a program's output goes into one reply, in bytes.
const PIECE: usize = 32 * 1024;

/// What the threads share.
#[derive(Clone)]
struct Agent {
    port: Arc<Mutex<File>>,
    /// The programs that run, by their request. Removed before they are reaped, so that no signal goes to a stranger
    /// which got the same process id.
    running: Arc<Mutex<HashMap<u64, Pid>>>,
}

/// Serves until the host is gone or asks for the end.
pub(crate) fn serve() -> Result<()> {
    let path = find_port()?;
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {path}"))
    };
    let mut requests = open()?;
    let agent = Agent {
        port: Arc::new(Mutex::new(requests.try_clone()?)),
        running: Arc::default(),
    };
    agent.tell(NO_REQUEST, Tell::Ready)?;
    // The port gives its end when the host closed it: then nobody is left to serve.
    while let Some(Request { id, what }) = receive(&mut requests).context("reading a request")? {
        if what == Ask::PowerOff {
            rustix::fs::sync();
            rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
        }
        let agent = agent.clone();
        thread::spawn(move || agent.answer(id, what));
    }
    Ok(())
}

fn find_port() -> Result<String> {
    let folder = "/sys/class/virtio-ports";
    for entry in fs::read_dir(folder).with_context(|| format!("reading {folder}"))? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    bail!("there is no virtio port `{PORT_NAME}`");
}

impl Agent {
    fn tell(&self, id: u64, what: Tell) -> Result<()> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        send(&mut *port, &Reply { id, what }).context("writing to the host")
    }

    fn answer(&self, id: u64, what: Ask) {
        let result = match what {
            Ask::Run(program) => self.run(id, program),
            Ask::Signal { run, signal } => self.signal(run, signal).map(|()| Tell::Done),
            Ask::WriteFile { path, mode, bytes } => {
                write_file(Path::new(&path), mode, &bytes).map(|()| Tell::Done)
            }
            Ask::ReadFile { path } => fs::read(&path)
                .with_context(|| format!("reading {path} in the VM"))
                .map(Tell::File),
            Ask::PowerOff => Ok(Tell::Done),
        };
        let answer = result.unwrap_or_else(|error| Tell::Failed(format!("{error:#}")));
        if let Err(error) = self.tell(id, answer) {
            println!("suture-vm-guest: {error:#}");
        }
    }

    fn signal(&self, run: u64, signal: i32) -> Result<()> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = *running.get(&run).context("the program has ended already")?;
        let signal =
            Signal::from_named_raw(signal).with_context(|| format!("there is no signal {signal}"))?;
        kill_process(pid, signal).context("sending the signal")
    }

    /// Runs a program to its end; gives the last reply.
    fn run(&self, id: u64, program: Program) -> Result<Tell> {
        let mut child = start(&program)?;
        let pid = Pid::from_child(&child);
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, pid);
        self.tell(id, Tell::Started(child.id()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // In a thread, since the program may write before it reads; that it reads nothing is its own affair.
            thread::spawn(move || stdin.write_all(&program.stdin));
        }
        let out = child
            .stdout
            .take()
            .map(|from| self.forward(id, Stream::Out, from));
        let err = child
            .stderr
            .take()
            .map(|from| self.forward(id, Stream::Err, from));
        let status = self.wait(id, pid, &mut child)?;
        // Output that a left-behind grandchild still holds open is not waited for without end: what was written until
        // now has come through as soon as both threads had a moment.
        for thread in [out, err].into_iter().flatten() {
            let begun = std::time::Instant::now();
            while !thread.is_finished() && begun.elapsed() < std::time::Duration::from_millis(500) {
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Tell::Exited(code),
            (None, signal) => Tell::Killed(signal.unwrap_or_default()),
        })
    }

    fn wait(&self, id: u64, pid: Pid, child: &mut Child) -> Result<std::process::ExitStatus> {
        // First only looked at, so that the number stays taken until nobody can signal it any more.
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        while let Err(error) = rustix::process::waitid(rustix::process::WaitId::Pid(pid), options) {
            if error != rustix::io::Errno::INTR {
                return Err(error).context("waiting for the program");
            }
        }
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        child.wait().context("waiting for the program")
    }

    fn forward(
        &self,
        id: u64,
        stream: Stream,
        mut from: impl Read + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let agent = self.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; PIECE];
            while let Ok(length) = from.read(&mut buffer) {
                let piece = buffer.get(..length).unwrap_or_default();
                if piece.is_empty() || agent.tell(id, Tell::Output(stream, piece.to_vec())).is_err() {
                    return;
                }
            }
        })
    }
}

fn start(program: &Program) -> Result<Child> {
    let (name, arguments) = program.argv.split_first().context("no program was named")?;
    Command::new(name)
        .args(arguments)
        .env_clear()
        .envs([
            ("PATH", PATH),
            ("HOME", "/root"),
            ("TERM", "dumb"),
            ("DM_DISABLE_UDEV", "1"),
            ("LC_ALL", "C.UTF-8"),
        ])
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .current_dir(program.folder.as_deref().unwrap_or("/root"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("the guest could not start `{name}`"))
}

fn write_file(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let about = || format!("writing {} in the VM", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(about)?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    fs::write(&fresh, bytes).with_context(about)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).with_context(about)?;
    fs::rename(&fresh, path).with_context(about)
}
