//! Prepares that fail, and are taken back.

use crate::crash_table::{
    deaths::Death::{Call, Pool},
    rows::Row,
    scenes::Scene::TakingBack,
};

pub(super) const ROWS: &[Row] = &[
    Row {
        scene: TakingBack,
        window: "X1-",
        death: Pool(5),
        power: false,
        normal: false,
        facts: "works after an error; the thin device is leaked",
        found: "Activating, thin device, dm device",
        told: "faulty-next, foreign-thin",
        alone: "works at the second try; left: foreign-thin, foreign-thin",
        beside: "nothing",
        restart: "nothing",
        before: "remove dm device, delete thin device, forget record; left: foreign-thin",
    },
    Row {
        scene: TakingBack,
        window: "X1",
        death: Pool(6),
        power: false,
        normal: false,
        facts: "works after an error; the thin device is leaked",
        found: "Removing, thin device, dm device",
        told: "faulty-next, foreign-thin",
        alone: "works at the second try; left: foreign-thin, foreign-thin",
        beside: "nothing",
        restart: "nothing",
        before: "mark faulty; works at the second try; left: foreign-thin, foreign-thin",
    },
    Row {
        scene: TakingBack,
        window: "X2",
        death: Call("message * delete *"),
        power: false,
        normal: true,
        facts: "works after an error; a number is burned",
        found: "Removing, dm device",
        told: "faulty-next, foreign-thin",
        alone: "works at the second try; left: burned-id, foreign-thin",
        beside: "nothing",
        restart: "free number",
        before: "mark faulty, remove dm device, forget record; left: foreign-thin",
    },
];
