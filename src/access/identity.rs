//! Whose face a track shows, with a bound on the error: a sequential test over frames. Pure.
//!
//! `false_accept_per_attempt` bounds the false positive identification rate of one attempt of a
//! stranger against the whole gallery.

use std::sync::Arc;

use thiserror::Error;

use crate::face::comparison::Score;
use crate::face::comparison::ScoreMap;
use crate::face::tail::Tail;
use crate::face::tail::upper_quantile;
use crate::face::tail::upper_tail;
use crate::gallery::names::PersonId;

/// Candidates of one frame that are looked at: the best of a search of the gallery.
pub const CANDIDATES_MAX: usize = 4;
/// People who are followed at one time, per track.
pub const FOLLOWED_MAX: usize = 8;
/// Least lead of the accepted person over the next one, as a difference of mean cosines.
pub const MARGIN_MIN: f32 = 0.05;

/// One person's similarity to the face of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Who.
    pub person: PersonId,
    /// Cosine similarity of the best reference, -1 to 1.
    pub cosine: f32,
}

/// What is asked of a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IdentityOptions {
    /// Greatest chance that one attempt of a stranger is accepted as anybody, 0 to 1.
    pub false_accept_per_attempt: f64,
    /// Searchable references of the gallery as it is now.
    pub references: usize,
    /// Least similarity score whatever the evidence, of the mean and of the deciding frame.
    pub score_min: Score,
}

/// The options with what the model can say; made anew when the gallery's number of references
/// changes.
#[derive(Clone, Debug)]
pub struct IdentityRules {
    options: IdentityOptions,
    tail: Arc<Tail>,
    score_map: Arc<ScoreMap>,
}

/// The asked rate cannot be promised; nobody is accepted by identity.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "the embedding model cannot promise {asked} false accepts per attempt against {references} \
     references: up to {references_max} are supported, or from {false_accept_min:.1e} on"
)]
pub struct Unsupported {
    /// What the configuration asks for.
    pub asked: f64,
    /// References of the gallery.
    pub references: usize,
    /// References up to which the rate that is asked for can be promised.
    pub references_max: usize,
    /// The smallest rate that can be promised against these references.
    pub false_accept_min: f64,
}

/// What the frames say so far.
#[derive(Clone, Debug, PartialEq)]
pub enum IdentityVerdict {
    /// More frames may decide.
    Waiting,
    /// Nobody is plausible any more.
    Nobody,
    /// One person, within the bound.
    Accepted(Acceptance),
    /// Two people, both within the bound or too near to each other.
    Ambiguous {
        /// The best.
        first: PersonId,
        /// The next.
        second: PersonId,
    },
}

/// A person and the evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Acceptance {
    /// Who.
    pub person: PersonId,
    /// Upper bound of the chance that one attempt of a stranger gets this far with anybody.
    pub false_accept: f64,
    /// Mean over the frames.
    pub mean_cosine: f32,
    /// Lead over the next person in mean cosine; `None`: there is nobody else.
    pub margin: Option<f32>,
    /// Frames that it rests on.
    pub frames: u32,
}

/// The test of one track. Holds sums per person, no templates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdentityTest {
    followed: Vec<Followed>,
    frames: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Followed {
    person: PersonId,
    frames: u32,
    normal_scores: f64,
    cosines: f64,
    latest: f32,
}

impl IdentityRules {
    /// Rules for a model's tail and score map.
    pub fn new(tail: Arc<Tail>, score_map: Arc<ScoreMap>, options: IdentityOptions) -> Self {
        Self { options, tail, score_map }
    }

    /// What was asked for.
    pub fn options(&self) -> IdentityOptions {
        self.options
    }

    /// Whether the model can promise what is asked for. Where it cannot, nobody is accepted.
    pub fn supported(&self) -> Result<(), Unsupported> {
        let correlation = self.tail.correlation();
        let rarest = upper_tail(self.tail.normal_score_max() / correlation.sqrt());
        let asked = self.options.false_accept_per_attempt;
        let references = self.options.references.max(1);
        let false_accept_min = rarest * references as f64;
        if asked >= false_accept_min {
            return Ok(());
        }
        let references_max = (asked / rarest) as usize;
        Err(Unsupported { asked, references, references_max, false_accept_min })
    }
}

