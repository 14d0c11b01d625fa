//! The liveness check of one face: image rules, then networks and measurements, cheapest first.
//!
//! It stops at the first test that fails, in the order of the contract, so a picture that is
//! refused anyway costs no further inference. It never fails itself: what goes wrong is a reason,
//! and never "live".

use crate::face::crop::attack_window;
use crate::face::detection::Detection;
use crate::face::detection::main_face;
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
use crate::face::pose;
use crate::face::pose::Pose;
use crate::face::state::FaceState;
use crate::inference::FaceStateSpec;
use crate::inference::InferenceError;
use crate::inference::Model;
use crate::inference::ModelLoader;
use crate::inference::Pack;
use crate::inference::PadSpec;
use crate::inference::Tensor;
use crate::recognition::aligned::Aligner;

/// Side of the attack detectors' input in pixels.
const ATTACK_SIDE_PX: usize = 80;

/// The networks of the check. Without attack detectors every face is refused.
pub struct LivenessChecker {
    attack_detectors: Vec<AttackDetector>,
    pad_score_min: f32,
    state: Option<StateNetwork>,
}

struct AttackDetector {
    model: Box<dyn Model>,
    crop_scale: f32,
}

struct StateNetwork {
    model: Box<dyn Model>,
    aligner: Aligner,
    eyes_closed_min: f32,
    covered_min: f32,
}

/// The face that is checked, and the rules for it.
struct Subject<'a> {
    image: &'a Image,
    face: &'a Detection,
    rules: &'a ImageRules,
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
        let attack_detector = |spec: &PadSpec| {
            let model = loader.load(&spec.file, threads)?;
            Ok(AttackDetector { model, crop_scale: spec.crop_scale })
        };
        let state = |spec: &FaceStateSpec| StateNetwork::load(spec, loader, threads);
        Ok(Self {
            attack_detectors: pack
                .pad
                .iter()
                .map(attack_detector)
                .collect::<Result<_, InferenceError>>()?,
            pad_score_min: pack.pad_score_min,
            state: pack.face_state.as_ref().map(state).transpose()?,
        })
    }

    /// Checks the main face of `faces`, which are all faces of the picture.
    pub fn check(
        &mut self,
        rules: &ImageRules,
        image: &Image,
        faces: &[Detection],
    ) -> LivenessReport {
        if self.attack_detectors.is_empty() {
            return LivenessReport::refused(LivenessReason::LicenseError);
        }
        if let Some(reason) = image_rules((image.width(), image.height()), faces, rules) {
            return LivenessReport::refused(reason);
        }
        let Some(face) = main_face(faces) else {
            return LivenessReport::refused(LivenessReason::FaceNotFound);
        };
        let mut found = Found::default();
        let failed = self.measure(&Subject { image, face, rules }, &mut found).err();
        let report = LivenessReport::of(found.findings, found.pose);
        // A stage that broke leaves nothing to judge by, whatever the others found.
        LivenessReport { failure: failed.or(report.failure), ..report }
    }

    fn measure(&mut self, subject: &Subject, found: &mut Found) -> Result<(), LivenessReason> {
        let Subject { image, face, rules } = *subject;
        let state = self.state.as_mut().map(|network| network.read(image, face)).transpose()?;
        found.pose = state.map_or_else(|| pose::estimate(&face.landmarks), |s| Some(s.pose));
        if !found.add(pose_finding(found.pose, rules.angle_deg_max)) {
            return Ok(());
        }
        if let (Some(state), Some(network)) = (state, &self.state) {
            let eyes = Finding::new(Cue::Eyes, state.open(), 1.0 - network.eyes_closed_min);
            let uncovered = state.uncovered();
            if !found.add(eyes)
                || !found.add(Finding::new(Cue::Uncovered, uncovered, 1.0 - network.covered_min))
            {
                return Ok(());
            }
        }
        found.add(Finding::new(Cue::Pad, self.pad_score(image, face)?, self.pad_score_min));
        Ok(())
    }

    /// Mean bona fide probability of the attack detectors.
    fn pad_score(&mut self, image: &Image, face: &Detection) -> Result<f32, LivenessReason> {
        let mut sum = 0.0;
        for detector in &mut self.attack_detectors {
            sum += detector.score(image, face)?;
        }
        Ok(sum / self.attack_detectors.len() as f32)
    }
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

    fn read(&mut self, image: &Image, face: &Detection) -> Result<FaceState, LivenessReason> {
        let input = self.aligner.align(image, face).ok_or(LivenessReason::FaceNotFound)?;
        let outputs = self.model.run(&input).map_err(broken)?;
        let state = outputs.get("state").map_err(broken)?;
        FaceState::decode(&state.values).ok_or_else(|| broken(meaningless("six finite numbers")))
    }
}

impl AttackDetector {
    fn score(&mut self, image: &Image, face: &Detection) -> Result<f32, LivenessReason> {
        let window = attack_window(image.width(), image.height(), face.bounds, self.crop_scale)
            .ok_or(LivenessReason::FaceNotFound)?;
        let side = ATTACK_SIDE_PX;
        let mut values = vec![0.0; 3 * side * side];
        let mut planes = Planes { width: side, height: side, values: &mut values };
        resize_into(image, window, (side, side), &PlaneMap::RAW_BGR, &mut planes);
        let input = Tensor { shape: vec![1, 3, side, side], values };
        let outputs = self.model.run(&input).map_err(broken)?;
        let logits = outputs.get("logits").map_err(broken)?;
        bona_fide_probability(&logits.values)
            .ok_or_else(|| broken(meaningless("three finite logits")))
    }
}

fn broken(error: InferenceError) -> LivenessReason {
    tracing::error!(%error, "attack detection failed");
    LivenessReason::UnknownError
}

fn meaningless(expected: &str) -> InferenceError {
    InferenceError::Shape { reason: format!("{expected} expected") }
}
