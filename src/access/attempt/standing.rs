//! What is known of one track: who it may be, how live it is, and what was reported of it. Pure.
//!
//! Of a face nothing is kept but numbers and, while the track lasts, the few pixels of the latest
//! frame that tell whether it changes.

use crate::access::agreement::Agreement;
use crate::access::attempt::IDENTITY_PLAUSIBLE_MAX;
use crate::access::attempt::NEAR_FACE_PX;
use crate::access::attempt::PERSON_HOLD;
use crate::access::attempt::observation::Evidence;
use crate::access::attempt::observation::Identification;
use crate::access::attempt::observation::IdentityRule;
use crate::access::attempt::observation::Look;
use crate::access::attempt::observation::Observation;
use crate::access::event::Reason;
use crate::access::grant::Identity;
use crate::access::identity::Acceptance;
use crate::access::identity::Comparison;
use crate::access::identity::IdentityRules;
use crate::access::identity::IdentityTest;
use crate::access::identity::IdentityVerdict;
use crate::access::identity::MARGIN_MIN;
use crate::access::stillness::Stillness;
use crate::access::waiting::Waiting;
use crate::clock::Moment;
use crate::face::quality::Quality;
use crate::gallery::names::PersonId;

/// Answers the cosine of the face in a frame with one person; `None`: not enrolled any more.
pub type Known<'a> = &'a dyn Fn(&PersonId) -> Option<f32>;

/// Whom a look shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Who {
    /// Nobody who is enrolled, as far as this frame goes.
    Nobody,
    /// Perhaps somebody; more frames may tell, and this is the reason if they do not.
    Undecided(Reason),
    /// This person.
    Person(PersonId),
}

/// One track. Fields that begin with "has" are set once and stay.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each told by its name")]
pub(super) struct Standing {
    pub frames: u32,
    pub last_seen: Moment,
    /// The best shot so far.
    pub best: Quality,
    /// Looks, when the first and the latest were, and whether the latest left no question open.
    pub looks: u32,
    pub first_look: Moment,
    pub last_look: Moment,
    pub settled: bool,
    /// When somebody over the floor was last seen here, and who.
    pub recognised: Option<Moment>,
    pub person: Option<PersonId>,
    test: IdentityTest,
    /// Whom the test has accepted, and how sure it was at the latest look.
    decided: Option<PersonId>,
    pub identity: Option<Identity>,
    /// Looks in a row that show nobody, and the first of them.
    pub unknown: (u32, Moment),
    /// Since when it has been undecided who it is.
    pub undecided: Option<Moment>,
    pub liveness: Agreement,
    pub stillness: Stillness,
    pub has_attacked: bool,
    /// A recognised person waits here for an answer on liveness.
    pub waiting: Option<Waiting>,
    /// No shot has been worth a look.
    pub flawed: Option<Waiting>,
    /// Who was reported here as a match.
    pub accepted: Option<PersonId>,
    pub has_stranger_reported: bool,
    pub has_spoof_reported: bool,
    pub has_denial_reported: bool,
    /// An event was made of this track; a report that was withheld sets the others alone.
    pub has_been_told: bool,
}

impl Standing {
    pub fn new(shot: Quality, now: Moment) -> Self {
        Self {
            frames: 0,
            last_seen: now,
            best: shot,
            looks: 0,
            first_look: now,
            last_look: now,
            settled: false,
            recognised: None,
            person: None,
            test: IdentityTest::new(),
            decided: None,
            identity: None,
            unknown: (0, now),
            undecided: None,
            liveness: Agreement::default(),
            stillness: Stillness::default(),
            has_attacked: false,
            waiting: None,
            flawed: None,
            accepted: None,
            has_stranger_reported: false,
            has_spoof_reported: false,
            has_denial_reported: false,
            has_been_told: false,
        }
    }

    /// Whether anything was reported of this track.
    pub fn is_reported(&self) -> bool {
        self.accepted.is_some()
            || self.has_stranger_reported
            || self.has_spoof_reported
            || self.has_denial_reported
    }

    /// Whether somebody nobody knows, or an attack, came near, and no event says so: what is told
    /// once in a cool-down is tried as often as one likes.
    pub fn has_failed_untold(&self) -> bool {
        let was_near = self.best.face_px >= NEAR_FACE_PX;
        let failed = self.has_attacked || self.unknown.0 > 0;
        was_near && failed && self.accepted.is_none() && !self.has_been_told
    }

    /// Takes a frame; what a look of it shows.
    pub fn see(
        &mut self,
        observation: &Observation,
        identification: &Identification,
        known: Known<'_>,
        now: Moment,
    ) -> Option<Who> {
        self.last_seen = now;
        self.frames = self.frames.saturating_add(1);
        if observation.quality.score() > self.best.score() {
            self.best = observation.quality;
        }
        let Some(look) = &observation.look else {
            self.stillness.see(observation.signature.as_ref(), now);
            return None;
        };
        if self.looks == 0 {
            self.first_look = now;
        }
        self.looks = self.looks.saturating_add(1);
        (self.last_look, self.flawed) = (now, None);
        let lead = identification.lead(look).map(|best| best.person.clone());
        if lead.is_some() && lead != self.person {
            // Another face in this place: how live the one before was, and that it changed, says
            // nothing about it.
            self.liveness = Agreement::default();
            self.stillness = Stillness::default();
            self.person.clone_from(&lead);
        }
        self.stillness.see(observation.signature.as_ref(), now);
        self.see_evidence(observation, look, lead.as_ref());
        self.see_presence(lead.as_ref(), now);
        let who = self.identify(identification, look, lead, known);
        match who {
            Who::Nobody => {}
            Who::Undecided(_) => _ = self.undecided.get_or_insert(now),
            Who::Person(_) => self.undecided = None,
        }
        if who == Who::Nobody && self.person.is_none() {
            let (frames, since) = self.unknown;
            self.unknown = (frames.saturating_add(1), if frames == 0 { now } else { since });
        }
        Some(who)
    }

