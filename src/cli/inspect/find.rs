//! Finds the device that a person means: by dm name, snapshot key, container, pod or thin id.

use super::join::Device;
use crate::cli::paper::{counted, safe};

/// How many are named where a name is not enough.
const NAMED: usize = 8;

/// The devices that go by a name; several only where all are the same container's or pod's. Otherwise an error that
/// says what there is.
pub(super) fn find<'d, 'a>(devices: &'d [Device<'a>], name: &str) -> Result<Vec<&'d Device<'a>>, String> {
    let ways: [&dyn Fn(&Device<'_>) -> bool; 7] = [
        &|one| one.title() == name || one.nodes.iter().any(|node| node.name.as_str() == name),
        &|one| one.row.is_some_and(|(key, _)| key == name),
        &|one| one.core.is_some_and(|core| core.key == name),
        &|one| one.containers.iter().any(|container| container.id == name),
        &|one| one.containers.iter().any(|container| is_pod(container, name)),
        &|one| one.thin_id.is_some_and(|id| id.to_string() == name),
        &|one| one.findings.iter().any(|finding| finding.finding.id.0 == name),
    ];
    for is_it in ways {
        let found: Vec<_> = devices.iter().filter(|one| is_it(one)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    by_beginning(devices, name)
}

/// A pod by its name, or by `namespace/name`.
fn is_pod(container: &crate::model::survey::Container, name: &str) -> bool {
    container.pod.as_ref().is_some_and(|pod| {
        let (namespace, pod_name) = name
            .split_once('/')
            .map_or((None, name), |(space, name)| (Some(space), name));
        pod.name == pod_name && namespace.is_none_or(|namespace| namespace == pod.namespace)
    })
}

/// As people copy ids from other tools: cut.
fn by_beginning<'d, 'a>(devices: &'d [Device<'a>], name: &str) -> Result<Vec<&'d Device<'a>>, String> {
    let begins = |text: &str| {
        let digest = text.rsplit_once("sha256:").map(|(_, hex)| hex);
        text.starts_with(name) || digest.is_some_and(|hex| hex.starts_with(name))
    };
    let mut found: Vec<(&'d Device<'a>, &str)> = Vec::new();
    if !name.is_empty() {
        for one in devices {
            let ids = one.containers.iter().map(|container| container.id.as_str());
            let keys = one.core.map(|core| core.key.as_str());
            if let Some(id) = ids.chain(keys).find(|id| begins(id)) {
                found.push((one, id));
            }
        }
    }
    match found.as_slice() {
        [(one, _)] => Ok(vec![one]),
        [] => Err(format!(
            "nothing goes by the name {}: not as a dm device, snapshot key, container, pod or thin id; `suture inspect` lists all there is",
            safe(name)
        )),
        several => {
            let named: Vec<_> = several.iter().take(NAMED).map(|(_, id)| safe(id)).collect();
            Err(format!(
                "{} begin with {}: {}; give more of the name",
                counted(several.len(), "thing"),
                safe(name),
                named.join(", ")
            ))
        }
    }
}
