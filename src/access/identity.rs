//! Whose face a track shows, with a bound on the error: a sequential test over frames. Pure.
//!
//! `false_accept_per_attempt` bounds the false positive identification rate of one attempt of a
//! stranger against the whole gallery.

use crate::gallery::names::PersonId;

/// One person's similarity to the face of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Who.
    pub person: PersonId,
    /// Cosine similarity of the best reference, -1 to 1.
    pub cosine: f32,
}
