//! The HTTP service: routes, keys, limits, JSON forms, and the server that carries them.

pub mod connection;
pub mod guarded;
pub mod local_socket;
pub mod pages;
pub mod server;
pub mod tls;
