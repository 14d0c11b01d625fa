//! Attempts on paper: the frames of visits against drawn galleries, by the sequential test and by a
//! fixed threshold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::identity::CANDIDATES_MAX;
use crate::access::identity::Comparison;
use crate::access::identity::IdentityRules;
use crate::access::identity::IdentityTest;
use crate::access::identity::IdentityVerdict;
use crate::clock::UtcTime;
use crate::face::template::Template;
use crate::gallery::Gallery;
use crate::gallery::names::PersonId;
use crate::gallery::person::EmbeddingModelId;
use crate::gallery::person::FaceStorageType;
use crate::gallery::person::Person;
use crate::gallery::person::Reference;
use crate::gallery::ranking::SearchOptions;

/// The id of a person of the data set. Names stay out of it.
#[allow(clippy::missing_panics_doc, reason = "digits are an id")]
pub fn id(person: usize) -> PersonId {
    PersonId::new(&person.to_string()).expect("digits are an id")
}

/// A gallery of people with one reference each.
pub fn gallery(people: &[(usize, &Template)]) -> Gallery {
    let model = EmbeddingModelId(String::new());
    let dimension = people.first().map_or(1, |(_, template)| template.dimension());
    let person = |(person, template): &(usize, &Template)| {
        Arc::new(Person {
            id: id(*person),
            name: String::new(),
            metadata: BTreeMap::new(),
            storage: FaceStorageType::NoStorage,
            references: vec![Reference { template: (*template).clone(), model: model.clone() }],
            eye_ratio: None,
            created: UtcTime::from_millis(0),
            updated: UtcTime::from_millis(0),
        })
    };
    let people: Vec<_> = people.iter().map(person).collect();
    Gallery::new(model.clone(), dimension).with_persons(&people)
}

/// What every usable frame of a visit shows: its place in the visit, and the best candidates.
pub struct Seen<'a> {
    frames: Vec<(usize, &'a Template, Vec<Comparison>)>,
}

/// A decision for somebody.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// Who.
    pub person: PersonId,
    /// Usable frames up to this one, from 1.
    pub frames: usize,
    /// Frames of the camera since the first usable one.
    pub elapsed: usize,
}

impl<'a> Seen<'a> {
    /// Searches the gallery with each frame that shows a face.
    pub fn new(frames: &'a [Option<Template>], gallery: &Gallery) -> Self {
        let options = SearchOptions { cosine_min: -1.0, results_max: CANDIDATES_MAX };
        let candidates = |template: &Template| -> Vec<Comparison> {
            let found = gallery.search(template, options).into_iter();
            found.map(|c| Comparison { person: c.person.id.clone(), cosine: c.cosine }).collect()
        };
        let usable = frames.iter().enumerate();
        let frames = usable
            .filter_map(|(at, frame)| frame.as_ref().map(|t| (at, t, candidates(t))))
            .collect();
        Self { frames }
    }

    /// Usable frames.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The first acceptance of the sequential test.
    pub fn sequential(&self, gallery: &Gallery, rules: &IdentityRules) -> Option<Decided> {
        let mut test = IdentityTest::new();
        self.frames.iter().enumerate().find_map(|(at, (_, template, candidates))| {
            test.see(rules, candidates, &|person| gallery.cosine(template, person));
            match test.verdict(rules) {
                IdentityVerdict::Accepted(acceptance) => Some(self.decided(at, acceptance.person)),
                _ => None,
            }
        })
    }

    /// The first frame whose best candidate reaches a cosine.
    pub fn fixed(&self, cosine_min: f32) -> Option<Decided> {
        self.frames.iter().enumerate().find_map(|(at, (_, _, candidates))| {
            let best = candidates.first().filter(|best| best.cosine >= cosine_min)?;
            Some(self.decided(at, best.person.clone()))
        })
    }

    /// The greatest cosine of any frame.
    pub fn best_cosine(&self) -> f32 {
        let best = self.frames.iter().filter_map(|(_, _, candidates)| candidates.first());
        best.map(|best| best.cosine).fold(-1.0, f32::max)
    }

    fn decided(&self, at: usize, person: PersonId) -> Decided {
        Decided { person, frames: at + 1, elapsed: self.frames[at].0 - self.frames[0].0 }
    }
}

/// What became of the visits of enrolled people under one rule.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Visits with a usable frame.
    pub visits: u64,
    /// Accepted as somebody else.
    pub wrong: u64,
    /// Not accepted within the visit.
    pub denied: u64,
    /// Usable frames until the right decision; of a visit without one, all of them.
    frames: Vec<f64>,
    /// Camera frames since the first usable one, of right decisions.
    elapsed: Vec<f64>,
}

impl Tally {
    /// Counts one visit.
    pub fn add(&mut self, seen: &Seen<'_>, decided: Option<Decided>, expected: &PersonId) {
        if seen.len() == 0 {
            return;
        }
        self.visits += 1;
        match decided {
            Some(decided) if decided.person == *expected => {
                self.frames.push(decided.frames as f64);
                self.elapsed.push(decided.elapsed as f64);
            }
            decided => {
                self.wrong += u64::from(decided.is_some());
                self.denied += u64::from(decided.is_none());
                self.frames.push(seen.len() as f64);
            }
        }
    }

    /// Mean of the frames until the right decision, and its standard error.
    pub fn mean_frames(&self) -> (f64, f64) {
        let n = self.frames.len().max(1) as f64;
        let mean = self.frames.iter().sum::<f64>() / n;
        let variance = self.frames.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / n;
        (mean, (variance / n).sqrt())
    }

    /// The frame since the first usable one at which a share of the right decisions had been made.
    pub fn elapsed_at(&self, share: f64) -> f64 {
        let mut sorted = self.elapsed.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}
