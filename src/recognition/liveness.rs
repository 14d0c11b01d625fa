//! The liveness check of one face: image rules, then networks and measurements, cheapest first.
//!
//! It stops at the first test that fails, in the order of the contract, so a picture that is
//! refused anyway costs no further inference. It never fails itself: what goes wrong is a reason,
//! and never "live".

use crate::face::crop::attack_window;
use crate::face::cues::SCORE_MIN;
use crate::face::cues::moire::moire;
use crate::face::cues::surround::surround;
use crate::face::detection::Detection;
use crate::face::detection::main_face;
use crate::face::eyes::EyeRatio;
use crate::face::image::Image;
use crate::face::liveness::Cue;
use crate::face::liveness::Finding;
use crate::face::liveness::ImageRules;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;
use crate::face::liveness::bona_fide_probability;
use crate::face::liveness::image_rules;
use crate::face::liveness::pose_finding;
use crate::face::planes::PlaneMap;
use crate::face::planes::Planes;
use crate::face::planes::resize_into;
use crate::face::pose::Pose;
use crate::face::state::FaceState;
use crate::inference::FaceStateSpec;
use crate::inference::InferenceError;
use crate::inference::MeshSpec;
use crate::inference::Model;
use crate::inference::ModelLoader;
use crate::inference::Pack;
use crate::inference::PadSpec;
use crate::inference::Tensor;
use crate::recognition::aligned::Aligner;
use crate::recognition::aligned::plane_map;
use crate::recognition::meaningless;
use crate::recognition::mesh::MeshNetwork;
use crate::recognition::mesh::MeshReading;

/// The mesh decides when the cheaper estimate is this near to the limit: 95 % of its estimates lie
/// within 5 degrees of the mesh's (`models/train`, people that it was not trained on), and those of
/// the five points within 15.
const POSE_DOUBT_DEG: f32 = 10.0;
/// At and above this eye aspect ratio the mesh contradicts that an eye is closed: the typical open
/// eye has .275. Narrow open eyes lie where closed ones do, so the mesh cannot confirm, only
/// contradict. Of 193 faces with drawn closed lids that the state network found, 11 are lost by it
/// and 6 more by the next rule; of the few with really closed eyes none.
const EYE_RATIO_CLOSED_MAX: f32 = 0.25;
/// Below this share of a blink it contradicts as well: the least of ten real closed eyes is .39.
const BLINK_CLOSED_MIN: f32 = 0.2;

/// The networks of the check. Without attack detectors or the state network every face is refused.
pub struct LivenessChecker {
    attack_detectors: Vec<AttackDetector>,
    pad_score_min: f32,
    state: Option<StateNetwork>,
    mesh: Option<MeshNetwork>,
    /// Whether a network failed when it was last asked.
    is_failing: bool,
}

struct AttackDetector {
    model: Box<dyn Model>,
    map: PlaneMap,
    side: usize,
    crop_scale: f32,
}

struct StateNetwork {
    model: Box<dyn Model>,
    aligner: Aligner,
    eyes_closed_min: f32,
    covered_min: f32,
}

/// Tells how open the person's own eyes are, if the person is known; asked at most once, and only
/// when the eyes would count as closed.
pub type OwnEyes<'a> = &'a dyn Fn() -> Option<EyeRatio>;

/// The face that is checked, and the rules for it.
struct Subject<'a> {
    image: &'a Image,
    face: &'a Detection,
    rules: &'a ImageRules,
    own_eyes: OwnEyes<'a>,
}

/// Why a check ends before everything is measured.
enum Stop {
    /// The face is lost: no window, no alignment, or the mesh does not see it.
    Lost,
    /// A network failed or answered numbers that mean nothing.
    Broken(InferenceError),
}

impl Stop {
    fn reason(&self) -> LivenessReason {
        match self {
            Self::Lost => LivenessReason::FaceNotFound,
            Self::Broken(_) => LivenessReason::UnknownError,
        }
    }
}

impl From<InferenceError> for Stop {
    fn from(error: InferenceError) -> Self {
        Self::Broken(error)
    }
}

/// What has been found out so far.
#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    pose: Option<Pose>,
}

