//! The vocabulary that all rooms share: identifiers, states, observations, operations, findings, plans.
//! Plain values only: nothing here reads a clock, a file or the kernel.
//! Names are the field's own (device-mapper, thin-provisioning, containerd).

pub mod bound;
pub mod commit;
pub mod databases;
pub mod device_record;
pub mod diagnosis;
pub mod dm;
pub mod finding;
pub mod healing;
pub mod ids;
pub mod kernel;
mod numbers;
pub mod observation;
pub mod operation;
pub mod origin;
pub mod outline;
pub mod pairs;
pub mod plan;
pub mod policy;
pub mod ranges;
pub mod repair;
pub mod saga;
pub mod sense;
pub mod shared;
pub mod space;
pub mod status;
pub mod survey;
#[cfg(test)]
mod survey_tests;
pub mod text;
pub mod time;
pub mod topology;
pub mod users;
pub mod window;
pub mod world;

pub use databases::{DeviceMark, PoolActivation, PoolDb, SnapshotDb, ThinDetails};
pub use device_record::{DeviceRecord, DeviceState, IdState};
pub use diagnosis::{Act, Condition, Diagnoses, Diagnosis, Severity, Treat, Treatment, When};
pub use finding::{Finding, FindingClass, FindingId, Provenance, Subject};
pub use ids::{Bytes, DeviceNumber, PoolName, Sectors, SnapshotId, ThinId, TxId};
pub use observation::{Incarnation, Observation};
pub use operation::{Operation, OperationId, OperationState, Side};
pub use origin::Origin;
pub use plan::{Action, Decision, Guard, GuardReading, Outcome, Plan};
pub use policy::{Command, Effect, Mode, PlanId, Refusal, Verdict};
pub use repair::{ConditionReading, RepairIntent, RepairMode, RepairOutcome, RepairPlan};
pub use saga::{Saga, SagaKind, SagaState, Windows};
pub use shared::Shared;
pub use space::{DeviceSpace, Reclaimable, Space};
pub use status::Status;
pub use survey::{ContainerdState, CoreDb, Knowledge, PoolUsage, Survey, Users};
pub use text::Untrusted;
pub use time::Timestamp;
pub use topology::Topology;
pub use users::UserIndex;
pub use window::Window;
pub use world::{DataOwners, Node, Pool, PoolMode, PoolView, Questions, World};