impl IdentityTest {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one frame: its candidates, best first (at most [`CANDIDATES_MAX`] are looked at).
    /// `known` answers the cosine of a person who is followed already and not among them; `None`
    /// when the person is no longer enrolled, who is then forgotten.
    pub fn see(
        &mut self,
        rules: &IdentityRules,
        candidates: &[Comparison],
        known: &dyn Fn(&PersonId) -> Option<f32>,
    ) {
        self.frames = self.frames.saturating_add(1);
        let candidates = &candidates[..candidates.len().min(CANDIDATES_MAX)];
        let listed = |person: &PersonId| {
            candidates.iter().find(|candidate| candidate.person == *person).map(|c| c.cosine)
        };
        self.followed.retain_mut(|followed| {
            let cosine = listed(&followed.person).or_else(|| known(&followed.person));
            cosine.inspect(|cosine| followed.see(rules, *cosine)).is_some()
        });
        for candidate in candidates {
            let is_new = self.followed.iter().all(|followed| followed.person != candidate.person);
            if is_new && self.followed.len() < FOLLOWED_MAX {
                let mut followed = Followed::new(candidate.person.clone());
                followed.see(rules, candidate.cosine);
                self.followed.push(followed);
            }
        }
    }

    /// What the frames say so far.
    pub fn verdict(&self, rules: &IdentityRules) -> IdentityVerdict {
        let Some(best) = self.leading(rules) else { return IdentityVerdict::Nobody };
        let latest = self.followed.iter().find(|followed| followed.person == best.person);
        let floor = rules.options.score_min;
        let reaches = |cosine: f32| rules.score_map.score(cosine) >= floor;
        let accepted = rules.supported().is_ok()
            && best.false_accept <= rules.options.false_accept_per_attempt
            && reaches(best.mean_cosine)
            && latest.is_some_and(|followed| reaches(followed.latest));
        if !accepted {
            return IdentityVerdict::Waiting;
        }
        match (best.margin, self.ranked().get(1)) {
            (Some(margin), Some(second)) if margin < MARGIN_MIN => {
                IdentityVerdict::Ambiguous { first: best.person, second: second.person.clone() }
            }
            _ => IdentityVerdict::Accepted(best),
        }
    }

    /// The most plausible person so far and how far the evidence goes, accepted or not.
    pub fn leading(&self, rules: &IdentityRules) -> Option<Acceptance> {
        let ranked = self.ranked();
        let best = *ranked.first()?;
        let references = rules.options.references.max(1) as f64;
        let chance = upper_tail(best.evidence(rules.tail.correlation()));
        Some(Acceptance {
            person: best.person.clone(),
            false_accept: (chance * references).min(1.0),
            mean_cosine: best.mean_cosine(),
            margin: ranked.get(1).map(|second| best.mean_cosine() - second.mean_cosine()),
            frames: best.frames,
        })
    }

    /// By decreasing mean cosine.
    fn ranked(&self) -> Vec<&Followed> {
        let mut ranked: Vec<&Followed> = self.followed.iter().collect();
        ranked.sort_by(|a, b| b.mean_cosine().total_cmp(&a.mean_cosine()));
        ranked
    }
}

impl Followed {
    fn new(person: PersonId) -> Self {
        Self { person, frames: 0, normal_scores: 0.0, cosines: 0.0, latest: -1.0 }
    }

    fn see(&mut self, rules: &IdentityRules, cosine: f32) {
        self.frames = self.frames.saturating_add(1);
        self.normal_scores += rules.tail.normal_score(cosine);
        self.cosines += f64::from(cosine);
        self.latest = cosine;
    }

    fn mean_cosine(&self) -> f32 {
        (self.cosines / f64::from(self.frames.max(1))) as f32
    }

    /// The mean normal score in standard deviations of what correlated frames of a stranger give.
    fn evidence(&self, correlation: f64) -> f64 {
        let frames = f64::from(self.frames.max(1));
        let variance = correlation + (1.0 - correlation) / frames;
        self.normal_scores / frames / variance.sqrt()
    }
}

/// The smallest normal score of one frame that decides alone.
pub fn single_frame_score(rules: &IdentityRules) -> f64 {
    let options = rules.options;
    upper_quantile(options.false_accept_per_attempt / options.references.max(1) as f64)
}
