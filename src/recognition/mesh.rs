//! The face mesh in the recognition path: pose, eye aspect ratios and blinking of one face.
//!
//! Two networks, one after the other: points of the face, then expressions from some of them. Slow
//! compared with the other networks, so it is asked only where they are in doubt.

use crate::face::detection::Detection;
use crate::face::image::Image;
use crate::face::mesh;
use crate::face::mesh::Mesh;
use crate::face::pose::Pose;
use crate::inference::InferenceError;
use crate::inference::MeshSpec;
use crate::inference::Model;
use crate::inference::ModelLoader;
use crate::inference::Tensor;
use crate::recognition::meaningless;

/// The network's output with the points.
const POINTS: &str = "Identity";
/// The network's output with the logit of the presence of a face.
const PRESENCE: &str = "Identity_1";
/// The output of the network of expressions.
const EXPRESSIONS: &str = "StatefulPartitionedCall:0";

/// The two networks.
pub struct MeshNetwork {
    mesh: Box<dyn Model>,
    blendshapes: Box<dyn Model>,
}

/// What the mesh says about one face; every number is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeshReading {
    /// Where the face looks.
    pub pose: Pose,
    /// Eye aspect ratios, image-left eye first.
    pub eye_ratios: [f32; 2],
    /// How far each eye is blinking, 0 to 1, image-left eye first.
    pub blink: [f32; 2],
}

impl MeshNetwork {
    /// Loads both networks.
    pub fn load(
        spec: &MeshSpec,
        loader: &dyn ModelLoader,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        Ok(Self {
            mesh: loader.load(&spec.file, threads)?,
            blendshapes: loader.load(&spec.blendshapes, threads)?,
        })
    }

    /// What the mesh says about a face. `None` when there is no telling: the mesh has lost the face
    /// or no pose explains it.
    pub fn read(
        &mut self,
        image: &Image,
        face: &Detection,
    ) -> Result<Option<MeshReading>, InferenceError> {
        let Some(to_input) = mesh::crop(face) else { return Ok(None) };
        let shape = vec![1, mesh::SIDE_PX, mesh::SIDE_PX, 3];
        let input = Tensor { shape, values: mesh::input(image, to_input) };
        let outputs = self.mesh.run(&input)?;
        let presence = mesh::presence(&outputs.get(PRESENCE)?.values)
            .ok_or_else(|| meaningless("one logit of presence"))?;
        if presence < mesh::PRESENCE_MIN {
            return Ok(None);
        }
        let points = Mesh::decode(&outputs.get(POINTS)?.values)
            .ok_or_else(|| meaningless("478 points near the crop"))?;
        let Some(pose) = points.pose() else { return Ok(None) };
        let blink = self.blink(&points)?;
        Ok(Some(MeshReading { pose, eye_ratios: points.eye_ratios(), blink }))
    }

