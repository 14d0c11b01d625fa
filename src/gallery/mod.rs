//! The gallery: an immutable snapshot of one collection's people and templates, and exact 1:N
//! search over it.
//!
//! Writers make a new snapshot that shares everything unchanged with the old one; readers hold an
//! `Arc` and never wait. Pure.

pub mod names;
pub mod person;
