//! Video4Linux2 devices: enumeration, format negotiation, memory-mapped streaming on its own thread.
