//! The rows of the crash table on a real containerd: what the facts predict of a window, and what happened.

mod base;
mod clean_up;
mod commit;
mod layer;
mod loaded;
mod missed;
mod removal;
mod start;
mod taking_back;

pub(super) use self::missed::MISSED;
use super::{Happened, deaths::Death, scenes::Scene};

/// One window.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) scene: Scene,
    /// The facts' name of it; a prime says that a program died half way to it, a number after that how far it came.
    pub(super) window: &'static str,
    pub(super) death: Death,
    /// Whether the power is cut as well.
    pub(super) power: bool,
    /// Whether it is played in the normal lane.
    pub(super) normal: bool,
    /// What is predicted when nobody helps.
    pub(super) facts: &'static str,
    /// As in [`Happened`].
    pub(super) found: &'static str,
    pub(super) told: &'static str,
    pub(super) alone: &'static str,
    pub(super) beside: &'static str,
    pub(super) restart: &'static str,
    pub(super) before: &'static str,
}

impl Row {
    /// Whether it is what happened.
    pub(super) fn is(&self, happened: &Happened) -> bool {
        let Happened {
            found,
            told,
            alone,
            beside,
            restart,
            before,
        } = happened;
        [
            self.found,
            self.told,
            self.alone,
            self.beside,
            self.restart,
            self.before,
        ] == [found, told, alone, beside, restart, before]
    }
}

/// Every window that was hit, operation by operation.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    [
        base::ROWS,
        layer::ROWS,
        loaded::ROWS,
        commit::ROWS,
        removal::ROWS,
        clean_up::ROWS,
        taking_back::ROWS,
        start::ROWS,
    ]
    .into_iter()
    .flatten()
}
