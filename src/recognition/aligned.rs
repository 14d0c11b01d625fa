//! A network that looks at an upright face: the picture is warped so that the five landmarks lie
//! where the network learned to expect them.

use crate::face::alignment::Similarity;
use crate::face::alignment::warp_into;
use crate::face::detection::Detection;
use crate::face::geometry::Point;
use crate::face::image::Image;
use crate::face::planes::PlaneMap;
use crate::face::planes::Planes;
use crate::inference::ChannelOrder;
use crate::inference::Normalisation;
use crate::inference::Tensor;

/// How a network wants its face.
pub struct Aligner {
    template: [Point; 5],
    map: PlaneMap,
    side: usize,
}

impl Aligner {
    /// For a square input of `side` pixels with the landmarks at `template`.
    pub fn new(template: &[[f32; 2]; 5], normalisation: Normalisation, side: u32) -> Self {
        Self {
            template: template.map(|[x, y]| Point::new(x, y)),
            map: plane_map(normalisation),
            side: side as usize,
        }
    }

    /// Where the landmarks go, in pixels of the input.
    pub fn template(&self) -> &[Point; 5] {
        &self.template
    }

    /// The transform from the picture to the input; `None` when the landmarks coincide or are not
    /// finite.
    pub fn transform(&self, face: &Detection) -> Option<Similarity> {
        Similarity::between(&face.landmarks, &self.template)
    }

    /// The input tensor that a transform shows.
    pub fn warp(&self, image: &Image, transform: Similarity) -> Tensor {
        let side = self.side;
        let mut values = vec![0.0; 3 * side * side];
        let mut planes = Planes { width: side, height: side, values: &mut values };
        warp_into(image, transform, &self.map, &mut planes);
        Tensor { shape: vec![1, 3, side, side], values }
    }

    /// The input tensor; `None` when the landmarks coincide or are not finite.
    pub fn align(&self, image: &Image, face: &Detection) -> Option<Tensor> {
        Some(self.warp(image, self.transform(face)?))
    }
}

/// How pixels become the planes of a network.
pub fn plane_map(normalisation: Normalisation) -> PlaneMap {
    let Normalisation { order, mean, std } = normalisation;
    match order {
        ChannelOrder::Rgb => PlaneMap::rgb(mean, std),
        ChannelOrder::Bgr => PlaneMap::bgr(mean, std),
    }
}
