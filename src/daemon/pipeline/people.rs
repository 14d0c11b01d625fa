//! Whom a camera knows: one moment's gallery and the camera's threshold.

use std::sync::Arc;

use crate::face::comparison::Score;
use crate::face::comparison::ScoreMap;
use crate::face::eyes::EyeRatio;
use crate::face::template::Template;
use crate::gallery::Gallery;
use crate::gallery::person::Member;
use crate::gallery::ranking::SearchOptions;

/// The person that a face belongs to.
#[derive(Clone, Debug)]
pub struct Recognised {
    /// Who.
    pub member: Arc<Member>,
    /// How sure, on the caller's scale.
    pub score: Score,
}

/// The people of a collection, and how similar a face must be to be one of them.
#[derive(Clone, Debug)]
pub struct People {
    /// Who is enrolled.
    pub gallery: Arc<Gallery>,
    /// From cosine to score.
    pub map: ScoreMap,
    /// Least score, inclusive.
    pub least: Score,
}

impl People {
    /// The best candidate, if it reaches the threshold.
    pub fn best(&self, template: &Template) -> Option<Recognised> {
        let options = SearchOptions::for_score(self.map.cosine(self.least), 1);
        let best = self.gallery.search(template, options).into_iter().next()?;
        let score = self.map.score(best.cosine);
        (score >= self.least).then_some(Recognised { member: best.person, score })
    }

    /// How open the own eyes of the person are whom the face belongs to, if known.
    pub fn own_eyes(&self, template: &Template) -> Option<EyeRatio> {
        self.best(template)?.member.eye_ratio
    }
}
