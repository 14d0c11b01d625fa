//! The best candidates of a search so far, bounded in number.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::gallery::person::Member;

/// What a search is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchOptions {
    /// Least cosine similarity, inclusive; NaN matches nobody.
    ///
    /// A threshold on the score goes through `ScoreMap::cosine`, which rounds: search with
    /// [`SearchOptions::for_score`] and drop candidates whose own score is too low.
    pub cosine_min: f32,
    /// Most candidates that are answered.
    pub results_max: usize,
}

/// More than the score map's interpolation in `f32` can round a threshold by, on the way from a
/// score to a cosine and back. A wide margin costs nothing, since the caller checks the score.
const THRESHOLD_ROUNDING: f32 = 4e-5;

impl SearchOptions {
    /// Options that find everybody whose score reaches a threshold, given the cosine that the map
    /// answers for it, and perhaps somebody who misses it by a rounding error: callers compare the
    /// candidates' scores with the threshold themselves.
    pub fn for_score(cosine: f32, results_max: usize) -> Self {
        Self { cosine_min: cosine - THRESHOLD_ROUNDING, results_max }
    }
}

/// A person who resembles the probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub person: Arc<Member>,
    /// Cosine similarity of the best reference, -1 to 1.
    pub cosine: f32,
    /// Position of that reference among the person's, from 0; the first of equals.
    pub reference: usize,
}

/// A candidate that borrows from the leaf it was found in; the greatest is the worst, so that a
/// heap shows the one to drop.
struct Ranked<'a> {
    person: &'a Arc<Member>,
    cosine: f32,
    reference: usize,
}

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.cosine.total_cmp(&self.cosine).then_with(|| self.person.id.cmp(&other.person.id))
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked<'_> {}

/// The best people so far, at most `results_max` of them.
pub(crate) struct Ranking<'a> {
    options: SearchOptions,
    heap: BinaryHeap<Ranked<'a>>,
}

impl<'a> Ranking<'a> {
    /// An empty ranking for a gallery of `persons`.
    pub(crate) fn new(options: SearchOptions, persons: usize) -> Self {
        Self { options, heap: BinaryHeap::with_capacity(options.results_max.min(persons)) }
    }

    /// The least cosine that can still change the ranking; equal ones can, by their id.
    pub(crate) fn bar(&self) -> f32 {
        match self.heap.peek() {
            _ if self.options.results_max == 0 => f32::INFINITY,
            Some(worst) if self.heap.len() >= self.options.results_max => worst.cosine,
            _ => self.options.cosine_min,
        }
    }

    /// Takes a person's best reference, if it is good enough. A person must come once.
    pub(crate) fn offer(&mut self, person: &'a Arc<Member>, cosine: f32, reference: usize) {
        if !(cosine >= self.bar()) {
            return;
        }
        let ranked = Ranked { person, cosine, reference };
        if self.heap.len() < self.options.results_max {
            self.heap.push(ranked);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && ranked < *worst
        {
            *worst = ranked;
        }
    }

    /// The candidates, best first.
    pub(crate) fn into_candidates(self) -> Vec<Candidate> {
        let ranked = self.heap.into_sorted_vec().into_iter();
        ranked
            .map(|Ranked { person, cosine, reference }| Candidate {
                person: Arc::clone(person),
                cosine,
                reference,
            })
            .collect()
    }
}
