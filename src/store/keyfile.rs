//! Where the master key of the store comes from.