    fn see_evidence(&mut self, observation: &Observation, look: &Look, lead: Option<&PersonId>) {
        match self.evidence(observation, look) {
            // A frame that may show somebody else speaks for nobody, and still against.
            Evidence::Live if lead == self.person.as_ref() => self.liveness.see(true),
            Evidence::Spoof => {
                self.liveness.see(false);
                self.has_attacked = true;
            }
            Evidence::Live | Evidence::Unsure(_) | Evidence::Unchecked => {}
        }
    }

    fn see_presence(&mut self, lead: Option<&PersonId>, now: Moment) {
        if lead.is_some() {
            self.recognised = Some(now);
            self.unknown = (0, now);
        } else if self.recognised.is_none_or(|last| now.since(last) >= PERSON_HOLD) {
            self.accepted = None;
            self.waiting = None;
            if self.person.take().is_some() {
                self.liveness = Agreement::default();
                (self.identity, self.undecided) = (None, None);
                if self.decided.take().is_some() {
                    self.test = IdentityTest::new();
                }
            }
        }
    }

    /// The frame's evidence. A face that never changes is no live one, and one that has not changed
    /// yet, or of which that cannot be told, is not known to be.
    pub fn evidence(&self, observation: &Observation, look: &Look) -> Evidence {
        match look.evidence {
            Evidence::Live if self.stillness.is_frozen() => Evidence::Spoof,
            Evidence::Live if observation.signature.is_none() || !self.stillness.is_moving() => {
                Evidence::Unchecked
            }
            evidence => evidence,
        }
    }

    fn identify(
        &mut self,
        identification: &Identification,
        look: &Look,
        lead: Option<PersonId>,
        known: Known<'_>,
    ) -> Who {
        let IdentityRule::Sequential(rules) = &identification.rule else {
            self.identity = identification.lead(look).map(|_| identification.of_frame(look));
            return lead.map_or(Who::Nobody, Who::Person);
        };
        if self.decided.is_some() && lead.is_some() && lead != self.decided {
            // Somebody else than the one who was decided on: evidence begins anew, or it would be
            // diluted by all the frames of the one before. Where nobody was, it never does: each
            // new beginning would be another attempt of the same stranger.
            (self.test, self.decided) = (IdentityTest::new(), None);
        }
        self.test.see(rules, &look.candidates, known);
        let leading = self.test.leading(rules);
        self.identity = leading.as_ref().map(|found| identification.of_track(rules, found));
        let plausible = lead.is_some()
            || leading.is_some_and(|found| found.false_accept <= IDENTITY_PLAUSIBLE_MAX);
        match self.test.verdict(rules) {
            IdentityVerdict::Accepted(found) if Some(&found.person) == lead.as_ref() => {
                let sure = identification.of_track(rules, &found);
                self.identity = Some(Identity { accepted: true, ..sure });
                self.decided = Some(found.person.clone());
                Who::Person(found.person)
            }
            IdentityVerdict::Ambiguous { .. } => Who::Undecided(Reason::AmbiguousTop2),
            IdentityVerdict::Nobody if lead.is_none() => Who::Nobody,
            _ if plausible => Who::Undecided(Reason::BelowThreshold),
            _ => Who::Nobody,
        }
    }
}

impl Identification {
    /// The best candidate, if it reaches the floor.
    pub(super) fn lead<'a>(&self, look: &'a Look) -> Option<&'a Comparison> {
        let best = look.candidates.first()?;
        (self.score_map.score(best.cosine) >= self.score_min).then_some(best)
    }

    /// By one frame over the floor: nothing is promised about its errors.
    fn of_frame(&self, look: &Look) -> Identity {
        let cosine = |at: usize| look.candidates.get(at).map(|candidate| candidate.cosine);
        let best = cosine(0).unwrap_or(-1.0);
        Identity {
            accepted: true,
            false_accept: 1.0,
            false_accept_max: 0.0,
            score: self.score_map.score(best).value(),
            score_min: self.score_min.value(),
            margin: cosine(1).map(|second| best - second),
            margin_min: MARGIN_MIN,
        }
    }

    fn of_track(&self, rules: &IdentityRules, found: &Acceptance) -> Identity {
        Identity {
            accepted: false,
            false_accept: found.false_accept,
            false_accept_max: rules.options().false_accept_per_attempt,
            score: self.score_map.score(found.mean_cosine).value(),
            score_min: self.score_min.value(),
            margin: found.margin,
            margin_min: MARGIN_MIN,
        }
    }
}
