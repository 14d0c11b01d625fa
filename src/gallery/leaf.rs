//! A run of people in the order of their ids, with their templates packed side by side: what a
//! search reads in one go and a change copies.

use std::ops::Range;
use std::sync::Arc;

use crate::gallery::names::PersonId;
use crate::gallery::packed::PackedTemplates;
use crate::gallery::packed::Probe;
use crate::gallery::person::EmbeddingModelId;
use crate::gallery::person::Member;
use crate::gallery::person::Person;
use crate::gallery::person::Reference;
use crate::gallery::ranking::Ranking;

/// Most references of a leaf, if they belong to more than one person. One change copies a leaf and
/// the list of leaves; for 100,000 people both have about this length.
pub(crate) const LEAF_REFERENCES_MAX: usize = 256;

/// A person on the way into a leaf, with the rows of their searchable references.
#[derive(Clone)]
pub(crate) struct Entry<'a> {
    /// Who.
    pub(crate) member: Arc<Member>,
    /// Where the rows are.
    pub(crate) source: &'a PackedTemplates,
    /// The rows, in the order of the person's references.
    pub(crate) rows: Range<usize>,
}

impl Entry<'_> {
    /// Share of a leaf's room. People without a searchable reference take room as well.
    fn weight(&self) -> usize {
        self.rows.len().max(1)
    }
}

/// Whose reference a row is.
#[derive(Clone, Copy)]
struct Owner {
    /// Index into the leaf's members.
    member: u32,
    /// Position among the person's references.
    reference: u32,
}

/// See the module comment. Never empty.
pub(crate) struct Leaf {
    /// In the order of their ids.
    members: Vec<Arc<Member>>,
    /// The first row of each member.
    first_rows: Vec<u32>,
    owners: Vec<Owner>,
    templates: PackedTemplates,
    stale_references: usize,
}

impl Leaf {
    /// Packs people, sorted by id, into as few leaves as hold them, filled evenly.
    pub(crate) fn pack(entries: Vec<Entry<'_>>, dimension: usize) -> Vec<Arc<Leaf>> {
        let weight: usize = entries.iter().map(Entry::weight).sum();
        let leaves = weight.div_ceil(LEAF_REFERENCES_MAX).max(1);
        let share = weight.div_ceil(leaves);
        let mut packed = Vec::with_capacity(leaves + 1);
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let mut filled = first.weight();
            let mut together = vec![first];
            while let Some(entry) = entries.next_if(|entry| filled + entry.weight() <= share) {
                filled += entry.weight();
                together.push(entry);
            }
            packed.push(Arc::new(Self::new(together, dimension)));
        }
        packed
    }

    fn new(entries: Vec<Entry<'_>>, dimension: usize) -> Self {
        let rows = entries.iter().map(|entry| entry.rows.len()).sum();
        let mut leaf = Self {
            members: Vec::with_capacity(entries.len()),
            first_rows: Vec::with_capacity(entries.len()),
            owners: Vec::with_capacity(rows),
            templates: PackedTemplates::with_capacity(dimension, rows),
            stale_references: 0,
        };
        for (index, entry) in entries.into_iter().enumerate() {
            leaf.first_rows.push(leaf.templates.len() as u32);
            let positions = entry.member.searchable_positions();
            for (row, position) in entry.rows.zip(positions) {
                leaf.templates.push_row(entry.source, row);
                leaf.owners.push(Owner { member: index as u32, reference: position as u32 });
            }
            leaf.stale_references += entry.member.stale_references();
            leaf.members.push(entry.member);
        }
        leaf
    }

    /// Some of the people, ready for another leaf.
    pub(crate) fn entries(&self, indices: Range<usize>) -> impl Iterator<Item = Entry<'_>> {
        indices.map(|index| Entry {
            member: Arc::clone(&self.members[index]),
            source: &self.templates,
            rows: self.rows(index),
        })
    }

    /// The people of the leaf with others, sorted by id, who replace those of the same id.
    ///
    /// Looks at few ids: each of a large gallery is a cache miss, and there would be a leaf full.
    pub(crate) fn entries_with<'a>(
        &'a self,
        arriving: impl Iterator<Item = Entry<'a>>,
    ) -> Vec<Entry<'a>> {
        let mut people = Vec::with_capacity(self.members.len() + 1);
        let mut taken = 0;
        for entry in arriving {
            let (at, end) = match self.position(&entry.member.id) {
                Ok(at) => (at, at + 1),
                Err(at) => (at, at),
            };
            people.extend(self.entries(taken..at));
            people.push(entry);
            taken = end;
        }
        people.extend(self.entries(taken..self.members.len()));
        people
    }

    /// The least id of the leaf.
    pub(crate) fn first_id(&self) -> &PersonId {
        &self.members[0].id
    }

    /// In the order of their ids; at least one.
    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Searchable references.
    pub(crate) fn references(&self) -> usize {
        self.templates.len()
    }

    /// References of other embedding models.
    pub(crate) fn stale_references(&self) -> usize {
        self.stale_references
    }

    /// Memory of the templates, in bytes.
    pub(crate) fn template_bytes(&self) -> usize {
        self.templates.bytes() + self.owners.capacity() * size_of::<Owner>()
    }

    /// Where a person is among the members, or else would be.
    pub(crate) fn position(&self, id: &PersonId) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.id.cmp(id))
    }

    /// The record of a member, templates unpacked.
    pub(crate) fn person(&self, index: usize, model: &EmbeddingModelId) -> Person {
        let references = self
            .rows(index)
            .map(|row| Reference { template: self.templates.template(row), model: model.clone() });
        self.members[index].to_person(references)
    }

    /// Offers everybody who can change the ranking. `dots` is scratch space.
    pub(crate) fn scan<'a>(
        &'a self,
        probe: &Probe,
        ranking: &mut Ranking<'a>,
        dots: &mut Vec<i32>,
    ) {
        self.templates.coarse_dots(probe, dots);
        let mut bar = ranking.bar();
        // Rows of one person lie together: the best of them is offered when the next person comes.
        let mut best: Option<(Owner, f32)> = None;
        for (row, &dot) in dots.iter().enumerate() {
            if self.templates.cosine_at_most(row, dot, probe) < bar {
                continue;
            }
            let (owner, cosine) = (self.owners[row], self.templates.cosine(row, dot, probe));
            best = match best {
                Some((other, least)) if other.member == owner.member && cosine <= least => best,
                Some((other, _)) if other.member == owner.member => Some((owner, cosine)),
                _ => {
                    self.offer(best, ranking);
                    bar = ranking.bar();
                    Some((owner, cosine))
                }
            };
        }
        self.offer(best, ranking);
    }

    /// The cosine of a member's best reference; `None` without a searchable one.
    pub(crate) fn cosine(&self, index: usize, probe: &Probe) -> Option<f32> {
        let cosines = self.rows(index).map(|row| self.templates.row_cosine(row, probe));
        cosines.max_by(f32::total_cmp)
    }

    fn offer<'a>(&'a self, best: Option<(Owner, f32)>, ranking: &mut Ranking<'a>) {
        if let Some((owner, cosine)) = best {
            let member = &self.members[owner.member as usize];
            ranking.offer(member, cosine, owner.reference as usize);
        }
    }

    fn rows(&self, index: usize) -> Range<usize> {
        let end = self.first_rows.get(index + 1).map_or(self.templates.len(), |row| *row as usize);
        self.first_rows[index] as usize..end
    }
}
