//! Stored pictures for answers: read from the store and encoded off the network tasks.

use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::FaceStorageType;
use crate::roster::{Roster, RosterError};
use crate::web::base64_image;
use crate::web::error::ApiError;
use crate::web::service::Service;

/// Most bytes of pictures in one answer: 500 results with full pictures would be gigabytes. The
/// first picture that does not fit and all after it are answered with `""`, as if nothing was
/// stored; results are sorted, so the best matches keep theirs.
pub const IMAGE_BYTES_PER_ANSWER_MAX: usize = 32 * 1024 * 1024;

/// The person whose picture is wanted.
pub struct Wanted {
    /// Identity in the collection.
    pub id: PersonId,
    /// Which picture the store keeps.
    pub storage: FaceStorageType,
}

/// The stored pictures of people in base64, in the same order; `""` for people without one and
/// for people who were deleted in the meantime.
pub async fn load(
    service: &Service,
    collection: CollectionName,
    wanted: Vec<Wanted>,
) -> Result<Vec<String>, ApiError> {
    if wanted.iter().all(|person| person.storage == FaceStorageType::NoStorage) {
        return Ok(vec![String::new(); wanted.len()]);
    }
    service
        .blocking(move |roster| {
            let mut left = IMAGE_BYTES_PER_ANSWER_MAX;
            let images = wanted.iter().map(|person| one(roster, &collection, person, &mut left));
            Ok(images.collect::<Result<_, RosterError>>()?)
        })
        .await
}

fn one(
    roster: &Roster,
    collection: &CollectionName,
    person: &Wanted,
    bytes_left: &mut usize,
) -> Result<String, RosterError> {
    if person.storage == FaceStorageType::NoStorage || *bytes_left == 0 {
        return Ok(String::new());
    }
    let image = match roster.image(collection, &person.id) {
        Ok(image) => image.unwrap_or_default(),
        Err(RosterError::NotFound) => Vec::new(),
        Err(error) => return Err(error),
    };
    let rest = bytes_left.checked_sub(image.len());
    *bytes_left = rest.unwrap_or(0);
    Ok(if rest.is_some() { base64_image::encode(&image) } else { String::new() })
}
