//! The unix socket as a file: made for its owner and one group, taken over from a suture that died, left to one that lives.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{
                DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
                PermissionsExt as _, lchown,
            },
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::OFlags,
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
};

use super::{Group, ServeError};

/// The socket's file. Dropping it removes the file, unless it is somebody else's by now.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Held as long as the socket is ours. Its file stays: to remove it would let two hold a lock of that name.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Makes the socket and listens on it.
pub(super) fn listen(path: &Path, group: Option<&Group>) -> Result<(UnixListener, SocketFile), ServeError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(|source| ServeError::Folder {
                path: path.to_owned(),
                source,
            })?;
    }
    let lock = lock(path)?;
    remove_stale(path)?;
    let bind = |source| ServeError::Bind {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(bind)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path).map_err(bind)?,
        _lock: lock,
    };
    // Who came in before this is sent away by his credentials.
    let mode = match group {
        Some(group) => {
            lchown(path, None, Some(group.id)).map_err(bind)?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    Ok((listener, file))
}

/// The lock goes with its holder's death, also by SIGKILL. It keeps two sutures that start at once from taking the
/// socket from each other.
fn lock(socket: &Path) -> Result<File, ServeError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |source| ServeError::Lock {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServeError::Taken {
            path: socket.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Removes the socket of a suture that died. One that answers is left alone, also where its lock file was removed.
fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let bind = |source| ServeError::Bind {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ServeError::NoSocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match connect_to(path, None) {
        // A listener whose queue is full lives too.
        Ok(_) | Err(Errno::AGAIN) => Err(ServeError::Taken {
            path: path.to_owned(),
        }),
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(bind),
        Err(errno) => Err(bind(errno.into())),
    }
}

/// Connects, waiting for at most so long where the listener's queue is full; without a time, not at all.
pub(super) fn connect_to(path: &Path, patience: Option<Duration>) -> Result<OwnedFd, Errno> {
    let mut flags = SocketFlags::CLOEXEC;
    if patience.is_none() {
        flags |= SocketFlags::NONBLOCK;
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // `connect` of a unix socket waits as long as a send would (`unix_stream_connect`, net/unix/af_unix.c).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, patience)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, patience)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
