//! The templates that the evaluation rests on: of every picture, and of every frame of the visits.
//! They take minutes to make, so they are kept in a scratch file.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::eval::dataset::Dataset;
use crate::eval::extraction::Make;
use crate::eval::extraction::central_face;
use crate::eval::extraction::each;
use crate::eval::identity::walk::FRAMES;
use crate::eval::identity::walk::Walk;
use crate::face::template::Template;
use crate::picture;
use crate::recognition::Recognizer;

/// Templates of one embedding model; `None` where no face was found.
pub struct Frames {
    /// By picture.
    pub pictures: Vec<Option<Template>>,
    /// Visits, in the order of their people.
    pub visits: Vec<Visit>,
}

/// The frames of one visit.
pub struct Visit {
    /// Index into the pictures: what it was drawn from.
    pub picture: usize,
    /// Frame by frame.
    pub frames: Vec<Option<Template>>,
}

/// From scratch files in a folder, or made anew and kept there; `name` is the embedding model's.
pub fn read_or_make(
    folder: &Path,
    name: &str,
    dataset: &Dataset,
    make: Make<'_>,
) -> anyhow::Result<Frames> {
    let plan = plan(dataset);
    let pictures: Vec<Job> = (0..dataset.pictures.len()).map(Job::Picture).collect();
    let visits: Vec<Job> = plan.iter().copied().map(Job::Visit).collect();
    let part = |kind: &str, jobs: &[Job]| -> anyhow::Result<Vec<Option<Template>>> {
        let file = folder.join(format!("{name}.{kind}"));
        let count = jobs.iter().map(|job| job.frames()).sum();
        if let Some(kept) = fs::read(&file).ok().and_then(|bytes| decode(&bytes, count)) {
            return Ok(kept);
        }
        let made = each(jobs, make, |recognizer, job| run(recognizer, dataset, *job))?.concat();
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(&file, encode(&made)).with_context(|| file.display().to_string())?;
        Ok(made)
    };
    let pictures = part("pictures", &pictures)?;
    let frames = part("visits", &visits)?;
    let visits = plan.into_iter().zip(frames.chunks(FRAMES));
    let visits = visits.map(|(picture, frames)| Visit { picture, frames: frames.to_vec() });
    Ok(Frames { pictures, visits: visits.collect() })
}

#[derive(Clone, Copy)]
enum Job {
    Picture(usize),
    Visit(usize),
}

impl Job {
    fn frames(self) -> usize {
        if matches!(self, Job::Visit(_)) { FRAMES } else { 1 }
    }
}

/// Which pictures become visits: the second one of every other person who has two, and the first
/// one of every stranger.
fn plan(dataset: &Dataset) -> Vec<usize> {
    let mut plan = Vec::new();
    let (mut first, mut several) = (0, 0);
    while let Some(picture) = dataset.pictures.get(first) {
        let own = dataset.pictures[first..].iter().take_while(|p| p.person == picture.person);
        let count = own.count();
        if picture.stranger {
            plan.push(first);
        } else if count >= 2 {
            several += 1;
            plan.extend((several % 2 == 1).then_some(first + 1));
        }
        first += count;
    }
    plan
}

fn run(
    recognizer: &mut Recognizer,
    dataset: &Dataset,
    job: Job,
) -> anyhow::Result<Vec<Option<Template>>> {
    let (Job::Picture(index) | Job::Visit(index)) = job;
    let path = &dataset.pictures[index].path;
    let image = picture::decode(&fs::read(path)?).with_context(|| path.display().to_string())?;
    let faces = recognizer.detect(&image)?;
    let Some(face) = central_face(&image, &faces) else {
        return Ok(vec![None; job.frames()]);
    };
    if matches!(job, Job::Picture(_)) {
        return Ok(vec![Some(recognizer.embed(&image, face)?)]);
    }
    let walk = Walk::new(index as u64);
    let frame = |number| -> anyhow::Result<Option<Template>> {
        let drawn = walk.frame(&image, face, number);
        let file = picture::encode_jpeg(&drawn, walk.jpeg_quality());
        let drawn = picture::decode(&file)?;
        let faces = recognizer.detect_near(&drawn)?;
        let Some(face) = central_face(&drawn, &faces) else { return Ok(None) };
        Ok(Some(recognizer.embed(&drawn, face)?))
    };
    (0..FRAMES).map(frame).collect()
}

/// Components as little-endian `f32`, after their number; a frame without a face is all zeros.
fn encode(templates: &[Option<Template>]) -> Vec<u8> {
    let dimension = templates.iter().flatten().next().map_or(0, Template::dimension);
    let mut bytes = (dimension as u32).to_le_bytes().to_vec();
    for template in templates {
        match template {
            Some(own) => own.values().iter().for_each(|v| bytes.extend(v.to_le_bytes())),
            None => bytes.resize(bytes.len() + 4 * dimension, 0),
        }
    }
    bytes
}

/// `None` when there are not so many templates: the file belongs to other pictures.
fn decode(bytes: &[u8], count: usize) -> Option<Vec<Option<Template>>> {
    let (dimension, rest) = bytes.split_first_chunk::<4>()?;
    let dimension = u32::from_le_bytes(*dimension) as usize;
    if dimension == 0 || rest.len() != count * dimension * 4 {
        return None;
    }
    let template = |row: &[u8]| {
        let values: Vec<f32> =
            row.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Template::from_embedding(&values).ok()
    };
    Some(rest.chunks_exact(dimension * 4).map(template).collect())
}
