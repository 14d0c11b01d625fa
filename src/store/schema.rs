//! The form of records and tables, their version, and the way from older versions.
