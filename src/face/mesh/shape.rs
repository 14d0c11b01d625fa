//! The reference shape: where points of the mesh lie in a face that looks straight ahead.
//!
//! Printed by `models/train/reference_shape.py`: the mean of the meshes of 2,384 near-frontal press
//! portraits, made symmetric. The points hardly move with the expression: bridge and sides of the
//! nose, corners of the eyes, cheekbones, forehead. Zero of the pitch is where `MediaPipe`'s
//! canonical face model has it, in the mean over those pictures. Units: the distance between the
//! outer corners of the eyes is 1; x to the picture's right, y down, z away from the camera.

/// Points on the middle line: index in the mesh, and (y, z).
pub const MIDLINE: [(usize, [f64; 2]); 10] = [
    (168, [-0.0870, -0.0752]),
    (6, [-0.0048, -0.1293]),
    (197, [0.0720, -0.1889]),
    (195, [0.1420, -0.2542]),
    (5, [0.2171, -0.3215]),
    (4, [0.3113, -0.3536]),
    (10, [-0.6779, 0.0111]),
    (151, [-0.4853, -0.0402]),
    (9, [-0.2634, -0.0851]),
    (8, [-0.1659, -0.0760]),
];

/// Mirrored pairs: indices of the image-left and the image-right point, and (x, y, z) of the left
/// one.
pub const PAIRS: [([usize; 2], [f64; 3]); 24] = [
    ([122, 351], [-0.0656, 0.0148, -0.1027]),
    ([196, 419], [-0.0612, 0.0866, -0.1731]),
    ([188, 412], [-0.1092, 0.0576, -0.0605]),
    ([174, 399], [-0.1085, 0.1270, -0.1259]),
    ([236, 456], [-0.1083, 0.1886, -0.1826]),
    ([198, 420], [-0.1545, 0.2364, -0.1288]),
    ([126, 355], [-0.1971, 0.2246, -0.0369]),
    ([193, 417], [-0.0849, -0.0704, -0.0267]),
    ([245, 465], [-0.1150, 0.0131, 0.0080]),
    ([244, 464], [-0.1374, 0.0023, 0.0601]),
    ([133, 362], [-0.1981, -0.0115, 0.1152]),
    ([33, 263], [-0.5000, -0.0239, 0.1731]),
    ([119, 348], [-0.3793, 0.1651, 0.0692]),
    ([118, 347], [-0.5121, 0.1768, 0.1019]),
    ([101, 330], [-0.3968, 0.2465, 0.0340]),
    ([100, 329], [-0.2769, 0.1970, 0.0175]),
    ([47, 277], [-0.2033, 0.1549, -0.0044]),
    ([114, 343], [-0.1549, 0.1091, -0.0288]),
    ([117, 346], [-0.5999, 0.1545, 0.1660]),
    ([116, 345], [-0.7285, 0.1665, 0.3023]),
    ([111, 340], [-0.6467, 0.1090, 0.2297]),
    ([67, 297], [-0.4050, -0.6310, 0.1002]),
    ([109, 338], [-0.2201, -0.6705, 0.0300]),
    ([103, 332], [-0.5763, -0.5524, 0.2199]),
];

/// Every point of the shape: index in the mesh, and its place.
pub fn points() -> impl Iterator<Item = (usize, [f64; 3])> {
    let middle = MIDLINE.into_iter().map(|(index, [y, z])| (index, [0.0, y, z]));
    let sides = PAIRS
        .into_iter()
        .flat_map(|([left, right], [x, y, z])| [(left, [x, y, z]), (right, [-x, y, z])]);
    middle.chain(sides)
}