impl LivenessChecker {
    /// Loads the networks of a pack, as far as it has them.
    pub fn load(
        pack: &Pack,
        loader: &dyn ModelLoader,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        let attack_detector = |spec: &PadSpec| AttackDetector::load(spec, loader, threads);
        let state = |spec: &FaceStateSpec| StateNetwork::load(spec, loader, threads);
        let mesh = |spec: &MeshSpec| MeshNetwork::load(spec, loader, threads);
        Ok(Self {
            attack_detectors: pack.pad.iter().map(attack_detector).collect::<Result<_, _>>()?,
            pad_score_min: pack.pad_score_min,
            state: pack.face_state.as_ref().map(state).transpose()?,
            mesh: pack.mesh.as_ref().map(mesh).transpose()?,
            is_failing: false,
        })
    }

    /// Checks the main face of `faces`, which are all faces of the picture.
    pub fn check(
        &mut self,
        rules: &ImageRules,
        image: &Image,
        faces: &[Detection],
        own_eyes: OwnEyes<'_>,
    ) -> LivenessReport {
        if self.attack_detectors.is_empty() || self.state.is_none() {
            return LivenessReport::refused(LivenessReason::LicenseError);
        }
        if let Some(reason) = image_rules((image.width(), image.height()), faces, rules) {
            return LivenessReport::refused(reason);
        }
        let Some(face) = main_face(faces) else {
            return LivenessReport::refused(LivenessReason::FaceNotFound);
        };
        let mut found = Found::default();
        let stop = self.measure(&Subject { image, face, rules, own_eyes }, &mut found).err();
        let report = LivenessReport::of(found.findings, found.pose);
        let Some(stop) = stop else {
            self.is_failing = false;
            return report;
        };
        if let (Stop::Broken(error), false) = (&stop, self.is_failing) {
            // One line for a run of failures: cameras ask many times a second.
            tracing::error!(%error, "the liveness check fails");
            self.is_failing = true;
        }
        // A stage that stopped leaves nothing to judge by, whatever the others found.
        LivenessReport { failure: Some(stop.reason()), ..report }
    }

    /// How open the eyes are in a picture that a person is enrolled with. `None` when the pack has
    /// no use for it, a network cannot tell, the eyes are covered or seen from the side, or they
    /// count as closed: what is shut must never become the measure of open, and an enrolment need
    /// not have asked for the check that refuses such pictures. It does not fail for want of it.
    pub fn open_eyes(&mut self, image: &Image, face: &Detection) -> Option<EyeRatio> {
        let (state, mesh) = (self.state.as_mut()?, self.mesh.as_mut()?);
        if self.attack_detectors.is_empty() {
            return None;
        }
        let seen = state.read(image, face).ok()?;
        if seen.open() < 1.0 - state.eyes_closed_min || seen.eyes_covered >= state.covered_min {
            return None;
        }
        let reading = mesh.read(image, face).ok()??;
        let pose = pose_finding(Some(reading.pose), ImageRules::STILL.angle_deg_max);
        if pose.pass { EyeRatio::of(reading.eye_ratios) } else { None }
    }

    fn measure(&mut self, subject: &Subject, found: &mut Found) -> Result<(), Stop> {
        let Subject { image, face, rules, own_eyes } = *subject;
        // `check` has refused before where there is none.
        let Some(network) = &mut self.state else { return Err(Stop::Lost) };
        let state = network.read(image, face)?;
        let mut second_look =
            SecondLook { network: self.mesh.as_mut(), subject, reading: Reading::NotAsked };
        let (limit, limit_uncovered) = (1.0 - network.eyes_closed_min, 1.0 - network.covered_min);
        let mut pose = state.pose;
        if second_look.network.is_some() && is_doubtful(pose, rules.angle_deg_max) {
            match second_look.reading()? {
                Some(reading) => pose = reading.pose,
                // A cover is why the mesh is lost; it refuses the face below.
                None if state.uncovered() < limit_uncovered => {}
                None => return Err(Stop::Lost),
            }
        }
        found.pose = Some(pose);
        if !found.add(pose_finding(found.pose, rules.angle_deg_max)) {
            return Ok(());
        }
        let mut open = state.open();
        if open < limit && second_look.reading()?.is_some_and(|r| !are_closed(&r, own_eyes)) {
            // Two networks disagree, or the person's eyes are as narrow when they are open: in doubt
            // the eyes are open, but only just.
            open = limit;
        }
        // Behind sunglasses nobody can tell; the next test gives the reason.
        let eyes_seen = 1.0 - state.eyes_covered >= limit_uncovered;
        if eyes_seen && !found.add(Finding::new(Cue::Eyes, open, limit)) {
            return Ok(());
        }
        if !found.add(Finding::new(Cue::Uncovered, state.uncovered(), limit_uncovered)) {
            return Ok(());
        }
        found.add(Finding::new(Cue::Pad, self.pad_score(image, face)?, self.pad_score_min));
        // A cue that cannot judge this face says nothing; it has no vote to give for it either.
        for (cue, score) in
            [(Cue::Moire, moire(image, face)), (Cue::Surround, surround(image, face))]
        {
            if let Some(score) = score {
                found.add(Finding::new(cue, score, SCORE_MIN));
            }
        }
        Ok(())
    }

