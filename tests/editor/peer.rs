//! The real bbolt, in Go (`xtask/peers/bbolt/main.go`).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::bbolt_file::{Item, Tree};

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| xtask::setup::bbolt_peer(false).unwrap());

fn run(arguments: &[&str], file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(&*PROGRAM);
    command.args(arguments).arg(file).args(more);
    command.output().unwrap()
}

fn told(output: &Output, doing: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{doing}: {said}");
}

/// bbolt's own check, and what it found.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    let output = run(&["check"], file, &[]);
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[derive(Deserialize)]
struct Line {
    bucket: Vec<String>,
    #[serde(default)]
    sequence: u64,
    key: Option<String>,
    value: Option<String>,
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| byte - if byte < b'a' { b'0' } else { b'a' - 10 };
    let (pairs, _) = hex.as_bytes().as_chunks();
    pairs
        .iter()
        .map(|[high, low]| digit(*high) << 4 | digit(*low))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Everything in a file, as bbolt reads it. The sequence of the root is not told.
pub(crate) fn dump(file: &Path) -> Tree {
    let output = run(&["dump"], file, &[]);
    told(&output, "dumping");
    let mut root = Tree::default();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        let mut tree = &mut root;
        for name in &line.bucket {
            let inner = tree
                .items
                .entry(bytes(name))
                .or_insert_with(|| Item::Bucket(Tree::default()));
            let Item::Bucket(inner) = inner else {
                panic!("{name} is a value")
            };
            tree = inner;
        }
        match line.key {
            Some(key) => tree.put(&bytes(&key), &bytes(&line.value.unwrap())),
            None => tree.sequence = line.sequence,
        }
    }
    root
}

/// How bbolt opens a file to write to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Of a file that is made.
    pub(crate) page_size: u32,
    pub(crate) freelist: bool,
}

impl Options {
    fn arguments(self) -> Vec<String> {
        let mut arguments = vec!["--page-size".to_owned(), self.page_size.to_string()];
        if !self.freelist {
            arguments.push("--no-freelist-sync".to_owned());
        }
        arguments
    }
}

/// A random history of bbolt's, on a new file or on one that is there.
pub(crate) fn random(file: &Path, seed: u64, steps: u32, options: Options) {
    let (seed, steps) = ((seed >> 1).to_string(), steps.to_string());
    let options = options.arguments();
    let more: Vec<&str> = [seed.as_str(), &steps]
        .into_iter()
        .chain(options.iter().map(String::as_str))
        .collect();
    told(
        &run(&["random"], file, &more),
        &format!("a history of seed {seed}"),
    );
}

/// One edit for bbolt to make.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Order {
    op: &'static str,
    bucket: Vec<String>,
    key: String,
    value: String,
    size: usize,
    sequence: u64,
}

impl Order {
    pub(crate) fn new(op: &'static str, bucket: &[&str], key: &str) -> Self {
        Self {
            op,
            bucket: bucket.iter().map(|name| hex(name.as_bytes())).collect(),
            key: hex(key.as_bytes()),
            ..Self::default()
        }
    }

    pub(crate) fn value(self, value: &[u8]) -> Self {
        Self {
            value: hex(value),
            ..self
        }
    }

    pub(crate) fn zeros(self, size: usize) -> Self {
        Self { size, ..self }
    }
}

/// One transaction of bbolt's.
pub(crate) fn apply(file: &Path, orders: &[Order], options: Options) {
    let mut command = Command::new(&*PROGRAM)
        .arg("apply")
        .arg(file)
        .args(options.arguments())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = command.stdin.take().unwrap();
    for order in orders {
        writeln!(stdin, "{}", serde_json::to_string(order).unwrap()).unwrap();
    }
    drop(stdin);
    told(&command.wait_with_output().unwrap(), "applying");
}

/// A file with the buckets that containerd's pool database has, and some devices, written by bbolt.
pub(crate) fn pool_db(file: &Path, devices: u32, options: Options) -> Tree {
    let mut orders = vec![
        Order::new("create", &["devices"], ""),
        Order::new("create", &["device_ids"], ""),
    ];
    for id in 1..=devices {
        let name = format!("pool-snap-{id}");
        let record = format!(
            r#"{{"device_id":{id},"size":67108864,"name":"{name}","parent_name":"","state":4,"error":""}}"#
        );
        orders.push(Order::new("put", &["devices"], &name).value(record.as_bytes()));
        orders.push(Order::new("put", &["device_ids"], &id.to_string()).value(&[1]));
    }
    apply(file, &orders, options);
    let tree = dump(file);
    let devices_there = BTreeMap::len(&match &tree.items[&b"devices"[..]] {
        Item::Bucket(devices) => devices.items.clone(),
        Item::Bytes(_) => BTreeMap::new(),
    });
    assert_eq!(devices_there, usize::try_from(devices).unwrap());
    tree
}
