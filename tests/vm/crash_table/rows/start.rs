//! Activations at containerd's start.

use crate::crash_table::{
    deaths::Death::{Ahead, Call},
    rows::Row,
    scenes::Scene::Start,
};

pub(super) const ROWS: &[Row] = &[
    Row {
        scene: Start,
        window: "U1",
        death: Ahead("create *"),
        power: false,
        normal: false,
        facts: "works; a good record is marked faulty",
        found: "Activating, thin device, row",
        told: "faulty-live",
        alone: "works; it can not be committed; left: faulty-live",
        beside: "nothing",
        restart: "restore record",
        before: "nothing; left: faulty-live",
    },
    Row {
        scene: Start,
        window: "U2",
        death: Call("create *"),
        power: false,
        normal: true,
        facts: "works; a good record is marked faulty",
        found: "Activating, thin device, dm device, row",
        told: "faulty-live",
        alone: "works; it can be committed; left: nothing",
        beside: "nothing",
        restart: "nothing",
        before: "nothing; left: faulty-live",
    },
];
