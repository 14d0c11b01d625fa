//! Sealing of records: XChaCha20-Poly1305 with random nonces, record id and schema version as associated data.
