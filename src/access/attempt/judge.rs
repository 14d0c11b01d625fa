//! What is reported of a track, look by look: strangers, people, attacks, denials. Pure.

use crate::access::attempt::ATTACK_MEMORY;
use crate::access::attempt::Attempts;
use crate::access::attempt::FACE_LEFT_TIME_MIN;
use crate::access::attempt::FLAW_WAIT;
use crate::access::attempt::IDENTITY_WAIT;
use crate::access::attempt::LIVENESS_WAIT;
use crate::access::attempt::LivenessPolicy;
use crate::access::attempt::NEAR_FACE_PX;
use crate::access::attempt::UNKNOWN_FRAMES_MIN;
use crate::access::attempt::UNKNOWN_TIME_MIN;
use crate::access::attempt::observation::Evidence;
use crate::access::attempt::observation::Look;
use crate::access::attempt::observation::Observation;
use crate::access::attempt::observation::Outcome;
use crate::access::attempt::observation::Verdict;
use crate::access::attempt::observation::reason_of;
use crate::access::attempt::standing::Standing;
use crate::access::attempt::standing::Who;
use crate::access::event::Reason;
use crate::access::grant::Liveness;
use crate::access::waiting::Waiting;
use crate::face::liveness::Finding;
use crate::face::liveness::LivenessReason;
use crate::face::quality::Flaw;
use crate::face::quality::Quality;
use crate::face::track::TrackId;
use crate::gallery::names::PersonId;

/// What is told, before the evidence is added.
pub(super) struct Told {
    verdict: Verdict,
    person: Option<PersonId>,
}

impl Told {
    fn of_nobody(verdict: Verdict) -> Self {
        Self { verdict, person: None }
    }

    fn of(verdict: Verdict, person: &PersonId) -> Self {
        Self { verdict, person: Some(person.clone()) }
    }
}

impl Attempts {
    /// Judges a frame that the networks have looked at.
    pub(super) fn judge(
        &mut self,
        standing: &mut Standing,
        observation: &Observation,
        look: &Look,
        who: &Who,
    ) -> Option<Told> {
        let evidence = match self.options.liveness {
            LivenessPolicy::Off => Evidence::Unchecked,
            LivenessPolicy::Required => standing.evidence(observation, look),
        };
        let told = match who {
            Who::Nobody => self.judge_stranger(standing),
            Who::Undecided(reason) => self.judge_undecided(standing, evidence, *reason),
            Who::Person(person) => {
                self.reports.refresh(person, evidence == Evidence::Spoof, self.now);
                self.judge_person(standing, person, evidence, &observation.quality)
            }
        };
        // What looks like an attack is looked at until it is one or is none.
        let is_open = evidence == Evidence::Spoof && !standing.has_spoof_reported;
        standing.settled = !is_open
            && match who {
                Who::Nobody => standing.has_stranger_reported || standing.has_spoof_reported,
                Who::Undecided(_) => false,
                Who::Person(person) => standing.accepted.as_ref() == Some(person),
            };
        told
    }

    fn judge_stranger(&self, standing: &mut Standing) -> Option<Told> {
        if self.is_attack_by_stranger(standing) {
            return tell_attack(standing);
        }
        let (frames, since) = standing.unknown;
        let is_stranger = frames >= UNKNOWN_FRAMES_MIN && self.now.since(since) >= UNKNOWN_TIME_MIN;
        if !is_stranger || standing.has_stranger_reported || standing.has_spoof_reported {
            return None;
        }
        standing.has_stranger_reported = true;
        Some(Told::of_nobody(Verdict::UnknownFace))
    }

    fn is_attack_by_stranger(&self, standing: &Standing) -> bool {
        let required = self.options.liveness == LivenessPolicy::Required;
        required && standing.liveness.is_attack() && standing.accepted.is_none()
    }

