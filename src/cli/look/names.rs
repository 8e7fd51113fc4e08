//! What a finding is called on the command line: its id, a beginning of it that no other has, or its class.

use std::fmt::Write as _;

use crate::{
    cli::{
        CliError,
        paper::{counted, safe},
    },
    model::FindingClass,
};

/// Findings that are named where the name was not enough.
const NAMED: usize = 20;

/// The only one of these ids that goes by a name; nothing where none does, and an error that names them where several do.
pub(in crate::cli) fn only_meant<'i>(ids: &[&'i str], name: &str) -> Result<Option<&'i str>, CliError> {
    if let Some(id) = ids.iter().find(|id| **id == name) {
        return Ok(Some(id));
    }
    let meant: Vec<&str> = ids.iter().copied().filter(|id| is_meant(id, name)).collect();
    match meant.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        several => Err(CliError::Named(format!(
            "{} go by {}: {}",
            counted(several.len(), "finding"),
            safe(name),
            list(several)
        ))),
    }
}

/// The class of this name.
pub(in crate::cli) fn class_named(name: &str) -> Option<FindingClass> {
    FindingClass::ALL.into_iter().find(|class| class.name() == name)
}

/// Whether a beginning means this id. A class means its findings, and not those of a class whose name goes on.
fn is_meant(id: &str, beginning: &str) -> bool {
    let rest = id.strip_prefix(beginning);
    let is_class = class_named(beginning).is_some();
    !beginning.is_empty() && rest.is_some_and(|rest| !is_class || rest.starts_with('/'))
}

/// Some ids in a row, the first few of them.
pub(in crate::cli) fn list(ids: &[&str]) -> String {
    let named: Vec<String> = ids.iter().take(NAMED).map(|id| safe(id)).collect();
    let mut text = named.join(", ");
    if ids.len() > NAMED {
        let more = ids.len() - NAMED;
        let _ = write!(text, " and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 4] = [
        "wedge/tp/7",
        "orphan-record/tp/1",
        "orphan-record/tp/12",
        "orphan-node/tp/1",
    ];

    #[test]
    fn an_id_a_beginning_or_a_class_is_enough_when_it_is_one_findings() {
        for name in ["wedge", "wed", "wedge/tp", "wedge/tp/7"] {
            assert_eq!(only_meant(&IDS, name).unwrap(), Some("wedge/tp/7"), "{name}");
        }
        assert_eq!(
            only_meant(&IDS, "orphan-record/tp/1").unwrap(),
            Some("orphan-record/tp/1")
        );
        for name in ["", "nothing", "wedge/tp/77"] {
            assert_eq!(only_meant(&IDS, name).unwrap(), None, "{name}");
        }
        let several = only_meant(&IDS, "orphan-record").unwrap_err().to_string();
        assert!(
            several.contains("2 findings") && several.contains("tp/12"),
            "{several}"
        );
        assert!(only_meant(&["wedge-of-a-kind/tp/1"], "wedge").unwrap().is_none());
    }
}
