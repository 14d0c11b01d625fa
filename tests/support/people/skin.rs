//! What lies on the skin at the scale of a millimetre: mottling, redness, freckles, spots, lines,
//! and where a beard grows.

use crate::people::Expression;
use crate::people::head::fold_distance;
use crate::people::maths::{Vec3, clouds, hill, hill2, mix, mix3, noise, scale, step, times};
use crate::people::traits::Person;

/// The colour of the skin at a place of the neutral face, and how much it shines. `front` is 0 on
/// the back of the head.
pub fn colour(person: &Person, mood: &Expression, [x, y]: [f32; 2], front: f32) -> (Vec3, f32) {
    let skin = &person.skin;
    let ax = x.abs();
    let mut tone = skin.tone;
    // Large and small patches, then pores.
    let mottle = 0.21 * clouds(x * 0.035, y * 0.035, 3, skin.seed)
        + 0.13 * clouds(x * 0.16, y * 0.16, 3, skin.seed ^ 1)
        + 0.07 * noise(x * 0.9, y * 0.9, skin.seed ^ 2);
    tone = scale(tone, 1.0 + skin.mottle * mottle);
    let warm = 0.10 * clouds(x * 0.07, y * 0.07, 2, skin.seed ^ 3);
    tone = times(tone, [1.0 + warm, 1.0, 1.0 - 0.5 * warm]);
    if front <= 0.0 {
        return (tone, 0.2);
    }
    let nose = &person.nose;
    let mut red = 0.8 * hill2(ax - 38.0, 18.0, y - 30.0, 15.0);
    red += 0.8 * hill2(x, 13.0, y - nose.tip_y, 11.0)
        + 0.4 * hill2(x, 16.0, y - person.skull.chin_y + 14.0, 10.0);
    red += 0.35 * mood.smile * hill2(ax - 38.0, 18.0, y - 30.0, 15.0);
    let red =
        (red * skin.redness * (0.8 + 0.5 * noise(x * 0.12, y * 0.12, skin.seed ^ 4))).max(0.0);
    tone = times(tone, [1.0 + 0.02 * red, 1.0 - 0.24 * red, 1.0 - 0.22 * red]);
    tone = around_eyes(person, tone, ax, y);
    tone = freckles_and_spots(person, tone, x, y);
    tone = scale(tone, 1.0 - lines(person, mood, x, y));
    tone = stubble(person, tone, x, y);
    let hole = hill2(ax - 0.45 * nose.wings, nose.nostril + 0.5, y - nose.base_y + 1.6, 1.9);
    tone = mix3(tone, scale(tone, 0.09), (1.15 * hole).min(1.0));
    let zone = hill2(x, 26.0, y + 42.0, 18.0) + hill2(x, 9.0, y - 20.0, 24.0);
    let gloss = skin.shine * (0.35 + 0.5 * zone + 0.3 * hill2(ax - 42.0, 14.0, y - 18.0, 10.0));
    (tone, gloss * (1.0 - 0.8 * growth(person, x, y)))
}

fn around_eyes(person: &Person, tone: Vec3, ax: f32, y: f32) -> Vec3 {
    let eyes = &person.eyes;
    let ring = person.skin.rings * hill2(ax - eyes.apart + 3.0, 14.0, y - 11.0, 6.0);
    let tone = times(tone, [1.0 - 0.32 * ring, 1.0 - 0.36 * ring, 1.0 - 0.28 * ring]);
    let lid =
        hill2(ax - eyes.apart, 15.0, y + 4.0, 8.0) + 0.6 * hill2(ax - 15.0, 6.0, y - 1.0, 8.0);
    let tone = times(tone, [1.0 - 0.06 * lid, 1.0 - 0.12 * lid, 1.0 - 0.10 * lid]);
    let painted = hill2(ax - eyes.apart - 1.0, 16.0, y + 6.5, 6.5);
    times(tone, eyes.shadow.map(|dark| 1.0 - dark * painted))
}

fn freckles_and_spots(person: &Person, mut tone: Vec3, x: f32, y: f32) -> Vec3 {
    let skin = &person.skin;
    if skin.freckles > 0.0 {
        let area = 0.35 + hill2(x, 48.0, y - 22.0, 24.0);
        let grain =
            noise(x * 0.42, y * 0.42, skin.seed ^ 7) + 0.4 * noise(x * 0.9, y * 0.9, skin.seed ^ 8);
        let freckle = step(0.55, 0.85, grain + 0.25 * area) * area * skin.freckles;
        tone = mix3(tone, times(tone, [0.62, 0.45, 0.36]), freckle.min(1.0));
    }
    for [sx, sy, radius, dark] in &skin.spots {
        let there = step(radius * 1.35, radius * 0.7, (x - sx).hypot(y - sy));
        tone = mix3(tone, times(tone, [0.30, 0.20, 0.17]), there * dark);
    }
    if let Some([ax, ay, bx, by, strength]) = skin.scar {
        let (dx, dy) = (bx - ax, by - ay);
        let t = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).max(1.0)).clamp(0.0, 1.0);
        let away = (x - ax - t * dx).hypot(y - ay - t * dy);
        tone = scale(tone, 1.0 + 1.6 * strength * hill(away, 1.5));
    }
    tone
}

