//! The HTTP service: routes, keys, limits, JSON forms, and the server that carries them.
//!
//! [`service`] answers complete requests and knows no sockets, so tests call it directly. A request
//! passes [`path`] (which endpoint), [`auth`] (may the caller), [`body`] and [`forms`] (what is
//! asked), one handler module per subject, [`faces`] (the work on a recognition worker) and leaves
//! as [`answers`] or as an [`error`]. [`openapi`] describes all of it from the same types.
//! [`server`] owns sockets, limits and time-outs, [`tls`] the certificate, [`pages`] what browsers
//! show.

pub mod answers;
pub mod audit;
pub mod auth;
pub mod base64_image;
pub mod body;
pub mod bulk;
pub mod collections;
pub mod compare;
pub mod connection;
pub mod error;
pub mod events;
pub mod explain;
pub mod faces;
pub mod forms;
pub mod guarded;
pub mod keys;
pub mod liveness;
pub mod local_socket;
pub mod lockout;
pub mod openapi;
pub mod operations;
pub mod oracle;
pub mod pages;
pub mod path;
pub mod persons;
pub mod query;
pub mod reply;
pub mod search;
pub mod server;
pub mod service;
pub mod serving;
pub mod stored_images;
pub mod stream;
pub mod system;
pub mod threshold;
pub mod tls;
pub mod upkeep;
