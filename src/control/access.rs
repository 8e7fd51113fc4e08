//! Who may talk to suture: root, who it runs as, and the members of one group. They may ask and command; nobody else may
//! either, because what is told names the node's workloads.

use super::{ServeError, peer::Peer};

/// The group whose members may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub(super) name: String,
    pub(super) id: u32,
}

impl Group {
    /// The group of a name, as this machine knows it; or of a number.
    pub fn named(name: &str) -> Result<Self, ServeError> {
        let unknown = |source: Option<nix::Error>| ServeError::Group {
            name: name.to_owned(),
            source: source.map(Into::into),
        };
        let id = match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => group.gid.as_raw(),
            Ok(None) => name.parse().map_err(|_| unknown(None))?,
            Err(error) => return Err(unknown(Some(error))),
        };
        Ok(Self {
            name: name.to_owned(),
            id,
        })
    }
}

/// Who may.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// Who suture runs as.
    own: u32,
    group: Option<Group>,
}

impl Access {
    /// Beside root and who runs this, the members of a group.
    pub(super) fn new(group: Option<Group>) -> Self {
        Self {
            own: rustix::process::geteuid().as_raw(),
            group,
        }
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Says no in a sentence, or nothing.
    pub(super) fn check(&self, peer: &Peer) -> Result<(), String> {
        let member = |group: &Group| peer.groups.contains(&group.id);
        if peer.uid == 0 || peer.uid == self.own || self.group.as_ref().is_some_and(member) {
            return Ok(());
        }
        let group = self.group.as_ref().map_or_else(String::new, |group| {
            format!(", and the group {}", group.name.escape_debug())
        });
        Err(format!(
            "uid {} may not ask; root may, and uid {}{group}",
            peer.uid, self.own
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer {
            uid,
            groups: groups.to_vec(),
        }
    }

    fn access(own: u32, group: Option<u32>) -> Access {
        let group = group.map(|id| Group {
            name: "operators".to_owned(),
            id,
        });
        Access { own, group }
    }

    #[test]
    fn root_itself_and_members_of_the_group_may_and_nobody_else() {
        for (peer, own, group, may) in [
            (peer(0, &[0]), 0, None, true),
            (peer(0, &[0]), 7, None, true),
            (peer(7, &[7]), 7, None, true),
            (peer(8, &[7]), 7, None, false),
            (peer(8, &[8]), 0, Some(8), true),
            (peer(9, &[9, 8]), 0, Some(8), true),
            (peer(9, &[9]), 0, Some(8), false),
            // The group of root is a group like any other.
            (peer(9, &[0]), 0, None, false),
            (peer(9, &[0]), 0, Some(8), false),
        ] {
            let said = access(own, group).check(&peer);
            assert_eq!(said.is_ok(), may, "{peer:?} {own} {group:?}: {said:?}");
        }
        let said = access(0, Some(8)).check(&peer(9, &[])).unwrap_err();
        assert_eq!(
            said,
            "uid 9 may not ask; root may, and uid 0, and the group operators"
        );
    }

    #[test]
    fn a_group_is_known_by_name_or_number_and_an_unknown_one_is_said_so() {
        assert_eq!(Group::named("root").unwrap().id, 0);
        assert_eq!(Group::named("54321").unwrap().id, 54321);
        let error = Group::named("nobody knows these").unwrap_err();
        let text = crate::words::explain(&error);
        assert!(
            text.contains("nobody knows these") && text.contains("only root may"),
            "{text}"
        );
    }
}
