//! From where containerd's paths are looked at: suture may run in a container while containerd runs on the host.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// The longest configuration file that is read.
const LONGEST: u64 = 1 << 20;

/// Below which folder containerd's root is for this process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View {
    prefix: Option<PathBuf>,
}

impl View {
    /// The view of a path that may begin with `/proc/PID/root`, and the path as that process has it.
    pub(super) fn of_path(path: &Path) -> (Self, PathBuf) {
        let mut parts = path.components();
        let is = |part: Option<Component<'_>>, name: &str| part.is_some_and(|part| part.as_os_str() == name);
        if parts.next() == Some(Component::RootDir)
            && is(parts.next(), "proc")
            && let Some(pid) = parts.next()
            && is(parts.next(), "root")
        {
            let prefix = Path::new("/proc").join(pid).join("root");
            return (
                Self { prefix: Some(prefix) },
                Path::new("/").join(parts.as_path()),
            );
        }
        (Self::default(), path.to_owned())
    }

    /// The view of a process: its root is this process's own, or that of the machine's first process. None for any
    /// other: whoever makes a container can make one that looks like a containerd. A root that may not be looked at is
    /// taken for this process's own, where nothing can be read that this process may not read.
    pub(super) fn of_process(pid: u32) -> Option<Self> {
        let root_of = |path: &str| fs::metadata(path).map(|root| (root.dev(), root.ino()));
        let own = root_of("/").ok()?;
        match root_of(&format!("/proc/{pid}/root/")) {
            Ok(root) if root == own => Some(Self::default()),
            Ok(root) if root_of("/proc/1/root/").ok() == Some(root) => Some(Self {
                prefix: Some(PathBuf::from("/proc/1/root")),
            }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Self::default()),
            Ok(_) | Err(_) => None,
        }
    }

    /// The folder that stands for containerd's root, where that is not this process's own.
    pub(super) fn prefix(&self) -> Option<&Path> {
        self.prefix.as_deref()
    }

    /// A path of containerd's as this process can open it.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        match &self.prefix {
            Some(prefix) => prefix.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// A path that [`View::real`] gave, as containerd has it.
    pub(super) fn theirs(&self, path: &Path) -> PathBuf {
        let inside = self
            .prefix
            .as_ref()
            .and_then(|prefix| path.strip_prefix(prefix).ok());
        inside.map_or_else(|| path.to_owned(), |inside| Path::new("/").join(inside))
    }

    /// Reads a text file. Links in it lead where they lead containerd.
    pub(super) fn read(&self, path: &Path) -> io::Result<String> {
        // NONBLOCK so that a pipe at this path can not hold the caller; it means nothing for a regular file.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match &self.prefix {
            None => open(path, flags, Mode::empty())?,
            Some(prefix) => {
                let root = open(prefix, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?
            }
        };
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
        }
        String::from_utf8(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
    }
}
