//! The vocabulary that all rooms share: identifiers, states, observations, operations, findings, plans.
//! Plain values only: nothing here reads a clock, a file or the kernel.
//! Names are the field's own (device-mapper, thin-provisioning, containerd).

pub mod device_record;
pub mod dm;
pub mod ids;
pub mod observation;
pub mod text;
pub mod time;

pub use device_record::{DeviceRecord, DeviceState, IdState};
pub use ids::{Bytes, DeviceNumber, PoolName, Sectors, SnapshotId, ThinId, TxId};
pub use observation::{Incarnation, Observation};
pub use text::Untrusted;
pub use time::Timestamp;
