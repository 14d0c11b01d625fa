//! A bounded queue of messages that the broker has not acknowledged. Pure.
