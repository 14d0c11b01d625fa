//! The daemon: what is started, in which order, and how it stops.

pub mod pipeline;
pub mod snapshot;
