//! What a person has before the face: a mask, sunglasses, glasses, a hand.

use crate::people::head::Head;
use crate::people::maths::{Vec3, add, hill, hill2, light_of, mix, noise, scale, step};
use crate::people::mesh::{Material, Mesh, Vertex};
use crate::people::traits::Glasses;
use crate::people::{Hand, Mask, Shot};

/// Everything before the face.
pub fn meshes(head: &Head<'_>, shot: &Shot) -> Vec<Mesh> {
    let mut all = Vec::new();
    if let Some(mask) = shot.mask {
        all.extend(mask_meshes(head, mask));
    }
    if shot.sunglasses {
        let dark = Glasses {
            width: 28.0,
            height: 22.0,
            rim: 1.8,
            squareness: 2.6,
            colour: light_of(18.0, 17.0, 18.0),
        };
        all.extend(glasses(head, &dark, true));
    } else if let Some(own) = &head.person.glasses {
        all.extend(glasses(head, own, false));
    }
    if let Some(hand) = shot.hand {
        all.extend(hand_meshes(head, hand));
    }
    all
}

fn mask_meshes(head: &Head<'_>, mask: Mask) -> Vec<Mesh> {
    let person = head.person;
    let (nose, mouth, skull) = (&person.nose, &person.mouth, &person.skull);
    let cloth = match mask {
        Mask::Surgical => light_of(158.0, 196.0, 214.0),
        Mask::White => light_of(226.0, 226.0, 222.0),
        Mask::Dark => light_of(38.0, 40.0, 46.0),
    };
    let top = nose.tip_y - 21.0;
    let bottom = skull.chin_y + 1.0;
    let sheet = Mesh::grid(Material::Cloth, (150, 130), |u, v| {
        let angle = 1.32 * (2.0 * u - 1.0);
        let edge = top + 15.0 * (angle / 1.3).powi(2);
        let y = mix(edge, bottom - 14.0 * (angle / 1.3).powi(2), v);
        let section = head.section(y);
        let x = (section.wide + 1.5) * angle.sin();
        let within = x.clamp(-section.wide * 0.995, section.wide * 0.995);
        let skin = head.place(within, y);
        let tent = head.person.nose.forward * hill2(x, 19.0, y - nose.tip_y - 1.0, 24.0)
            + 13.0 * hill2(x, 36.0, y - mouth.y - 4.0, 34.0);
        let round = (section.front + 2.0) * angle.cos().max(0.0).powf(0.75) + tent;
        let z = (skin[2] + 1.8).max(round);
        let pleat = [0.36, 0.54, 0.72].map(|at| hill(v - at, 0.012)).iter().sum::<f32>();
        let hem = step(0.05, 0.04, v) + step(0.955, 0.965, v);
        let weave = 1.0 + 0.05 * noise(x * 0.5, y * 0.5, 71) + 0.05 * noise(x * 0.07, y * 0.07, 72);
        let shade = weave * (1.0 - 0.22 * pleat) * (1.0 - 0.10 * hem);
        Vertex {
            gloss: 0.05,
            ..Vertex::new([skin[0] + x - within, y, z - 0.8 * pleat], scale(cloth, shade))
        }
    });
    let mut all = vec![sheet];
    for side in [-1.0, 1.0] {
        let wide = head.section(20.0).wide;
        for (y, ear_y) in [(top + 14.0, -6.0), (bottom - 18.0, 30.0)] {
            let from = [side * (head.section(y).wide * 0.93), y, 22.0];
            let to = [side * (wide + 3.0), ear_y, -12.0];
            all.push(Mesh::bar(Material::Cloth, [(from, 1.4), (to, 1.4)], |_, _| {
                light_of(225.0, 225.0, 225.0)
            }));
        }
    }
    all
}

