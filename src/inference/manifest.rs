//! `models/manifest.toml`: which files make which pack, their hashes, licences, origin,
//! preprocessing and score map; finding, checking and installing them.
