//! The biometric template: an embedding of unit length.

use thiserror::Error;

/// Why an embedding cannot become a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The model answered NaN or infinity.
    #[error("the embedding holds a value that is not finite")]
    NotFinite,
    /// The model answered nothing but zeros, which have no direction.
    #[error("the embedding has no length")]
    Zero,
}

/// A unit vector; its dot product with another of the same model is the cosine similarity.
///
/// Biometric data: `Debug` never shows the values.
#[derive(Clone, PartialEq)]
pub struct Template(Box<[f32]>);

impl Template {
    /// Normalises an embedding to unit length.
    pub fn from_embedding(embedding: &[f32]) -> Result<Self, TemplateError> {
        if !embedding.iter().all(|value| value.is_finite()) {
            return Err(TemplateError::NotFinite);
        }
        let norm = embedding.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if norm < 1e-12 {
            return Err(TemplateError::Zero);
        }
        Ok(Self(embedding.iter().map(|value| (f64::from(*value) / norm) as f32).collect()))
    }

    /// The components, at unit length.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// The number of components, fixed by the embedding model.
    pub fn dimension(&self) -> usize {
        self.0.len()
    }

    /// Cosine similarity, -1 to 1. Templates of different models must not be compared; of
    /// different dimensions they answer -1.
    pub fn cosine(&self, other: &Template) -> f32 {
        if self.dimension() != other.dimension() {
            return -1.0;
        }
        let dot: f32 = self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum();
        dot.clamp(-1.0, 1.0)
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Template({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_unit_length() {
        let template = Template::from_embedding(&[3.0, 4.0]).unwrap();
        assert_eq!(template.values(), [0.6, 0.8]);
        assert!((template.cosine(&template) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn embeddings_without_direction_are_refused() {
        assert_eq!(Template::from_embedding(&[0.0; 4]), Err(TemplateError::Zero));
        assert_eq!(Template::from_embedding(&[f32::NAN, 1.0]), Err(TemplateError::NotFinite));
    }

    #[test]
    fn a_template_is_never_printed() {
        assert_eq!(format!("{:?}", Template::from_embedding(&[1.0, 2.0]).unwrap()), "Template(2)");
    }
}