/// How much darker the wrinkles make a place.
fn lines(person: &Person, mood: &Expression, x: f32, y: f32) -> f32 {
    let skin = &person.skin;
    let [forehead, frown, crow, fold, mouth_fold] = skin.lines;
    let ax = x.abs();
    let mut dark = 0.0;
    let raised = forehead + 0.35 * mood.brow.max(0.0);
    for (index, height) in [-37.0f32, -45.0, -53.0].into_iter().enumerate() {
        let wave = 1.6 * noise(x * 0.06, index as f32 * 7.3, skin.seed ^ 9) + 0.02 * x.abs();
        dark += 0.38 * raised * hill(y - height - wave, 1.0) * step(46.0, 24.0, ax);
    }
    dark += 0.42 * frown * hill(ax - 5.5 - 0.06 * (y + 20.0), 1.1) * hill(y + 20.0, 8.0);
    let crow = crow + 0.4 * mood.smile * (0.4 + crow);
    for (index, angle) in [-0.45f32, -0.05, 0.35].into_iter().enumerate() {
        let (dx, dy) = (ax - person.eyes.apart - 16.5, y - 0.5);
        let off = dy - dx * angle - 0.4 * index as f32;
        dark += 0.36 * crow * hill(off, 0.9) * step(0.0, 4.0, dx) * step(16.0, 8.0, dx);
    }
    let (away, down) = fold_distance(person, ax, y);
    let along = step(-0.1, 0.2, down) * step(1.25, 0.85, down);
    dark += 0.36 * (fold + 0.5 * mood.smile) * hill(away, 1.7) * along;
    let marionette =
        hill(ax - person.mouth.half_width - 3.0, 1.4) * hill(y - person.mouth.y - 11.0, 8.0);
    dark += 0.4 * mouth_fold * marionette;
    let bag = y - 12.0 - 0.012 * (ax - person.eyes.apart).powi(2);
    dark += 0.22 * person.eyes.bags * hill(bag, 1.8) * hill(ax - person.eyes.apart + 2.0, 12.0);
    dark.clamp(0.0, 0.6)
}

/// How full a beard stands at a place, 0 to 1.
pub fn growth(person: &Person, x: f32, y: f32) -> f32 {
    let beard = &person.beard;
    let [lip, chin, cheeks] = areas(person, x, y);
    (beard.lip * lip).max(beard.chin * chin).max(beard.cheeks * cheeks)
}

/// The areas of a beard: upper lip, chin, cheeks.
fn areas(person: &Person, x: f32, y: f32) -> [f32; 3] {
    let (mouth, nose) = (&person.mouth, &person.nose);
    if y < -10.0 {
        return [0.0; 3];
    }
    let ax = x.abs();
    let ragged = 1.5 * noise(x * 0.3, y * 0.3, person.skin.seed ^ 0xB);
    let over = mouth.y - mouth.upper * step(mouth.half_width + 4.0, 4.0, ax);
    let wide = mouth.half_width + 5.0;
    let lip = step(nose.base_y, nose.base_y + 4.0, y + ragged)
        * step(over + 0.5, over - 1.0, y)
        * step(wide + 2.0, wide - 5.0, ax + ragged);
    let beside = step(mouth.half_width + 1.0, mouth.half_width + 4.0, ax)
        * step(mouth.half_width + 13.0, mouth.half_width + 8.0, ax)
        * step(mouth.y - 5.0, mouth.y + 2.0, y);
    let under = mouth.y + mouth.lower + 2.0;
    let chin = step(under + 1.0, under + 5.0, y + ragged) * step(36.0, 27.0, ax);
    let side = ((ax - 30.0) / 32.0).clamp(0.0, 1.0);
    let edge = mix(mouth.y + 3.0, 16.0, side * side);
    let cheeks = step(edge, edge + 9.0, y + 2.0 * ragged) * step(24.0, 32.0, ax);
    [lip, chin.max(beside), cheeks]
}

/// Shaved shadow, or hair of the beard.
fn stubble(person: &Person, tone: Vec3, x: f32, y: f32) -> Vec3 {
    let beard = &person.beard;
    if beard.shadow + beard.lip + beard.chin <= 0.0 {
        return tone;
    }
    let [lip, chin, cheeks] = areas(person, x, y);
    let dots = 0.75 + 0.35 * noise(x * 1.3, y * 1.3, person.skin.seed ^ 0xC);
    let shadow = beard.shadow * lip.max(chin).max(0.8 * cheeks) * dots;
    let tone = mix3(tone, times(tone, [0.46, 0.49, 0.56]), shadow.clamp(0.0, 1.0));
    let full = growth(person, x, y);
    let strands = 0.75
        + 0.5 * noise(x * 0.8, y * 0.3, person.skin.seed ^ 0xD)
        + 0.35 * noise(x * 1.7, y * 0.7, person.skin.seed ^ 0xE);
    let hair = scale(beard.colour, strands.max(0.2));
    mix3(tone, hair, step(0.08, 0.6, full * (0.75 + 0.25 * dots)))
}
