//! Configuration as written: TOML keys, their defaults, environment overrides, and the checks.
