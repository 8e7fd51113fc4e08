//! Windows that were not hit, and why.

pub(in crate::crash_table) const MISSED: &[(&str, &str)] = &[
    (
        "view: B6, B7, B10",
        "the same calls and commits as a prepare on a layer",
    ),
    (
        "prepare on a layer that is loaded: S13, B11",
        "not played: the same means hit them",
    ),
    (
        "commit of a device that is mounted: C2, C3, C8, C9, C10",
        "the same steps as where it is not mounted, but that the removal of the dm device waits; the simulation has them",
    ),
    (
        "remove of a layer: R4', R5', R6', R7', R8'",
        "the same commits as of a device that is in use, less the first two",
    ),
    (
        "taking back: X3, X4, X5, X6, X7, X9, X10",
        "not played: the same means hit them",
    ),
    (
        "U3, the last step of containerd's start",
        "the record says Activated and the dm device is there: that is how it was before",
    ),
    (
        "X8, the second `delete` of what is taken back",
        "the thin device is gone since X2, so this changes nothing: it is X7",
    ),
    (
        "a snapshot on a layer that is taken back",
        "the same steps as without a parent, once its thin device is there",
    ),
    (
        "most windows by a power cut",
        "containerd syncs each commit, and the pool each message, before the next step: a power cut leaves what a kill leaves, less the dm devices and mounts, as the two rows show",
    ),
];