    /// Somebody resembles a person, and it is not certain. Nothing is said of a person; what counts
    /// against that person's pictures counts.
    fn judge_undecided(
        &mut self,
        standing: &mut Standing,
        evidence: Evidence,
        reason: Reason,
    ) -> Option<Told> {
        let now = self.now;
        if let Some(person) = &standing.person {
            self.reports.refresh(person, evidence == Evidence::Spoof, now);
            if evidence == Evidence::Spoof {
                self.reports.remember(person, now).attacked = Some(now);
            }
        }
        if self.is_attack_by_stranger(standing) {
            return tell_attack(standing);
        }
        let waited = standing.undecided.is_some_and(|since| now.since(since) >= IDENTITY_WAIT);
        if !waited || standing.is_reported() || self.is_lately_reported(standing) {
            return None;
        }
        standing.has_denial_reported = true;
        if let Some(person) = &standing.person {
            self.reports.remember(person, now).denied = Some(now);
        }
        Some(Told::of_nobody(Verdict::Denied(reason)))
    }

    /// Whether whoever this may be was reported as a match or denied.
    fn is_lately_reported(&self, standing: &Standing) -> bool {
        let reported = standing.person.as_ref().map(|person| self.reports.of(person));
        reported.is_some_and(|reported| reported.matched.is_some() || reported.denied.is_some())
    }

    fn judge_person(
        &mut self,
        standing: &mut Standing,
        person: &PersonId,
        evidence: Evidence,
        shot: &Quality,
    ) -> Option<Told> {
        let is_near = shot.face_px >= self.options.face_px_min;
        let far = Evidence::Unsure(LivenessReason::FaceTooSmall);
        if self.options.liveness == LivenessPolicy::Off {
            if !is_near {
                return self.wait_on(standing, person, far);
            }
            if self.options.asks_motion && !standing.stillness.is_moving() {
                return self.wait_on(standing, person, Evidence::Unchecked);
            }
            return self.report_match(standing, person);
        }
        if evidence == Evidence::Spoof {
            self.reports.remember(person, self.now).attacked = Some(self.now);
        }
        let attacked = self.reports.of(person).attacked;
        let agreed = if attacked.is_some_and(|last| self.now.since(last) < ATTACK_MEMORY) {
            standing.liveness.is_live_after_attack()
        } else {
            standing.liveness.is_live()
        };
        if evidence == Evidence::Live && agreed && is_near {
            return self.report_match(standing, person);
        }
        if standing.accepted.as_ref() != Some(person) && standing.liveness.is_attack() {
            return self.report_spoof(standing, person);
        }
        self.wait_on(
            standing,
            person,
            if evidence == Evidence::Live && agreed { far } else { evidence },
        )
    }

    /// A recognised person has to wait; after some time that is a denial.
    fn wait_on(
        &mut self,
        standing: &mut Standing,
        person: &PersonId,
        evidence: Evidence,
    ) -> Option<Told> {
        if standing.accepted.as_ref() == Some(person) {
            return None;
        }
        let waiting = standing.waiting.get_or_insert_with(|| Waiting::new(self.now));
        waiting.count(evidence);
        if self.now.since(waiting.since()) < LIVENESS_WAIT {
            return None;
        }
        let reason = waiting.most_frequent();
        self.report_denied(standing, person, reason)
    }

    fn report_match(&mut self, standing: &mut Standing, person: &PersonId) -> Option<Told> {
        standing.accepted = Some(person.clone());
        standing.waiting = None;
        let reported = self.reports.of(person);
        let again = reported.again.is_some_and(|from| self.now >= from);
        if reported.matched.is_some() && !again {
            return None;
        }
        let entry = self.reports.remember(person, self.now);
        if entry.matched.is_none() {
            entry.denials = 0;
        }
        (entry.matched, entry.again) = (Some(self.now), None);
        Some(Told::of(Verdict::Match, person))
    }

    fn report_spoof(&mut self, standing: &mut Standing, person: &PersonId) -> Option<Told> {
        let first_here = !standing.has_spoof_reported;
        standing.has_spoof_reported = true;
        if !first_here || self.reports.of(person).spoofed.is_some() {
            return None;
        }
        self.reports.remember(person, self.now).spoofed = Some(self.now);
        Some(Told::of(Verdict::SpoofSuspected, person))
    }

    fn report_denied(
        &mut self,
        standing: &mut Standing,
        person: &PersonId,
        reason: Reason,
    ) -> Option<Told> {
        let reported = self.reports.of(person);
        if reported.matched.is_some() || reported.denied.is_some() {
            return None;
        }
        standing.has_denial_reported = true;
        self.reports.remember(person, self.now).denied = Some(self.now);
        Some(Told::of(Verdict::Denied(reason), person))
    }

