//! The store on redb: one file, one writer, every commit durable.
