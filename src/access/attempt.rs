//! One event per person who stands there, not thirty a second.
