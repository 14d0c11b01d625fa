//! The HTTP service: routes, keys, limits, JSON forms, and the server that carries them.
