//! The network that moves the detector's five points to where they belong.
//!
//! It runs right after detection, so that whatever uses the points (quality, pose, liveness,
//! alignment, tracks) sees the same ones. A network that fails or answers no numbers is an error;
//! one that would move a point too far was shown no face, and leaves the detector's points.

use crate::face::detection::Detection;
use crate::face::image::Image;
use crate::face::landmarks::OFFSETS;
use crate::face::landmarks::refined;
use crate::inference::InferenceError;
use crate::inference::LandmarksSpec;
use crate::inference::Model;
use crate::inference::ModelLoader;
use crate::recognition::aligned::Aligner;
use crate::recognition::meaningless;

/// Most faces of one picture whose points are refined, largest first: as many as the answer to a
/// posted picture lists. It bounds what a picture of a crowd may cost; nobody beyond it is answered.
pub const REFINED_FACES_MAX: usize = 100;

/// The network, loaded.
pub struct LandmarkNetwork {
    model: Box<dyn Model>,
    aligner: Aligner,
}

impl LandmarkNetwork {
    /// Loads the network of a pack.
    pub fn load(
        spec: &LandmarksSpec,
        loader: &dyn ModelLoader,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        Ok(Self {
            model: loader.load(&spec.file, threads)?,
            aligner: Aligner::new(&spec.template, spec.normalisation, spec.side),
        })
    }

    /// Moves the points of the first [`REFINED_FACES_MAX`] faces; the largest must come first.
    pub fn refine(&mut self, image: &Image, faces: &mut [Detection]) -> Result<(), InferenceError> {
        for face in faces.iter_mut().take(REFINED_FACES_MAX) {
            self.refine_face(image, face)?;
        }
        Ok(())
    }

