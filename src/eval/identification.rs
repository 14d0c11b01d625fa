//! Identification (1:N): people enrolled with one picture each, searched with their others and
//! with strangers.

use crate::face::template::Template;

/// The best comparison of each search.
#[derive(Clone, Debug, Default)]
pub struct Searches {
    /// People in the gallery.
    pub gallery: usize,
    /// Best cosine of each mated search, and whether it was the right person.
    pub mated: Vec<(f32, bool)>,
    /// Best cosine of each search by somebody who is not enrolled.
    pub strangers: Vec<f32>,
}

impl Searches {
    /// Enrols the first of each person's templates and searches the rest; every stranger's
    /// template is searched.
    pub fn run(people: &[Vec<&Template>], strangers: &[&Template]) -> Self {
        let enrolled: Vec<(usize, &Template)> = people
            .iter()
            .enumerate()
            .filter_map(|(person, own)| own.first().map(|first| (person, *first)))
            .collect();
        let best = |probe: &Template| {
            enrolled
                .iter()
                .map(|(person, reference)| (probe.cosine(reference), *person))
                .fold((-1.0, usize::MAX), |best, found| if found.0 > best.0 { found } else { best })
        };
        let mut searches = Self { gallery: enrolled.len(), ..Self::default() };
        for (person, own) in people.iter().enumerate() {
            for probe in own.iter().skip(1) {
                let (cosine, found) = best(probe);
                searches.mated.push((cosine, found == person));
            }
        }
        searches.strangers = strangers.iter().map(|probe| best(probe).0).collect();
        searches
    }

    /// Strangers who were taken for somebody.
    pub fn false_positives(&self, threshold: f32) -> u64 {
        self.strangers.iter().filter(|cosine| **cosine >= threshold).count() as u64
    }

    /// Enrolled people who were not found, or taken for somebody else.
    pub fn misses(&self, threshold: f32) -> u64 {
        self.mated.iter().filter(|(cosine, right)| !*right || *cosine < threshold).count() as u64
    }

    /// Enrolled people whose best candidate is themselves, whatever the threshold.
    pub fn rank_one(&self) -> u64 {
        self.mated.iter().filter(|(_, right)| *right).count() as u64
    }

    /// The lowest threshold at which the share of strangers taken for somebody is at most `rate`.
    pub fn threshold_for(&self, rate: f64) -> f32 {
        let mut sorted = self.strangers.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let allowed = (rate * sorted.len() as f64).floor() as usize;
        // Just above the best stranger who must not pass.
        sorted.get(allowed).map_or(-1.0, |cosine| cosine.next_up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_count_misses_and_false_positives() {
        let at = |angle: f32| Template::from_embedding(&[angle.cos(), angle.sin()]).unwrap();
        let (a, a2, b, b2, stranger) = (at(0.0), at(0.1), at(1.5), at(0.2), at(0.75));
        let searches = Searches::run(&[vec![&a, &a2], vec![&b, &b2]], &[&stranger]);
        assert_eq!((searches.gallery, searches.mated.len()), (2, 2));
        // b2 lies nearer to a.
        assert_eq!(searches.rank_one(), 1);
        assert_eq!((searches.misses(0.9), searches.misses(0.999)), (1, 2));
        assert_eq!((searches.false_positives(0.7), searches.false_positives(0.9)), (1, 0));
        let threshold = searches.threshold_for(0.0);
        assert_eq!(searches.false_positives(threshold), 0);
        assert_eq!(searches.threshold_for(1.0), -1.0);
    }
}
