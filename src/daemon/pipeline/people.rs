//! Whom a camera knows: one moment's gallery, and how sure it must be.

use std::sync::Arc;

use crate::access::attempt::observation::Identification;
use crate::access::attempt::observation::IdentityRule;
use crate::access::identity::CANDIDATES_MAX;
use crate::access::identity::Comparison;
use crate::access::identity::IdentityOptions;
use crate::access::identity::IdentityRules;
use crate::config::CameraConfig;
use crate::face::eyes::EyeRatio;
use crate::face::template::Template;
use crate::gallery::Gallery;
use crate::gallery::names::PersonId;
use crate::gallery::person::Member;
use crate::gallery::ranking::SearchOptions;
use crate::recognition::RecognitionInfo;

/// The least cosine there is: whom nobody resembles much has candidates, too, and how little they
/// resemble is what the sequential test goes by.
const ANY_COSINE: f32 = -1.0;

/// The people of a collection at one moment; cheap to clone.
#[derive(Clone, Debug)]
pub struct People {
    gallery: Arc<Gallery>,
    identification: Identification,
}

impl People {
    /// With what the camera asks for and the model can say.
    pub fn new(gallery: Arc<Gallery>, camera: &CameraConfig, info: &RecognitionInfo) -> Self {
        let score_map = Arc::new(info.score_map.clone());
        let options = IdentityOptions {
            false_accept_per_attempt: camera.false_accept_per_attempt,
            references: gallery.references(),
            score_min: camera.min_similarity_score,
        };
        let rules = IdentityRules::new(Arc::clone(&info.tail), Arc::clone(&score_map), options);
        let rule = IdentityRule::Sequential(rules);
        let score_min = camera.min_similarity_score;
        Self { gallery, identification: Identification { rule, score_min, score_map } }
    }

    /// How a face becomes one of them.
    pub fn identification(&self) -> &Identification {
        &self.identification
    }

    /// Whom the face resembles most, best first.
    pub fn candidates(&self, template: &Template) -> Vec<Comparison> {
        let options = SearchOptions { cosine_min: ANY_COSINE, results_max: CANDIDATES_MAX };
        let found = self.gallery.search(template, options).into_iter();
        found
            .map(|found| Comparison { person: found.person.id.clone(), cosine: found.cosine })
            .collect()
    }

    /// How much a face resembles one of them; `None` for who is not enrolled.
    pub fn cosine(&self, template: &Template, person: &PersonId) -> Option<f32> {
        self.gallery.cosine(template, person)
    }

    /// A person, if still enrolled.
    pub fn member(&self, person: &PersonId) -> Option<&Arc<Member>> {
        self.gallery.member(person)
    }

    /// How open the own eyes are of whom the face resembles most, if it does enough and they are
    /// known.
    pub fn own_eyes(&self, candidates: &[Comparison]) -> Option<EyeRatio> {
        let Identification { score_min, score_map, .. } = &self.identification;
        let best = candidates.first().filter(|best| score_map.score(best.cosine) >= *score_min)?;
        self.member(&best.person)?.eye_ratio
    }
}