    fn refine_face(&mut self, image: &Image, face: &mut Detection) -> Result<(), InferenceError> {
        // Points without extent stay what they are, and whoever needs them upright refuses them.
        let Some(transform) = self.aligner.transform(face) else { return Ok(()) };
        let outputs = self.model.run(&self.aligner.warp(image, transform))?;
        let offsets = outputs.get("offsets")?.values.as_slice().try_into();
        let offsets: &[f32; OFFSETS] = offsets.map_err(|_| meaningless("ten offsets"))?;
        if !offsets.iter().all(|offset| offset.is_finite()) {
            return Err(meaningless("finite offsets"));
        }
        if let Some(points) = refined(transform, self.aligner.template(), offsets) {
            face.landmarks = points;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;
    use crate::face::alignment::Similarity;
    use crate::face::geometry::Point;
    use crate::face::geometry::Rect;
    use crate::inference::ChannelOrder;
    use crate::inference::ModelFile;
    use crate::inference::Normalisation;
    use crate::inference::Outputs;
    use crate::inference::Tensor;

    /// The eyes lie 20 apart.
    const TEMPLATE: [[f32; 2]; 5] =
        [[22.0, 29.0], [42.0, 29.0], [32.0, 41.0], [24.0, 53.0], [40.0, 53.0]];

    /// Answers the same to every question, and notes it.
    #[derive(Clone)]
    struct Answering {
        outputs: Outputs,
        asked: Arc<Mutex<Vec<Tensor>>>,
    }

    impl ModelLoader for Answering {
        fn load(&self, _: &ModelFile, _: usize) -> Result<Box<dyn Model>, InferenceError> {
            Ok(Box::new(self.clone()))
        }
    }

    impl Model for Answering {
        fn run(&mut self, input: &Tensor) -> Result<Outputs, InferenceError> {
            self.asked.lock().unwrap().push(input.clone());
            Ok(self.outputs.clone())
        }
    }

    fn answering(name: &str, values: &[f32]) -> Answering {
        let tensor = Tensor { shape: vec![1, values.len()], values: values.to_vec() };
        Answering { outputs: Outputs(vec![(name.into(), tensor)]), asked: Arc::default() }
    }

    fn network(answers: &Answering) -> LandmarkNetwork {
        let file = ModelFile {
            name: "landmarks".into(),
            sha256: String::new(),
            bytes: Arc::from([]),
            input: "input".into(),
        };
        let normalisation =
            Normalisation { order: ChannelOrder::Rgb, mean: [0.0; 3], std: [255.0; 3] };
        let spec = LandmarksSpec { file, normalisation, side: 64, template: TEMPLATE };
        LandmarkNetwork::load(&spec, answers, 1).unwrap()
    }

    /// A face in a picture of 400 by 400, its points those of the template, turned and enlarged
    /// about the picture's middle, and where a point of the template lies in the picture.
    fn face(degrees: f32, scale: f32) -> (Detection, impl Fn([f32; 2]) -> Point) {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let place = move |[x, y]: [f32; 2]| {
            let (x, y) = (x - 32.0, y - 32.0);
            let turned = [cos * x - sin * y, sin * x + cos * y];
            Point::new(200.0 + scale * turned[0], 200.0 + scale * turned[1])
        };
        let bounds = Rect { x: 100.0, y: 100.0, width: 200.0, height: 200.0 };
        (Detection { bounds, landmarks: TEMPLATE.map(&place), confidence: 0.9 }, place)
    }

    /// Red grows to the right, green downwards.
    fn picture() -> Image {
        let colour = |at: u32| [(at % 400 / 2) as u8, (at / 400 / 2) as u8, 7];
        Image::from_rgb(400, 400, (0..400 * 400).flat_map(colour).collect()).unwrap()
    }

    #[test]
    fn the_network_sees_the_face_upright_whatever_its_pose() {
        for (degrees, scale) in [(0.0, 1.0), (37.0, 1.3), (-90.0, 2.0), (179.0, 3.9)] {
            let answers = answering("offsets", &[0.0; OFFSETS]);
            let (face, place) = face(degrees, scale);
            network(&answers).refine(&picture(), &mut [face]).unwrap();
            let asked = answers.asked.lock().unwrap();
            assert_eq!(asked[0].shape, [1, 3, 64, 64]);
            for (x, y) in [(22, 29), (40, 53), (32, 10), (8, 60)] {
                let there = place([x as f32, y as f32]);
                let expected = [there.x / 2.0 / 255.0, there.y / 2.0 / 255.0];
                for (plane, expected) in expected.into_iter().enumerate() {
                    let found = asked[0].values[plane * 64 * 64 + y * 64 + x];
                    assert!((found - expected).abs() < 0.008, "{degrees} {scale} {x} {y}: {found}");
                }
            }
        }
    }

    #[test]
    fn the_points_go_where_the_network_says() {
        // The nose a quarter of the distance to the right, the left mouth corner a tenth up.
        let mut offsets = [0.0; OFFSETS];
        (offsets[4], offsets[7]) = (0.25, -0.1);
        let answers = answering("offsets", &offsets);
        for (degrees, scale) in [(0.0, 1.0), (20.0, 0.7), (-140.0, 3.0)] {
            let (before, place) = face(degrees, scale);
            let mut faces = [before];
            network(&answers).refine(&picture(), &mut faces).unwrap();
            let mut expected = TEMPLATE;
            expected[2][0] += 5.0;
            expected[3][1] -= 2.0;
            for (found, expected) in faces[0].landmarks.iter().zip(expected.map(&place)) {
                let distance = found.distance(expected);
                assert!(distance < 0.01 * scale.max(1.0), "{degrees} {scale}: {found:?}");
            }
            let rest = Detection { landmarks: before.landmarks, ..faces[0] };
            assert_eq!(rest, before, "box and confidence are the detector's");
        }
    }

    #[test]
    fn an_answer_that_is_no_number_is_an_error() {
        let (before, _) = face(10.0, 2.0);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut offsets = [0.1; OFFSETS];
            offsets[9] = value;
            let refined =
                network(&answering("offsets", &offsets)).refine(&picture(), &mut [before]);
            assert!(matches!(refined, Err(InferenceError::Shape { .. })), "{value}");
        }
    }

    #[test]
    fn an_answer_that_means_nothing_leaves_the_detectors_points() {
        let (before, _) = face(10.0, 2.0);
        for value in [0.61, -3.0] {
            let mut offsets = [0.1; OFFSETS];
            offsets[9] = value;
            let mut faces = [before];
            network(&answering("offsets", &offsets)).refine(&picture(), &mut faces).unwrap();
            assert_eq!(faces[0], before, "{value}");
        }
        let answers = answering("offsets", &[0.1; OFFSETS]);
        let coinciding = Detection { landmarks: [Point::new(5.0, 5.0); 5], ..before };
        let mut faces = [coinciding];
        network(&answers).refine(&picture(), &mut faces).unwrap();
        assert_eq!(faces[0], coinciding);
        assert!(answers.asked.lock().unwrap().is_empty(), "there is nothing to show");
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        let (face, _) = face(0.0, 1.0);
        for count in [0, 9, 11] {
            let answers = answering("offsets", &vec![0.0; count]);
            let error = network(&answers).refine(&picture(), &mut [face]).unwrap_err();
            assert!(matches!(error, InferenceError::Shape { .. }), "{count}: {error}");
        }
        let answers = answering("points", &[0.0; OFFSETS]);
        let error = network(&answers).refine(&picture(), &mut [face]).unwrap_err();
        assert!(matches!(error, InferenceError::MissingOutput { .. }), "{error}");
    }

    #[test]
    fn a_crowd_costs_no_more_than_its_largest_faces() {
        let answers = answering("offsets", &[0.1; OFFSETS]);
        let (before, _) = face(0.0, 1.0);
        let mut crowd = vec![before; REFINED_FACES_MAX + 5];
        network(&answers).refine(&picture(), &mut crowd).unwrap();
        assert_eq!(answers.asked.lock().unwrap().len(), REFINED_FACES_MAX);
        let template = TEMPLATE.map(|[x, y]| Point::new(x, y));
        let shift = |face: &Detection| {
            let moved = Similarity::between(&before.landmarks, &template).unwrap();
            moved.apply(face.landmarks[0]).distance(template[0])
        };
        assert!(crowd[..REFINED_FACES_MAX].iter().all(|face| (shift(face) - 2.83).abs() < 0.01));
        assert!(crowd[REFINED_FACES_MAX..].iter().all(|face| *face == before));
    }
}
