//! The gallery: an immutable snapshot of one collection's people and templates, and exact 1:N and
//! N:N search over it.
//!
//! Writers make a new snapshot that shares everything unchanged with the old one; readers hold an
//! `Arc` and never wait. The people lie in leaves of at most 256 references, sorted by id across
//! all leaves: a change copies one leaf and the list of leaves, a page of people needs no sorting,
//! and a search walks contiguous memory. Pure.
//!
//! The gallery's own form of a template is compact (see [`packed`]); a search is exact over that
//! form, and the form is within 5e-5 of the `f32` cosine. A record read back from the gallery
//! carries templates of that form; packing them again changes nothing, so they never drift.

pub mod leaf;
pub mod names;
pub mod packed;
pub mod person;
pub mod ranking;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::face::template::Template;
use crate::gallery::leaf::Entry;
use crate::gallery::leaf::Leaf;
use crate::gallery::names::PersonId;
use crate::gallery::packed::PackedTemplates;
use crate::gallery::packed::Probe;
use crate::gallery::person::EmbeddingModelId;
use crate::gallery::person::Member;
use crate::gallery::person::Person;
use crate::gallery::person::Reference;
use crate::gallery::ranking::Candidate;
use crate::gallery::ranking::Ranking;
use crate::gallery::ranking::SearchOptions;

/// The people of one collection at one moment; cheap to clone.
#[derive(Clone)]
pub struct Gallery {
    model: EmbeddingModelId,
    dimension: usize,
    /// Sorted by id within and across.
    leaves: Vec<Arc<Leaf>>,
    persons: usize,
    references: usize,
    stale_references: usize,
}

impl Gallery {
    /// A gallery without people, for templates of one model.
    pub fn new(model: EmbeddingModelId, dimension: usize) -> Self {
        Self {
            model,
            dimension,
            leaves: Vec::new(),
            persons: 0,
            references: 0,
            stale_references: 0,
        }
    }

    /// The model whose templates can be searched.
    pub fn model(&self) -> &EmbeddingModelId {
        &self.model
    }

    /// Number of people.
    pub fn len(&self) -> usize {
        self.persons
    }

    /// Whether nobody is enrolled.
    pub fn is_empty(&self) -> bool {
        self.persons == 0
    }

    /// Number of references that a search compares with.
    pub fn references(&self) -> usize {
        self.references
    }

    /// Number of references made by another model, which no search finds until the people are
    /// enrolled again.
    pub fn stale_references(&self) -> usize {
        self.stale_references
    }

