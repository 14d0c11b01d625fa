//! The running binary: started, asked, stopped, killed and started again, as a user would.
//!
//! Every test has a folder, a store and ports of its own. Faces are drawn (`tests/pictures/people`);
//! photographs of `../shared/faces` come besides in the contract and at the door, once each. Where
//! they, a model pack or a broker are absent, the tests that need them say so by name and pass.
#![cfg(feature = "onnx")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

#[path = "../api_support/mod.rs"]
mod api_support;
mod backup;
mod camera;
mod checks;
mod commands;
mod contract;
mod door;
mod endurance;
mod first_start;
mod first_use;
mod liveness_eval;
mod models;
mod pad_record;
mod privacy;
mod read_only;
mod support;
