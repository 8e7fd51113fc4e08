//! The crash table by simulation: containerd's own algorithms over its databases, a thin pool and dm devices, stopped after
//! every durable step by a kill or by a power cut; then suture's real diagnosis, plans and repairs, which are killed at every
//! step too. At the end the snapshotter works, nothing that is referenced is lost, and nothing is left but what the policy
//! leaves to a person. Each guard has an adversary from whom it alone protects.

#[cfg(test)]
mod containerd;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod guards;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod many;
#[cfg(test)]
mod many_rounds;
#[cfg(test)]
mod one;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod rounds;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod sidecar;
#[cfg(test)]
mod suture;
#[cfg(test)]
mod table;
#[cfg(test)]
mod view;
