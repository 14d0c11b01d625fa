//! facelatch recognises the faces of enrolled people in front of a camera and answers face-search
//! requests on the local network.
//!
//! The path of the data: [`camera`] delivers raw frames and `camera::pixels` makes pictures of
//! them; `daemon::pipeline` takes the newest one; [`recognition`] runs the detector through the
//! [`inference`] port and decodes its tensors with [`face`]; the largest faces are checked for
//! liveness, aligned and embedded into a [`face::template::Template`]; the [`gallery`] compares it
//! with every reference and ranks candidates; [`access`] turns observations into one event per
//! person who stands there; the event is appended by the [`store`] and sent by the [`bus`].
//! An HTTP request enters at [`web`] and uses the same recognition, gallery and roster: there is
//! one recognition path, not two.
//!
//! `docs/ARCHITECTURE.md` maps the modules and states the invariants; `tests/tidy.rs` enforces the
//! direction of the imports.

pub mod access;
pub mod board;
pub mod bus;
pub mod camera;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod door;
pub mod eval;
pub mod face;
pub mod gallery;
pub mod inference;
pub mod picture;
pub mod recognition;
pub mod roster;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod web;
