//! Who is at the other end of a unix socket, as the kernel knew them when they connected. Their process is not asked: it
//! may be another one by now.
#![expect(unsafe_code, reason = "no library offers SO_PEERGROUPS")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rustix::net::sockopt;

/// Groups that a process can be in (`NGROUPS_MAX`, include/uapi/linux/limits.h).
const MOST_GROUPS: usize = 65_536;
/// Groups that most processes are in, at most.
const FEW_GROUPS: usize = 64;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// Effective user.
    pub(super) uid: u32,
    /// Effective group, and the supplementary ones.
    pub(super) groups: Vec<u32>,
}

impl Peer {
    /// Of a connected socket.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials = sockopt::socket_peercred(socket)?;
        let mut groups = match peer_groups(socket) {
            Ok(groups) => groups,
            // Linux before 4.13: the effective group is all that is known.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Vec::new(),
            Err(error) => return Err(error),
        };
        groups.push(credentials.gid.as_raw());
        Ok(Self {
            uid: credentials.uid.as_raw(),
            groups,
        })
    }
}

/// The supplementary groups (`SO_PEERGROUPS`, `sk_getsockopt` in net/core/sock.c).
fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut room = FEW_GROUPS;
    loop {
        let mut groups: Vec<libc::gid_t> = vec![0; room];
        let bytes = room * size_of::<libc::gid_t>();
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open, `groups` has room for `length` bytes, and the kernel writes whole `gid_t`s, no more
        // than there is room for.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let error = (result != 0).then(io::Error::last_os_error);
        let count = usize::try_from(length).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        match error {
            None => {
                groups.truncate(count);
                return Ok(groups);
            }
            // `length` is what it needs.
            Some(error)
                if error.raw_os_error() == Some(libc::ERANGE) && room < count && count <= MOST_GROUPS =>
            {
                room = count;
            }
            Some(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd as _, unix::net::UnixStream};

    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_oneself() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(one.as_fd()).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
        for group in rustix::process::getgroups().unwrap() {
            assert!(peer.groups.contains(&group.as_raw()));
        }
    }
}
