//! The socket and the metrics' address against clients of every kind.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tokio::{runtime::Runtime, sync::watch};

use super::{
    AskError, ClientCounts, CommandSender, ControlServer, Group, MetricsServer, ServeError, Serving,
    ask_status,
};
use crate::{
    model::Status,
    telemetry::metrics::{Metrics, ReadTimes},
    testing::status,
};

/// A runtime as `suture run` has one, and a folder.
pub(super) struct Stage {
    pub(super) runtime: Runtime,
    pub(super) folder: tempfile::TempDir,
    pub(super) feed: watch::Sender<Arc<Status>>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            folder: tempfile::tempdir().unwrap(),
            feed: watch::Sender::new(Arc::new(status())),
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/suture.sock")
    }

    fn start(&self) -> Result<ControlServer, ServeError> {
        self.start_with(None, None)
    }

    /// One that takes commands, or lets a group in.
    pub(super) fn start_with(
        &self,
        commands: Option<CommandSender>,
        group: Option<Group>,
    ) -> Result<ControlServer, ServeError> {
        let _inside = self.runtime.enter();
        let serving = Serving {
            status: self.feed.subscribe(),
            commands,
            group,
        };
        ControlServer::start(&self.socket(), serving)
    }

    fn metrics(&self) -> MetricsServer {
        let _inside = self.runtime.enter();
        let metrics = Metrics::new(self.feed.subscribe(), ReadTimes::default());
        MetricsServer::start("127.0.0.1:0".parse().unwrap(), metrics).unwrap()
    }
}

/// What the server says to these bytes.
pub(super) fn say(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may have answered and gone before it read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

pub(super) fn is_answered(socket: &Path) {
    let told: Status = serde_json::from_value(ask_status(socket).unwrap()).unwrap();
    assert_eq!(told, status());
}

#[test]
fn a_question_is_answered_with_the_last_that_was_published() {
    let stage = Stage::new();
    let server = stage.start().unwrap();
    is_answered(&stage.socket());
    stage.feed.send_modify(|status| Arc::make_mut(status).pid = 99);
    assert_eq!(ask_status(&stage.socket()).unwrap()["pid"], 99);
    assert_eq!(server.clients().cut_short(), 0);
}

#[test]
fn only_its_owner_can_open_the_socket_and_its_folder_is_open_to_look_into() {
    let stage = Stage::new();
    let _server = stage.start().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&stage.socket()), 0o600);
    assert_eq!(mode(stage.socket().parent().unwrap()), 0o755);
}

#[test]
fn a_socket_of_a_dead_suture_is_replaced_and_removed_at_the_end() {
    let stage = Stage::new();
    fs::create_dir(stage.socket().parent().unwrap()).unwrap();
    drop(UnixListener::bind(stage.socket()).unwrap());
    assert!(matches!(
        ask_status(&stage.socket()),
        Err(AskError::NotRunning { .. })
    ));
    let server = stage.start().unwrap();
    is_answered(&stage.socket());
    drop(server);
    assert!(!stage.socket().exists());
    assert!(matches!(
        ask_status(&stage.socket()),
        Err(AskError::NotRunning { .. })
    ));
    is_answered_by_a_later_one(&stage);
}

fn is_answered_by_a_later_one(stage: &Stage) {
    let _server = stage.start().unwrap();
    is_answered(&stage.socket());
}

#[test]
fn a_living_suture_keeps_its_socket_also_without_its_lock_file() {
    let stage = Stage::new();
    let _server = stage.start().unwrap();
    assert!(matches!(stage.start(), Err(ServeError::Taken { .. })));
    let lock = stage.socket().with_extension("sock.lock");
    fs::remove_file(&lock).unwrap();
    let refused = stage.start().unwrap_err();
    assert!(matches!(refused, ServeError::Taken { .. }), "{refused}");
    assert!(refused.to_string().contains("--socket"), "{refused}");
    is_answered(&stage.socket());
}

#[test]
fn a_socket_that_became_anothers_is_not_removed() {
    let stage = Stage::new();
    let server = stage.start().unwrap();
    fs::remove_file(stage.socket()).unwrap();
    let _other = UnixListener::bind(stage.socket()).unwrap();
    drop(server);
    assert!(fs::metadata(stage.socket()).unwrap().file_type().is_socket());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let stage = Stage::new();
    fs::create_dir(stage.socket().parent().unwrap()).unwrap();
    fs::write(stage.socket(), "precious").unwrap();
    assert!(matches!(stage.start(), Err(ServeError::NoSocket { .. })));
    assert_eq!(fs::read_to_string(stage.socket()).unwrap(), "precious");
    let target = stage.folder.path().join("target");
    std::os::unix::fs::symlink(&target, stage.socket().with_extension("sock.lock.new")).unwrap();
    fs::rename(
        stage.socket().with_extension("sock.lock.new"),
        stage.socket().with_extension("sock.lock"),
    )
    .unwrap();
    assert!(matches!(stage.start(), Err(ServeError::Lock { .. })));
    assert!(!target.exists(), "no link is followed");
}

