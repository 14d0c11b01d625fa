//! What stands behind a held medium: a procedural room, or another picture out of focus.

use serde::Serialize;

use crate::attacks::draw::Draw;
use crate::attacks::draw::mix;
use crate::attacks::draw::noise;
use crate::attacks::draw::step;
use crate::attacks::light::Light;
use crate::attacks::light::Rgb;
use crate::attacks::light::blend;
use crate::attacks::light::times;

/// A wall with furniture, or a blurred picture.
#[derive(Clone, Debug, Serialize)]
pub struct Room {
    /// Another picture out of focus instead of a drawn room.
    pub picture: bool,
    /// Brightness of the room's light; the wall's reflectance is in `wall`.
    pub level: f32,
    /// Out-of-focus blur of edges in pixels.
    pub blur_px: f32,
    wall: Rgb,
    fall_off: [f32; 2],
    texture: f32,
    texture_px: f32,
    noise_seed: u64,
    things: Vec<Thing>,
}

/// Furniture, door, window or picture: a rectangle with a gradient.
#[derive(Clone, Debug, Serialize)]
struct Thing {
    /// Left, top, right, bottom in shares of the frame.
    place: [f32; 4],
    colour: Rgb,
    fade: f32,
    /// A frame of another tone around it, in shares of its size; 0 is none.
    rim: f32,
}

impl Room {
    /// A room that fits behind a medium of about this brightness.
    pub fn draw(draw: &mut Draw, has_picture: bool) -> Self {
        let grey = draw.scaled([0.12, 0.75]);
        let tint = |draw: &mut Draw| [draw.within([0.9, 1.1]), 1.0, draw.within([0.8, 1.1])];
        let wall = tint(draw).map(|t| t * grey);
        let things = (0..3 + (draw.unit() * 6.0) as usize).map(|_| Thing::draw(draw)).collect();
        Self {
            picture: has_picture && draw.chance(0.35),
            level: draw.scaled([0.25, 1.3]),
            blur_px: draw.scaled([1.0, 9.0]),
            wall,
            fall_off: [draw.within([-0.35, 0.35]), draw.within([-0.35, 0.35])],
            texture: draw.scaled([0.003, 0.03]),
            texture_px: draw.scaled([2.0, 12.0]),
            noise_seed: draw.bits(),
            things,
        }
    }

    /// The room in a frame under a light, one colour for each pixel. `picture` is what is seen
    /// instead of a drawn room.
    pub fn seen(&self, [width, height]: [usize; 2], white: Rgb, picture: Option<&Light>) -> Light {
        let picture = picture.filter(|_| self.picture).map(|picture| picture.reduced(14));
        let light = white.map(|value| value * self.level);
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let share = [x as f32 / width as f32, y as f32 / height as f32];
                let colour = picture.as_ref().map_or_else(
                    || self.drawn(share, [width as f32, height as f32]),
                    |picture| {
                        let x = share[0] * picture.width as f32 - 0.5;
                        picture.smooth(x, share[1] * picture.height as f32 - 0.5)
                    },
                );
                values.push(times(colour, light));
            }
        }
        Light { width, height, values }
    }

    fn drawn(&self, [x, y]: [f32; 2], [width, height]: [f32; 2]) -> Rgb {
        let fall = 1.0 + self.fall_off[0] * (x - 0.5) * 2.0 + self.fall_off[1] * (y - 0.5) * 2.0;
        let (px, py) = (x * width / self.texture_px, y * height / self.texture_px);
        let coarse = noise(self.noise_seed ^ 1, px / 23.0, py / 23.0);
        let grain = 1.0 + self.texture * (noise(self.noise_seed, px, py) + 2.0 * coarse);
        let mut colour = self.wall;
        for thing in &self.things {
            let [left, top, right, bottom] = thing.place;
            let soft = self.blur_px;
            let inside = |near: f32, far: f32, at: f32, extent: f32| {
                step(-soft, soft, (at - near) * extent) * step(-soft, soft, (far - at) * extent)
            };
            let cover = inside(left, right, x, width) * inside(top, bottom, y, height);
            let (dx, dy) = ((right - left) * thing.rim, (bottom - top) * thing.rim);
            let core =
                inside(left + dx, right - dx, x, width) * inside(top + dy, bottom - dy, y, height);
            let tone = mix(1.0, 1.0 + thing.fade, (y - top) / (bottom - top));
            let rim = if thing.rim > 0.0 { mix(0.55, 1.0, core) } else { 1.0 };
            colour = blend(colour, thing.colour.map(|value| value * tone.max(0.1) * rim), cover);
        }
        colour.map(|value| value * fall.max(0.2) * grain)
    }
}

impl Thing {
    fn draw(draw: &mut Draw) -> Self {
        let (x, y) = (draw.within([-0.1, 1.0]), draw.within([-0.1, 0.95]));
        let (width, height) = (draw.scaled([0.06, 0.5]), draw.scaled([0.06, 0.7]));
        // One in six is a window or a lamp, brighter than any wall.
        let grey =
            if draw.chance(0.17) { draw.within([0.9, 2.5]) } else { draw.scaled([0.02, 0.7]) };
        let strong = draw.within([0.0, 0.5]);
        let colour = [0, 1, 2].map(|_| grey * (1.0 + strong * draw.within([-1.0, 1.0])));
        Self {
            place: [x, y, x + width, y + height],
            colour,
            fade: draw.within([-0.4, 0.4]),
            rim: if draw.chance(0.4) { draw.within([0.02, 0.12]) } else { 0.0 },
        }
    }
}
