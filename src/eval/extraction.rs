//! Every picture once, by the recognition path that HTTP and cameras use, on all cores.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use crate::cli::output::Progress;
use crate::eval::dataset::Picture;
use crate::face::detection::Detection;
use crate::face::geometry::Point;
use crate::face::image::Image;
use crate::face::template::Template;
use crate::picture;
use crate::recognition::Recognizer;

/// Loads one set of networks; called once per thread.
pub type Make<'a> = &'a (dyn Fn() -> anyhow::Result<Recognizer> + Sync);

/// How many recognizers work side by side on so many items.
pub fn workers(items: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(items.max(1))
}

/// What `work` makes of each picture, in the order of `pictures`, with a progress bar; ends at the
/// first error.
pub fn each<P: Sync, T: Send>(
    pictures: &[P],
    make: Make<'_>,
    work: impl Fn(&mut Recognizer, &P) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let progress = Mutex::new(Progress::new("pictures", pictures.len() as u64));
    let parts: Vec<anyhow::Result<Vec<(usize, T)>>> = std::thread::scope(|scope| {
        let work = || -> anyhow::Result<Vec<(usize, T)>> {
            let mut recognizer = make()?;
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(picture) = pictures.get(index) else { return Ok(own) };
                own.push((index, work(&mut recognizer, picture)?));
                progress.lock().unwrap_or_else(PoisonError::into_inner).step();
            }
        };
        let handles: Vec<_> = (0..workers(pictures.len())).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
            .collect()
    });
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    let mut found = Vec::with_capacity(pictures.len());
    for part in parts {
        found.extend(part?);
    }
    found.sort_unstable_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, made)| made).collect())
}

/// The template of each picture, `None` where no face was found; in the order of `pictures`.
pub fn templates(pictures: &[Picture], make: Make<'_>) -> anyhow::Result<Vec<Option<Template>>> {
    each(pictures, make, |recognizer, picture| {
        template(recognizer, picture).with_context(|| picture.path.display().to_string())
    })
}

fn template(recognizer: &mut Recognizer, picture: &Picture) -> anyhow::Result<Option<Template>> {
    let image = picture::decode(&fs::read(&picture.path)?)?;
    let faces = recognizer.detect(&image)?;
    let Some(face) = central_face(&image, &faces) else { return Ok(None) };
    Ok(Some(recognizer.embed(&image, face)?))
}

/// The face nearest to the middle: in Labeled Faces in the Wild the picture is named after it,
/// while a bystander may be larger.
pub fn central_face<'a>(image: &Image, faces: &'a [Detection]) -> Option<&'a Detection> {
    let middle = Point::new(image.width() as f32 / 2.0, image.height() as f32 / 2.0);
    faces.iter().min_by(|a, b| {
        a.bounds.centre().distance(middle).total_cmp(&b.bounds.centre().distance(middle))
    })
}