#[test]
fn garbage_gets_a_sentence_and_harms_nobody() {
    let stage = Stage::new();
    let _server = stage.start().unwrap();
    for garbage in [
        &b"\n"[..],
        b"status\n",
        b"{\"ask\":\"shutdown\"}\n",
        b"{\"ask\":7}\n",
        b"\0\xff\xfe\n",
        b"{\"ask\":\"status\"} {\"ask\":\"status\"}\n",
        &[b'['; 4095],
    ] {
        let mut bytes = garbage.to_vec();
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        let answer = say(&stage.socket(), &bytes);
        assert!(
            answer.starts_with("{\"answer\":\"refused\",\"why\":\"") && answer.ends_with("}\n"),
            "{answer}"
        );
        assert!(answer.contains("not understood"), "{answer}");
    }
    let huge = say(&stage.socket(), &vec![b'x'; 1 << 22]);
    assert!(huge.contains("one line of at most 4096 bytes"), "{huge}");
    is_answered(&stage.socket());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_get_more_than_one_line(bytes in prop::collection::vec(any::<u8>(), 1..6000)) {
        let stage = Stage::new();
        let _server = stage.start().unwrap();
        let mut stream = UnixStream::connect(stage.socket()).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        prop_assert!(answer.lines().count() <= 1, "{answer}");
        prop_assert!(ask_status(&stage.socket()).is_ok());
    }
}

#[test]
fn clients_that_say_nothing_hold_nothing() {
    let stage = Stage::new();
    let server = stage.start().unwrap();
    let silent: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(stage.socket()).unwrap())
        .collect();
    let begun = Instant::now();
    is_answered(&stage.socket());
    assert!(
        begun.elapsed() < Duration::from_millis(4900),
        "an honest client came before the silent ones' time was up: {:?}",
        begun.elapsed()
    );
    assert!(server.clients().current() <= ClientCounts::LIMIT);
    assert!(server.clients().cut_short() >= 84, "{:?}", server.clients());
    // Those that were not cut short lose their seat when their time is up.
    for mut one in silent {
        one.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut nothing = Vec::new();
        let _ = one.read_to_end(&mut nothing);
        assert!(nothing.is_empty());
    }
}

#[test]
fn a_hundred_at_once_are_all_answered() {
    let stage = Stage::new();
    let server = stage.start().unwrap();
    let socket = stage.socket();
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| is_answered(&socket));
        }
    });
    assert_eq!(server.clients().cut_short(), 0);
}

/// Who is not root is somebody else; the process that asks drops to `nobody` by itself.
#[test]
fn others_are_sent_away_in_words() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can become another user: nothing to see");
        return;
    }
    let stage = Stage::new();
    let _server = stage.start().unwrap();
    fs::set_permissions(stage.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(stage.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "perl", "-MIO::Socket::UNIX", "-e"])
        .arg("$s = IO::Socket::UNIX->new($ARGV[0]) or die; print $s \"{\\\"ask\\\":\\\"status\\\"}\\n\"; $s->flush; print <$s>")
        .arg(stage.socket())
        .output()
        .unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(
        answer.contains("\"refused\"") && answer.contains("uid 65534 may not ask"),
        "{answer} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn http(server: &MetricsServer, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(server: &MetricsServer, path: &str, accept: &str) -> String {
    http(
        server,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"),
    )
}

#[test]
fn metrics_and_health_are_served_and_nothing_else() {
    let stage = Stage::new();
    let server = stage.metrics();
    let plain = get(&server, "/metrics", "*/*");
    assert!(plain.starts_with("HTTP/1.1 200 OK\r\n"), "{plain}");
    assert!(
        plain.contains("content-type: text/plain; version=0.0.4"),
        "{plain}"
    );
    assert!(
        plain.contains("\nsuture_events_total{kind=\"dm_ioctl\"} 41\n"),
        "{plain}"
    );
    let open_metrics = get(&server, "/metrics", "application/openmetrics-text;version=1.0.0");
    assert!(open_metrics.contains("content-type: application/openmetrics-text"));
    assert!(open_metrics.ends_with("# EOF\n"), "{open_metrics}");

    assert!(get(&server, "/etc/passwd", "*/*").starts_with("HTTP/1.1 404 "));
    assert!(
        http(
            &server,
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
        .starts_with("HTTP/1.1 405 ")
    );
    let garbage = http(&server, "\0\0nonsense\r\n\r\n");
    assert!(
        garbage.is_empty() || garbage.starts_with("HTTP/1.1 400 "),
        "{garbage}"
    );
    let huge = http(&server, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)));
    assert!(!huge.contains(" 200 "), "{huge}");

    // The status of the stage is of long ago; a new one is healthy.
    let hangs = get(&server, "/healthz", "*/*");
    assert!(
        hangs.starts_with("HTTP/1.1 503 ") && hangs.contains("it hangs"),
        "{hangs}"
    );
    stage
        .feed
        .send_modify(|status| Arc::make_mut(status).at = std::time::SystemTime::now().into());
    assert!(get(&server, "/healthz", "*/*").ends_with("\r\n\r\nok\n"));
}

#[test]
fn readers_of_metrics_that_say_nothing_hold_nothing() {
    let stage = Stage::new();
    let server = stage.metrics();
    let _silent: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    let begun = Instant::now();
    assert!(get(&server, "/metrics", "*/*").contains(" 200 OK"));
    assert!(
        begun.elapsed() < Duration::from_millis(4900),
        "{:?}",
        begun.elapsed()
    );
    assert!(server.clients().cut_short() >= 34, "{:?}", server.clients());
}

#[test]
fn an_address_that_is_taken_is_said_so() {
    let stage = Stage::new();
    let server = stage.metrics();
    let _inside = stage.runtime.enter();
    let metrics = Metrics::new(stage.feed.subscribe(), ReadTimes::default());
    let error = MetricsServer::start(server.address(), metrics).unwrap_err();
    let text = crate::words::explain(&error);
    assert!(
        text.contains(&server.address().to_string()) && text.contains("--metrics") && text.contains("in use"),
        "{text}"
    );
}