fn glasses(head: &Head<'_>, shape: &Glasses, is_dark: bool) -> Vec<Mesh> {
    let eyes = &head.person.eyes;
    let front = head.place(eyes.apart, 0.0)[2].max(head.place(0.0, -4.0)[2] - 6.0) + 9.0;
    let centre = [eyes.apart.max(shape.width + 5.5), 3.0];
    let outer = centre[0] + shape.width;
    let bend = |x: f32| front - 0.0032 * x * x;
    let mut frame = Mesh::grid(Material::Polished, (240, 110), |u, v| {
        let (x, y) = (mix(-66.0, 66.0, u), mix(-26.0, 32.0, v));
        let (dx, dy) = (x.abs() - centre[0], y - centre[1]);
        let power = shape.squareness;
        let size = ((dx / shape.width).abs().powf(power) + (dy / shape.height).abs().powf(power))
            .powf(1.0 / power);
        let from_edge = (size - 1.0) * shape.height;
        let on_rim = step(shape.rim + 0.7, shape.rim - 0.5, from_edge.abs());
        let bridge = step(2.2, 1.2, (y + 4.0 + 0.02 * x * x).abs())
            * step(centre[0] - shape.width + 2.0, centre[0] - shape.width, x.abs());
        let lens = if is_dark { step(0.3, -0.3, from_edge) } else { 0.0 };
        let rim = on_rim.max(bridge);
        let shine = 0.015 + 0.05 * step(12.0, -18.0, y) + 0.03 * hill(dx + 0.6 * dy + 6.0, 5.0);
        let colour = if rim > 0.5 { shape.colour } else { [shine, shine, shine * 1.1] };
        Vertex { gloss: 1.0, cover: rim.max(lens), ..Vertex::new([x, y, bend(x)], colour) }
    });
    frame.is_frayed = true;
    let mut all = vec![frame];
    for side in [-1.0, 1.0] {
        let from = [side * outer.min(66.0), -4.0, bend(outer)];
        let to = [side * (head.section(0.0).wide + 2.0), -5.0, -14.0];
        let mut arm = Mesh::bar(Material::Polished, [(from, 1.7), (to, 1.7)], |_, _| shape.colour);
        arm.throws_shadow = is_dark;
        all.push(arm);
    }
    all
}

/// A flat hand from the right side of the picture, its fingers over mouth or eyes.
fn hand_meshes(head: &Head<'_>, hand: Hand) -> Vec<Mesh> {
    let person = head.person;
    let middle = match hand {
        Hand::OverMouth => person.mouth.y + 2.0,
        Hand::OverEyes => -4.0,
    };
    let front = head.place(0.0, person.nose.tip_y)[2];
    let lean = 0.16;
    let depth = |x: f32| front + 9.0 - 0.0028 * x * x;
    let tone = person.skin.tone;
    let skin = move |u: f32, v: f32| {
        let joints = hill(v - 0.4, 0.02) + hill(v - 0.7, 0.02);
        scale(tone, 0.95 + 0.08 * noise(u * 9.0, v * 14.0, 81) - 0.14 * joints)
    };
    let mut all = Vec::new();
    for (index, (reach, thick)) in
        [(-36.0_f32, 8.6_f32), (-52.0, 9.2), (-48.0, 9.0), (-28.0, 7.8)].iter().enumerate()
    {
        let y = middle + 16.2 * (index as f32 - 1.5);
        let from = [46.0, y + lean * 40.0, depth(46.0) + 2.0];
        let to = [*reach, y - lean * reach.abs(), depth(*reach)];
        all.push(Mesh::bar(Material::Skin, [(from, *thick + 1.2), (to, thick - 1.6)], skin));
    }
    let palm = |x: f32, y: f32, z: f32| -> Vec3 { [x, middle + y, depth(46.0) + z] };
    for (y, radius) in [(-12.0, 15.0), (6.0, 16.5), (24.0, 15.0)] {
        all.push(Mesh::bar(
            Material::Skin,
            [(palm(50.0, y + 6.0, -1.0), radius), (palm(98.0, y * 0.8 + 16.0, -10.0), radius)],
            skin,
        ));
    }
    let thumb = [(palm(78.0, -14.0, -6.0), 11.0), (palm(42.0, -46.0, -16.0), 8.0)];
    all.push(Mesh::bar(Material::Skin, thumb, skin));
    let elbow = add(palm(104.0, 22.0, -12.0), [70.0, 190.0, -20.0]);
    let sleeve = person.clothes.colour;
    all.push(Mesh::bar(
        Material::Cloth,
        [(palm(108.0, 26.0, -12.0), 30.0), (elbow, 44.0)],
        move |u, v| scale(sleeve, 1.0 + 0.15 * noise(u * 12.0, v * 9.0, 82)),
    ));
    for mesh in &mut all {
        mesh.find_hollows(0.3);
    }
    all
}