    /// Mean bona fide probability of the attack detectors.
    fn pad_score(&mut self, image: &Image, face: &Detection) -> Result<f32, Stop> {
        let mut sum = 0.0;
        for detector in &mut self.attack_detectors {
            sum += detector.score(image, face)?;
        }
        Ok(sum / self.attack_detectors.len() as f32)
    }
}

/// The mesh's reading of the face, made when it is first asked for.
struct SecondLook<'a> {
    network: Option<&'a mut MeshNetwork>,
    subject: &'a Subject<'a>,
    reading: Reading,
}

/// What the mesh has said so far.
#[derive(Clone, Copy)]
enum Reading {
    NotAsked,
    /// `None`: it sees no face.
    Known(Option<MeshReading>),
}

impl SecondLook<'_> {
    /// `None` without a mesh, or when it does not see the face.
    fn reading(&mut self) -> Result<Option<MeshReading>, InferenceError> {
        if let Reading::Known(reading) = self.reading {
            return Ok(reading);
        }
        let Some(network) = &mut self.network else { return Ok(None) };
        let Subject { image, face, .. } = *self.subject;
        let reading = network.read(image, face)?;
        self.reading = Reading::Known(reading);
        Ok(reading)
    }
}

/// Whether the mesh has to decide on a pose: the cheaper estimate is near the limit.
fn is_doubtful(estimate: Pose, angle_deg_max: f32) -> bool {
    let angle = estimate.yaw_deg.abs().max(estimate.pitch_deg.abs());
    (angle - angle_deg_max).abs() <= POSE_DOUBT_DEG
}

/// Whether the mesh lets it pass that the eyes are closed: both, by shape, by expression and by the
/// measure of the person's own open eyes, where known.
fn are_closed(reading: &MeshReading, own_eyes: OwnEyes<'_>) -> bool {
    reading.eye_ratios.iter().all(|ratio| *ratio < EYE_RATIO_CLOSED_MAX)
        && reading.blink.iter().all(|blink| *blink > BLINK_CLOSED_MIN)
        && own_eyes().is_none_or(|own| own.allows_closed(reading.eye_ratios))
}

impl Found {
    /// Keeps a finding and answers whether it passed.
    fn add(&mut self, finding: Finding) -> bool {
        self.findings.push(finding);
        finding.pass
    }
}

impl StateNetwork {
    fn load(
        spec: &FaceStateSpec,
        loader: &dyn ModelLoader,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        Ok(Self {
            model: loader.load(&spec.file, threads)?,
            aligner: Aligner::new(&spec.template, spec.normalisation, spec.side),
            eyes_closed_min: spec.eyes_closed_min,
            covered_min: spec.covered_min,
        })
    }

    fn read(&mut self, image: &Image, face: &Detection) -> Result<FaceState, Stop> {
        let input = self.aligner.align(image, face).ok_or(Stop::Lost)?;
        let outputs = self.model.run(&input)?;
        let state = FaceState::decode(&outputs.get("state")?.values);
        Ok(state.ok_or_else(|| meaningless("six finite numbers"))?)
    }
}

impl AttackDetector {
    fn load(
        spec: &PadSpec,
        loader: &dyn ModelLoader,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        Ok(Self {
            model: loader.load(&spec.file, threads)?,
            map: plane_map(spec.normalisation),
            side: spec.side as usize,
            crop_scale: spec.crop_scale,
        })
    }

    fn score(&mut self, image: &Image, face: &Detection) -> Result<f32, Stop> {
        let window = attack_window(image.width(), image.height(), face.bounds, self.crop_scale)
            .ok_or(Stop::Lost)?;
        let side = self.side;
        let mut values = vec![0.0; 3 * side * side];
        let mut planes = Planes { width: side, height: side, values: &mut values };
        resize_into(image, window, (side, side), &self.map, &mut planes);
        let input = Tensor { shape: vec![1, 3, side, side], values };
        let outputs = self.model.run(&input)?;
        let score = bona_fide_probability(&outputs.get("logits")?.values);
        Ok(score.ok_or_else(|| meaningless("three finite logits"))?)
    }
}