    /// Memory of the packed templates, in bytes.
    pub fn template_bytes(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.template_bytes()).sum()
    }

    /// Everybody, by id.
    pub fn members(&self) -> impl DoubleEndedIterator<Item = &Arc<Member>> {
        self.leaves.iter().flat_map(|leaf| leaf.members())
    }

    /// One person, without templates.
    pub fn member(&self, id: &PersonId) -> Option<&Arc<Member>> {
        let leaf = self.leaves.get(self.leaf_of(id))?;
        leaf.position(id).ok().map(|index| &leaf.members()[index])
    }

    /// One person's record, templates in the gallery's form.
    pub fn person(&self, id: &PersonId) -> Option<Person> {
        let leaf = self.leaves.get(self.leaf_of(id))?;
        leaf.position(id).ok().map(|index| leaf.person(index, &self.model))
    }

    /// The gallery with people added or replaced; of two with one id the last wins.
    #[must_use]
    pub fn with_persons(&self, changes: &[Arc<Person>]) -> Self {
        let sorted: BTreeMap<&PersonId, &Person> =
            changes.iter().map(|person| (&person.id, &**person)).collect();
        let searchable = |reference: &Reference| self.is_searchable(reference);
        let mut fresh = PackedTemplates::with_capacity(self.dimension, changes.len());
        let mut arriving = Vec::with_capacity(sorted.len());
        for person in sorted.into_values() {
            let first_row = fresh.len();
            let references = person.references.iter().filter(|reference| searchable(reference));
            references.for_each(|reference| fresh.push(&reference.template));
            arriving.push((Arc::new(Member::new(person, searchable)), first_row..fresh.len()));
        }
        let entries = arriving
            .into_iter()
            .map(|(member, rows)| Entry { member, source: &fresh, rows })
            .collect();
        self.merged(entries)
    }

    /// The gallery without a person; the same gallery if there is none of that id.
    #[must_use]
    pub fn without_person(&self, id: &PersonId) -> Self {
        let at = self.leaf_of(id);
        let mut gallery = self.clone();
        let Some(leaf) = self.leaves.get(at) else { return gallery };
        let Ok(index) = leaf.position(id) else { return gallery };
        let after = leaf.entries(index + 1..leaf.members().len());
        let rest: Vec<Entry<'_>> = leaf.entries(0..index).chain(after).collect();
        gallery.leaves.splice(at..=at, Leaf::pack(rest, self.dimension));
        gallery.counted()
    }

    /// The people who resemble a probe, best first: by decreasing cosine, then by id. Compares
    /// with every reference; a probe of another dimension matches nobody.
    pub fn search(&self, probe: &Template, options: SearchOptions) -> Vec<Candidate> {
        self.search_many(std::slice::from_ref(probe), options).pop().unwrap_or_default()
    }

    /// The answer of [`Gallery::search`] for each probe, in one walk over the gallery.
    pub fn search_many(&self, probes: &[Template], options: SearchOptions) -> Vec<Vec<Candidate>> {
        let mut searches: Vec<(Probe, Ranking<'_>)> = probes
            .iter()
            .map(|probe| (Probe::new(probe), Ranking::new(options, self.persons)))
            .collect();
        let mut dots = Vec::new();
        for leaf in &self.leaves {
            let fitting = searches.iter_mut().filter(|(p, _)| p.dimension() == self.dimension);
            fitting.for_each(|(probe, ranking)| leaf.scan(probe, ranking, &mut dots));
        }
        searches.into_iter().map(|(_, ranking)| ranking.into_candidates()).collect()
    }

    /// The cosine of a probe with the best reference of one person, exactly as a search answers it;
    /// `None` when there is no such person or nothing of theirs can be compared.
    pub fn cosine(&self, probe: &Template, id: &PersonId) -> Option<f32> {
        let leaf = self.leaves.get(self.leaf_of(id))?;
        let index = leaf.position(id).ok()?;
        let probe = Probe::new(probe);
        if probe.dimension() != self.dimension {
            return None;
        }
        leaf.cosine(index, &probe)
    }

    /// The person other than `except` who resembles the probe most, if anybody does by at least
    /// `cosine_min`: the question of a duplicate check.
    pub fn best_other(
        &self,
        probe: &Template,
        except: &PersonId,
        cosine_min: f32,
    ) -> Option<Candidate> {
        // One of the two best is somebody else.
        let best = self.search(probe, SearchOptions { cosine_min, results_max: 2 });
        best.into_iter().find(|candidate| candidate.person.id != *except)
    }

    fn is_searchable(&self, reference: &Reference) -> bool {
        reference.model == self.model && reference.template.dimension() == self.dimension
    }

    /// The index of the only leaf that may hold a person; 0 without leaves.
    fn leaf_of(&self, id: &PersonId) -> usize {
        self.leaves.partition_point(|leaf| leaf.first_id() <= id).saturating_sub(1)
    }

    /// The gallery with entries, sorted by id, that replace those of the same id.
    fn merged(&self, arriving: Vec<Entry<'_>>) -> Self {
        let mut leaves: Vec<Arc<Leaf>> = Vec::with_capacity(self.leaves.len() + 1);
        let mut arriving = arriving.into_iter().peekable();
        let mut next = 0;
        while let Some(entry) = arriving.peek() {
            let at = self.leaf_of(&entry.member.id);
            leaves.extend_from_slice(&self.leaves[next..at]);
            next = self.leaves.len().min(at + 1);
            let end = self.leaves.get(at + 1).map(|leaf| leaf.first_id());
            let belongs = |entry: &Entry<'_>| end.is_none_or(|end| entry.member.id < *end);
            let incoming = std::iter::from_fn(|| arriving.next_if(belongs));
            let people = match self.leaves.get(at) {
                Some(leaf) => leaf.entries_with(incoming),
                None => incoming.collect(),
            };
            leaves.extend(Leaf::pack(people, self.dimension));
        }
        leaves.extend_from_slice(&self.leaves[next..]);
        Self { leaves, model: self.model.clone(), ..*self }.counted()
    }

    fn counted(mut self) -> Self {
        self.persons = self.leaves.iter().map(|leaf| leaf.members().len()).sum();
        self.references = self.leaves.iter().map(|leaf| leaf.references()).sum();
        self.stale_references = self.leaves.iter().map(|leaf| leaf.stale_references()).sum();
        self
    }
}

impl fmt::Debug for Gallery {
    /// Never templates.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Gallery({} persons, {} references)", self.persons, self.references)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::UtcTime;
    use crate::face::eyes::EyeRatio;
    use crate::gallery::person::FaceStorageType;

    const DIMENSION: usize = 6;