    fn blink(&mut self, points: &Mesh) -> Result<[f32; 2], InferenceError> {
        let values = points.blendshape_input();
        let input = Tensor { shape: vec![1, values.len() / 2, 2], values };
        let outputs = self.blendshapes.run(&input)?;
        mesh::blink(&outputs.get(EXPRESSIONS)?.values)
            .ok_or_else(|| meaningless("52 finite expressions"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;
    use crate::face::geometry::Point;
    use crate::face::geometry::Rect;
    use crate::inference::ModelFile;
    use crate::inference::Outputs;

    const MESH: &str = "mesh";
    const BLENDSHAPES: &str = "blendshapes";

    /// Answers of the two networks, by output; notes what they are asked.
    #[derive(Clone, Default)]
    struct Answers {
        outputs: Vec<(&'static str, &'static str, Vec<f32>)>,
        asked: Arc<Mutex<Vec<Tensor>>>,
    }

    struct Answering {
        outputs: Outputs,
        asked: Arc<Mutex<Vec<Tensor>>>,
    }

    impl ModelLoader for Answers {
        fn load(&self, file: &ModelFile, _: usize) -> Result<Box<dyn Model>, InferenceError> {
            let own = self.outputs.iter().filter(|(model, ..)| *model == file.name);
            let outputs = own.map(|(_, name, values)| {
                let tensor = Tensor { shape: vec![1, values.len()], values: values.clone() };
                (name.to_string(), tensor)
            });
            let outputs = Outputs(outputs.collect());
            Ok(Box::new(Answering { outputs, asked: Arc::clone(&self.asked) }))
        }
    }

    impl Model for Answering {
        fn run(&mut self, input: &Tensor) -> Result<Outputs, InferenceError> {
            self.asked.lock().unwrap().push(input.clone());
            Ok(self.outputs.clone())
        }
    }

    fn answers(points: Vec<f32>, presence: f32, expressions: Vec<f32>) -> Answers {
        let outputs = vec![
            (MESH, POINTS, points),
            (MESH, PRESENCE, vec![presence]),
            (BLENDSHAPES, EXPRESSIONS, expressions),
        ];
        Answers { outputs, ..Answers::default() }
    }

    /// Answers about a face that looks straight ahead, image-right eye half shut.
    fn frontal() -> Answers {
        let mut expressions = vec![0.0; 52];
        (expressions[9], expressions[10]) = (0.5, 0.25);
        answers(mesh::frontal_values(0.3), 5.0, expressions)
    }

    fn network(answers: &Answers) -> MeshNetwork {
        let file = |name: &str| ModelFile {
            name: name.into(),
            sha256: String::new(),
            bytes: Arc::from([]),
            input: "input".into(),
        };
        let spec = MeshSpec { file: file(MESH), blendshapes: file(BLENDSHAPES) };
        MeshNetwork::load(&spec, answers, 1).unwrap()
    }

    /// A face whose crop has its first pixel at (10, 20) and a pixel for every picture pixel.
    fn face() -> Detection {
        let side = 256.0 / 1.5;
        let bounds =
            Rect { x: 138.0 - side / 2.0, y: 148.0 - side / 2.0, width: side, height: side };
        let mut landmarks = [Point::default(); 5];
        landmarks[0] = Point::new(100.0, 120.0);
        landmarks[1] = Point::new(176.0, 120.0);
        Detection { bounds, landmarks, confidence: 0.9 }
    }

    fn picture() -> Image {
        let colour = |i: u32| [(i % 300 % 256) as u8, (i / 300 % 256) as u8, 255];
        Image::from_rgb(300, 300, (0..300 * 300).flat_map(colour).collect()).unwrap()
    }

    fn read(answers: &Answers) -> Result<Option<MeshReading>, InferenceError> {
        network(answers).read(&picture(), &face())
    }

    #[test]
    fn a_reading_joins_both_networks() {
        let found = read(&frontal()).unwrap().unwrap();
        assert!(found.pose.yaw_deg.abs() < 0.1 && found.pose.pitch_deg.abs() < 0.1, "{found:?}");
        assert_eq!(found.blink, [0.25, 0.5]);
        assert!(found.eye_ratios.iter().all(|ratio| (ratio - 0.3).abs() < 1e-4), "{found:?}");
    }

    #[test]
    fn the_mesh_sees_the_crop_with_its_channels_last() {
        let answers = frontal();
        read(&answers).unwrap();
        let asked = answers.asked.lock().unwrap();
        assert_eq!(asked[0].shape, [1, 256, 256, 3]);
        let pixel = |x: usize, y: usize| &asked[0].values[(y * 256 + x) * 3..][..3];
        for (x, y) in [(0, 0), (17, 200), (245, 3)] {
            let expected = [(10 + x) as f32 / 255.0, (20 + y) as f32 / 255.0, 1.0];
            for (found, expected) in pixel(x, y).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-3, "{x} {y}: {found}, expected {expected}");
            }
        }
        assert_eq!(asked[1].shape, [1, 146, 2]);
    }

    #[test]
    fn a_face_that_is_lost_or_explains_nothing_is_no_reading() {
        let expressions = vec![0.0; 52];
        let lost = answers(mesh::frontal_values(0.3), -0.1, expressions.clone());
        assert_eq!(read(&lost).unwrap(), None);
        assert_eq!(lost.asked.lock().unwrap().len(), 1, "expressions of nobody are not asked for");
        let flat = answers(vec![1.0; 3 * mesh::POINTS], 5.0, expressions);
        assert_eq!(read(&flat).unwrap(), None);
        let nowhere = Detection { bounds: Rect::default(), ..face() };
        assert_eq!(network(&frontal()).read(&picture(), &nowhere).unwrap(), None);
    }

    #[test]
    fn answers_of_another_form_are_errors() {
        let (points, expressions) = (mesh::frontal_values(0.3), vec![0.0; 52]);
        let mut not_finite = points.clone();
        not_finite[99] = f32::NAN;
        for (what, answers) in [
            ("few points", answers(vec![1.0; 3], 5.0, expressions.clone())),
            ("no number", answers(not_finite, 5.0, expressions.clone())),
            ("no presence", answers(points.clone(), f32::NAN, expressions.clone())),
            ("few expressions", answers(points.clone(), 5.0, vec![0.0; 51])),
        ] {
            let error = read(&answers).unwrap_err();
            assert!(matches!(error, InferenceError::Shape { .. }), "{what}: {error}");
        }
        let mut nameless = answers(points, 5.0, expressions);
        nameless.outputs.remove(0);
        let error = read(&nameless).unwrap_err();
        assert!(matches!(error, InferenceError::MissingOutput { .. }), "{error}");
    }
}