    /// Judges a frame that was not worth a look. Who stands near for long and cannot be judged is
    /// told why; who does not look at the camera asks for nothing.
    pub(super) fn judge_shot(&mut self, standing: &mut Standing, shot: &Quality) -> Option<Told> {
        if let Some(person) = &standing.accepted {
            // The face has not left; who it is was settled.
            self.reports.refresh(person, false, self.now);
            return None;
        }
        let told = shot.flaw().filter(|flaw| !matches!(flaw, Flaw::OffPose | Flaw::TooSmall))?;
        if shot.face_px.is_nan() || shot.face_px < NEAR_FACE_PX {
            return None;
        }
        let flawed = standing.flawed.get_or_insert_with(|| Waiting::new(self.now));
        flawed.count_reason(reason_of(told));
        let waited = self.now.since(flawed.since()) >= FLAW_WAIT;
        let reason = flawed.most_frequent();
        if !waited || standing.is_reported() || self.is_lately_reported(standing) {
            return None;
        }
        standing.has_denial_reported = true;
        Some(Told::of_nobody(Verdict::Denied(reason)))
    }

    /// Judges a track that has ended: somebody who was taken for a person, came near, and left
    /// before that was decided.
    pub(super) fn judge_leaving(&mut self, standing: &mut Standing) -> Option<Told> {
        let person = standing.person.clone()?;
        let looked = standing.last_look.since(standing.first_look) >= FACE_LEFT_TIME_MIN;
        let was_near = standing.best.face_px >= NEAR_FACE_PX;
        let open = standing.waiting.is_some() || standing.undecided.is_some();
        if !open || !looked || !was_near || standing.has_attacked || standing.is_reported() {
            return None;
        }
        let is_certain = standing.identity.is_some_and(|identity| identity.accepted);
        let mut told = self.report_denied(standing, &person, Reason::FaceLeft)?;
        told.person = told.person.filter(|_| is_certain);
        Some(told)
    }

    pub(super) fn outcome(
        &self,
        standing: &Standing,
        told: Told,
        observation: &Observation,
        index: usize,
    ) -> Outcome {
        let shot = match told.verdict {
            Verdict::Match => observation.quality,
            _ => standing.best,
        };
        let pad_score = observation.look.as_ref().and_then(|look| look.pad_score);
        let live = self.live(standing, told.verdict, pad_score);
        let bare = self.bare_outcome(observation.track, standing, told, shot);
        // The frame's own time, not the latest that was ever seen: a frame that was late stays late.
        let captured = self.captured;
        Outcome { observation: Some(index), live, captured, seen: captured, ..bare }
    }

    pub(super) fn bare_outcome(
        &self,
        track: TrackId,
        standing: &Standing,
        told: Told,
        shot: Quality,
    ) -> Outcome {
        Outcome {
            verdict: told.verdict,
            observation: None,
            track,
            frames: standing.frames,
            person: told.person,
            identity: standing.identity,
            live: self.live(standing, told.verdict, None),
            shot,
            flaw: shot.flaw().map(reason_of),
            face_px: shot.face_px,
            captured: standing.last_look,
            seen: standing.last_seen,
            agreement: standing.liveness.finding(),
            motion: standing.stillness.finding(),
        }
    }

    fn live(&self, standing: &Standing, verdict: Verdict, pad_score: Option<f32>) -> Liveness {
        if self.options.liveness == LivenessPolicy::Off {
            return Liveness::NotAsked;
        }
        let of_track = [standing.liveness.finding(), standing.stillness.finding()];
        let weakest = of_track.iter().flatten().map(Finding::calibrated).reduce(f32::min);
        let score = pad_score.map(|score| score.min(weakest.unwrap_or(score)));
        match (verdict, score) {
            (Verdict::Match, Some(score)) => Liveness::Live(score),
            (Verdict::SpoofSuspected, _) => Liveness::NotLive(Reason::SpoofSuspected, score),
            (Verdict::Match | Verdict::UnknownFace | Verdict::Denied(_), _) => {
                Liveness::NotLive(Reason::LivenessUnsure, score)
            }
        }
    }
}

/// An attack by somebody nobody knows, once per track.
fn tell_attack(standing: &mut Standing) -> Option<Told> {
    let first = !standing.has_spoof_reported;
    standing.has_spoof_reported = true;
    first.then(|| Told::of_nobody(Verdict::SpoofSuspected))
}