    fn model() -> EmbeddingModelId {
        EmbeddingModelId("0123456789abcdef".to_string())
    }

    fn template(values: &[f32]) -> Template {
        Template::from_embedding(values).unwrap()
    }

    fn reference(values: &[f32]) -> Reference {
        Reference { template: template(values), model: model() }
    }

    fn person(id: &str, references: Vec<Reference>) -> Arc<Person> {
        Arc::new(Person {
            id: PersonId::new(id).unwrap(),
            name: format!("name of {id}"),
            metadata: BTreeMap::from([("key".to_string(), id.to_uppercase())]),
            storage: FaceStorageType::NoStorage,
            references,
            eye_ratio: EyeRatio::new(0.25),
            created: UtcTime::from_millis(1),
            updated: UtcTime::from_millis(2),
        })
    }

    fn everybody(results_max: usize) -> SearchOptions {
        SearchOptions { cosine_min: -1.0, results_max }
    }

    fn found(candidates: &[Candidate]) -> Vec<(String, f32, usize)> {
        let plain = |c: &Candidate| (c.person.id.to_string(), c.cosine, c.reference);
        candidates.iter().map(plain).collect()
    }

    /// The definition of the compact cosine, without bytes, padding or bounds.
    fn cosine_by_definition(a: &Template, b: &Template) -> f32 {
        let quantised = |template: &Template| -> Vec<i64> {
            let largest = template.values().iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            let scale = 32512.0 / f64::from(largest);
            template.values().iter().map(|v| (f64::from(*v) * scale).round() as i64).collect()
        };
        let dot = |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i64>() as f64;
        let (a, b) = (quantised(a), quantised(b));
        ((dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()) as f32).clamp(-1.0, 1.0)
    }

    /// Every person, every reference, sorted: what a search must answer.
    fn brute_force(
        people: &BTreeMap<PersonId, Arc<Person>>,
        probe: &Template,
        options: SearchOptions,
    ) -> Vec<(String, f32, usize)> {
        let mut all: Vec<(String, f32, usize)> = Vec::new();
        for person in people.values() {
            let mut best: Option<(f32, usize)> = None;
            for (position, reference) in person.references.iter().enumerate() {
                if reference.model != model() || reference.template.dimension() != DIMENSION {
                    continue;
                }
                let cosine = cosine_by_definition(probe, &reference.template);
                if best.is_none_or(|(least, _)| cosine > least) {
                    best = Some((cosine, position));
                }
            }
            all.extend(best.map(|(cosine, position)| (person.id.to_string(), cosine, position)));
        }
        all.retain(|(_, cosine, _)| *cosine >= options.cosine_min);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(options.results_max);
        all
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<(usize, Vec<Face>)>),
        Remove(usize),
    }

    #[derive(Clone, Debug)]
    enum Face {
        Of(Vec<f32>),
        OtherModel(Vec<f32>),
        OtherDimension,
    }

    const PEOPLE: usize = 60;

    fn id(number: usize) -> String {
        // Ids of different length and alphabet, not in numeric order.
        match number % 3 {
            0 => format!("p{number}"),
            1 => format!("Zoë 🙂 {number}"),
            _ => format!("李{}", number * 7919 % 1000),
        }
    }

    impl Face {
        fn reference(&self) -> Reference {
            match self {
                Face::Of(values) => reference(values),
                Face::OtherModel(values) => {
                    Reference { model: EmbeddingModelId("f".repeat(16)), ..reference(values) }
                }
                Face::OtherDimension => reference(&[1.0, 2.0]),
            }
        }
    }

    /// Few distinct directions, so that equal cosines are common.
    fn direction() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec((-2_i8..=2).prop_map(f32::from), DIMENSION)
            .prop_filter("a direction", |values| values.iter().any(|value| *value != 0.0))
    }

    fn face() -> impl Strategy<Value = Face> {
        prop_oneof![
            8 => direction().prop_map(Face::Of),
            1 => direction().prop_map(Face::OtherModel),
            1 => Just(Face::OtherDimension),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let enrolled = (0..PEOPLE, prop::collection::vec(face(), 1..=16));
        prop_oneof![
            2 => prop::collection::vec(enrolled, 1..60).prop_map(Step::Put),
            3 => (0..PEOPLE).prop_map(Step::Remove),
        ]
    }

    fn options() -> impl Strategy<Value = SearchOptions> {
        let cosine_min = prop_oneof![Just(-1.0_f32), Just(1.0), -1.0_f32..1.0];
        let results_max = prop_oneof![Just(0_usize), Just(1), 2_usize..10, Just(usize::MAX)];
        (cosine_min, results_max)
            .prop_map(|(cosine_min, results_max)| SearchOptions { cosine_min, results_max })
    }

    fn assert_same(
        gallery: &Gallery,
        people: &BTreeMap<PersonId, Arc<Person>>,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(gallery.len(), people.len());
        prop_assert!(gallery.members().map(|member| &member.id).eq(people.keys()));
        let is_stale = |r: &&Reference| r.model != model() || r.template.dimension() != DIMENSION;
        let all = || people.values().flat_map(|person| &person.references);
        let stale = all().filter(is_stale).count();
        prop_assert_eq!(gallery.stale_references(), stale);
        prop_assert_eq!(gallery.references(), all().count() - stale);
        for number in 0..PEOPLE {
            let id = PersonId::new(&id(number)).unwrap();
            let expected = people.get(&id);
            prop_assert_eq!(gallery.member(&id).is_some(), expected.is_some());
            let record = gallery.person(&id);
            prop_assert_eq!(record.is_some(), expected.is_some());
            let (Some(record), Some(expected)) = (record, expected) else { continue };
            prop_assert_eq!(record.references.len(), expected.references.len());
            for (left, right) in record.references.iter().zip(&expected.references) {
                prop_assert_eq!(&left.model, &right.model);
                prop_assert_eq!(left.template.dimension(), right.template.dimension());
                prop_assert!(left.template.cosine(&right.template) > 0.999_99);
            }
            let without_faces = |person: &Person| Person { references: vec![], ..person.clone() };
            prop_assert_eq!(without_faces(&record), without_faces(expected));
        }
        for leaf in &gallery.leaves {
            prop_assert!(!leaf.members().is_empty());
            let room = leaf::LEAF_REFERENCES_MAX;
            prop_assert!(leaf.references() <= room && leaf.members().len() <= room);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_gallery_is_a_sorted_map_that_can_be_searched(
            steps in prop::collection::vec(step(), 1..12),
            probes in prop::collection::vec(direction(), 1..4),
            options in options(),
        ) {
            let probes: Vec<Template> = probes.iter().map(|values| template(values)).collect();
            let mut gallery = Gallery::new(model(), DIMENSION);
            let mut people = BTreeMap::new();
            let mut history = Vec::new();
            for step in steps {
                history.push((gallery.clone(), people.clone()));
                match step {
                    Step::Put(batch) => {
                        let faces = |faces: &[Face]| faces.iter().map(Face::reference).collect();
                        let batch: Vec<_> =
                            batch.iter().map(|(n, f)| person(&id(*n), faces(f))).collect();
                        gallery = gallery.with_persons(&batch);
                        people.extend(batch.into_iter().map(|p| (p.id.clone(), p)));
                    }
                    Step::Remove(number) => {
                        let id = PersonId::new(&id(number)).unwrap();
                        gallery = gallery.without_person(&id);
                        people.remove(&id);
                    }
                }
                let answers = gallery.search_many(&probes, options);
                prop_assert_eq!(answers.len(), probes.len());
                for (probe, answer) in probes.iter().zip(&answers) {
                    prop_assert_eq!(found(answer), brute_force(&people, probe, options));
                    prop_assert_eq!(&gallery.search(probe, options), answer);
                    // A threshold that somebody meets exactly.
                    if let Some(last) = answer.last() {
                        let exact =
                            SearchOptions { cosine_min: last.cosine, results_max: usize::MAX };
                        let expected = brute_force(&people, probe, exact);
                        prop_assert_eq!(found(&gallery.search(probe, exact)), expected);
                    }
                }
            }
            // What a search of everybody answers for a person is what asking for the person answers.
            let all = brute_force(&people, &probes[0], everybody(usize::MAX));
            for number in 0..PEOPLE {
                let expected = all.iter().find(|(other, _, _)| *other == id(number));
                let own = PersonId::new(&id(number)).unwrap();
                let cosine = gallery.cosine(&probes[0], &own);
                prop_assert_eq!(cosine, expected.map(|(_, cosine, _)| *cosine));
            }
            prop_assert_eq!(gallery.cosine(&template(&[1.0]), &PersonId::new(&id(0)).unwrap()), None);
            assert_same(&gallery, &people)?;
            // Snapshots that a reader still holds have not changed.
            for (gallery, people) in &history {
                assert_same(gallery, people)?;
            }
        }
    }

    /// Embeddings of 128 components as a model makes them, two of each person.
    fn crowd(persons: usize) -> (Vec<Arc<Person>>, Vec<Template>) {
        let mut seed = 7_u64;
        let mut uniform = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut people = Vec::new();
        let mut probes = Vec::new();
        for number in 0..persons {
            let centre: Vec<f32> = (0..128).map(|_| uniform()).collect();
            let mut near =
                || template(&centre.iter().map(|v| v + uniform() * 0.8).collect::<Vec<_>>());
            let references = vec![
                Reference { template: near(), model: model() },
                Reference { template: near(), model: model() },
            ];
            people.push(person(&format!("{number:05}"), references));
            probes.push(near());
        }
        (people, probes)
    }

    #[test]
    fn a_search_agrees_with_brute_force_over_the_original_templates() {
        let (people, probes) = crowd(1500);
        let gallery = Gallery::new(model(), 128).with_persons(&people);
        for (number, probe) in probes.iter().enumerate().step_by(37) {
            let mut expected: Vec<(&PersonId, f32)> = people
                .iter()
                .map(|person| {
                    let cosines = person.references.iter().map(|r| probe.cosine(&r.template));
                    (&person.id, cosines.fold(-1.0, f32::max))
                })
                .collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            let answer = gallery.search(probe, everybody(20));
            assert_eq!(answer[0].person.id, people[number].id);
            for (candidate, (id, cosine)) in answer.iter().zip(&expected) {
                assert!((candidate.cosine - cosine).abs() < 5e-5);
                let near_tie = expected
                    .iter()
                    .any(|(other, c)| **other == candidate.person.id && (c - cosine).abs() < 1e-4);
                assert!(candidate.person.id == **id || near_tie);
            }
        }
    }

    #[test]
    fn the_threshold_is_inclusive_and_the_same_template_is_exactly_one() {
        let gallery = Gallery::new(model(), DIMENSION)
            .with_persons(&[person("a", vec![reference(&[0.1, -0.7, 0.3, 0.2, 0.9, 0.4])])]);
        let same = template(&[0.1, -0.7, 0.3, 0.2, 0.9, 0.4]);
        let options = |cosine_min| SearchOptions { cosine_min, results_max: 5 };
        assert_eq!(gallery.search(&same, options(1.0))[0].cosine, 1.0);
        let near = template(&[0.1, -0.7, 0.3, 0.2, 0.9, 0.5]);
        let cosine = gallery.search(&near, options(0.0))[0].cosine;
        assert!(cosine < 1.0);
        assert_eq!(gallery.search(&near, options(cosine)).len(), 1);
        assert_eq!(gallery.search(&near, options(cosine.next_up())).len(), 0);
        assert_eq!(gallery.search(&near, options(f32::NAN)).len(), 0);
        assert_eq!(gallery.search(&template(&[1.0, 0.0]), options(-1.0)).len(), 0);
        assert_eq!(gallery.search_many(&[], options(0.0)), Vec::<Vec<Candidate>>::new());
    }

    #[test]
    fn a_duplicate_is_somebody_else() {
        let face = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let other = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0];
        let gallery = Gallery::new(model(), DIMENSION).with_persons(&[
            person("me", vec![reference(&face)]),
            person("twin", vec![reference(&other)]),
        ]);
        let best = |except: &str, least| {
            let except = PersonId::new(except).unwrap();
            let found = gallery.best_other(&template(&face), &except, least);
            found.map(|candidate| candidate.person.id.to_string())
        };
        assert_eq!(best("me", 0.9).as_deref(), Some("twin"));
        assert_eq!(best("twin", 0.9).as_deref(), Some("me"));
        assert_eq!(best("nobody", 0.9).as_deref(), Some("me"));
        assert_eq!(best("me", 0.9999).as_deref(), None);
    }

    #[test]
    fn one_change_copies_one_leaf() {
        let (people, _) = crowd(2000);
        let gallery = Gallery::new(model(), 128).with_persons(&people);
        let leaves = gallery.leaves.len();
        assert_eq!(leaves, 4000_usize.div_ceil(leaf::LEAF_REFERENCES_MAX));
        let shared = |changed: &Gallery| {
            let old = |leaf: &&Arc<Leaf>| gallery.leaves.iter().any(|l| Arc::ptr_eq(l, leaf));
            changed.leaves.iter().filter(old).count()
        };
        assert_eq!(shared(&gallery.with_persons(&people[700..701])), leaves - 1);
        assert_eq!(shared(&gallery.without_person(&people[700].id)), leaves - 1);
        assert_eq!(shared(&gallery.without_person(&PersonId::new("nobody").unwrap())), leaves);
    }

    #[test]
    fn a_gallery_never_prints_its_people() {
        let gallery = Gallery::new(model(), 6).with_persons(&[person("secret", vec![])]);
        assert_eq!(format!("{gallery:?}"), "Gallery(1 persons, 0 references)");
    }
}
