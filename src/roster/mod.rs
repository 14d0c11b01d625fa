//! Who is enrolled: the durable store and the in-memory galleries kept in step.
//!
//! A change is committed to the store first and becomes visible in the gallery after; when the
//! store refuses, memory stays as it was. Writers wait for one another; readers take a snapshot of
//! all collections and keys in one atomic step and never wait for a writer, nor see half a change.
//! All methods that change something, and `image`, block on the disk: never call them on a network
//! task.

pub mod audit;
pub mod keys;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::clock::Clock;
use crate::clock::UtcTime;
use crate::face::eyes::EyeRatio;
use crate::face::template::Template;
use crate::gallery::Gallery;
use crate::gallery::names::CollectionName;
use crate::gallery::names::PersonId;
use crate::gallery::person::{
    EmbeddingModelId, FaceStorageType, Member, Person, REFERENCES_PER_PERSON_MAX, Reference,
};
use crate::gallery::ranking::Candidate;
use crate::roster::audit::Audit;
use crate::store::{
    AuditAct, AuditLog, Change, ImageChange, KeyRecord, Scope, ScrubReport, Store, StoreError,
};

/// Why a change was refused. Whatever the reason, nothing has changed.
#[derive(Debug, Error)]
pub enum RosterError {
    /// No such collection, person or key.
    #[error("not found")]
    NotFound,
    /// The collection exists already.
    #[error("already exists")]
    AlreadyExists,
    /// The face belongs to somebody else already.
    #[error("the face is already enrolled as person `{}`", .0.person.id)]
    Duplicate(Box<Candidate>),
    /// The person has the greatest number of reference faces.
    #[error(
        "a person has at most {REFERENCES_PER_PERSON_MAX} reference faces; enrol the person again \
         without `add_face` to replace them"
    )]
    TooManyReferences,
    /// Without this key nobody could administer.
    #[error("key {id} is the last one with the scope `admin`; add another admin key first")]
    LastAdminKey {
        /// Public id of the key.
        id: String,
    },
    /// The operating system gave no random numbers for a key.
    #[error("no key can be made: the operating system gives no random numbers: {reason}")]
    NoRandomness {
        /// What it said.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a caller wants to be enrolled.
pub struct Enrolment {
    /// Identity in the collection.
    pub id: PersonId,
    /// Name for people.
    pub name: String,
    /// Free text.
    pub metadata: BTreeMap<String, String>,
    /// Which picture to keep.
    pub storage: FaceStorageType,
    /// The face.
    pub template: Template,
    /// How open the eyes are in the picture, if that could be told.
    pub eye_ratio: Option<EyeRatio>,
    /// Least cosine with a present reference at which a picture that does not tell keeps what is
    /// known of the person's open eyes; `None`: none does.
    pub same_face_min: Option<f32>,
    /// The picture to keep, already in the form of `storage`.
    pub image: ImageChange,
    /// Append to the reference faces of an existing person instead of replacing them.
    pub mode: EnrolmentMode,
}

/// Whether an enrolment replaces or appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolmentMode {
    /// Face, name, metadata and picture are replaced together.
    Replace,
    /// The face is one more reference; name, metadata and picture are updated.
    AddFace,
}

/// A window on a list of people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page<'a> {
    /// People to leave out at the beginning.
    pub skip: usize,
    /// Most people to answer.
    pub take: usize,
    /// Only people whose id or name contains this text, whatever its case; everybody if empty.
    pub search: &'a str,
}

/// What readers see: everything at one moment.
#[derive(Clone, Default)]
struct Snapshot {
    collections: BTreeMap<CollectionName, Arc<Gallery>>,
    /// In the order in which they were made.
    keys: Vec<KeyRecord>,
}

impl Snapshot {
    fn sort_keys(&mut self) {
        self.keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    }
}

/// Galleries, keys and the store behind them.
pub struct Roster {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    model: EmbeddingModelId,
    dimension: usize,
    snapshot: ArcSwap<Snapshot>,
    /// Held from reading the snapshot that a change builds on until its successor is in place.
    writer: Mutex<()>,
    scrub_owed: AtomicBool,
    audit: Audit,
}

impl Roster {
    /// Loads everything and builds the galleries for one embedding model.
    pub fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        model: EmbeddingModelId,
        dimension: usize,
    ) -> Result<Self, StoreError> {
        let contents = store.load()?;
        let empty = Gallery::new(model.clone(), dimension);
        // Packing drops the records collection by collection: the `f32` templates of all of them
        // never lie beside all of the packed ones.
        let collections = contents
            .collections
            .into_iter()
            .map(|(name, persons)| (name, Arc::new(empty.with_persons(&persons))))
            .collect();
        let mut snapshot = Snapshot { collections, keys: contents.keys };
        snapshot.sort_keys();
        let log: Arc<dyn AuditLog> = Arc::<dyn Store>::clone(&store);
        Ok(Self {
            audit: Audit::new(log, Arc::clone(&clock)),
            store,
            clock,
            model,
            dimension,
            snapshot: ArcSwap::from_pointee(snapshot),
            writer: Mutex::new(()),
            // What an earlier run left is for the store to say.
            scrub_owed: AtomicBool::new(true),
        })
    }

    /// Where it is written down who does what.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The embedding model whose templates are searched and enrolled.
    pub fn model(&self) -> &EmbeddingModelId {
        &self.model
    }

    /// Names and numbers of people of all collections, by name.
    pub fn collections(&self) -> Vec<(CollectionName, usize)> {
        let snapshot = self.snapshot.load();
        let galleries = snapshot.collections.iter();
        galleries.map(|(name, gallery)| (name.clone(), gallery.len())).collect()
    }

    /// The people of a collection at this moment, for any number of searches.
    pub fn gallery(&self, collection: &CollectionName) -> Option<Arc<Gallery>> {
        self.snapshot.load().collections.get(collection).cloned()
    }

    /// References of another embedding model in all collections: people who are found again only
    /// after another enrolment.
    pub fn stale_references(&self) -> usize {
        let snapshot = self.snapshot.load();
        snapshot.collections.values().map(|gallery| gallery.stale_references()).sum()
    }

    /// Adds a collection.
    pub fn create_collection(&self, name: &CollectionName) -> Result<(), RosterError> {
        let _writer = self.writing();
        if self.gallery(name).is_some() {
            return Err(RosterError::AlreadyExists);
        }
        self.store.commit(&Change::CreateCollection { name: name.clone() })?;
        self.replace_gallery(name, Gallery::new(self.model.clone(), self.dimension));
        Ok(())
    }

    /// Removes a collection and answers how many people it held.
    pub fn delete_collection(&self, name: &CollectionName) -> Result<usize, RosterError> {
        let _writer = self.writing();
        let gallery = self.gallery(name).ok_or(RosterError::NotFound)?;
        self.commit_removal(&Change::DeleteCollection { name: name.clone() })?;
        self.replace(|snapshot| {
            snapshot.collections.remove(name);
        });
        Ok(gallery.len())
    }

    /// Enrols people into one collection in one transaction; of two with one id the last wins.
    /// Answers one record per id, in the order in which the winners came. One face too many refuses
    /// the whole batch.
    pub fn enrol(
        &self,
        collection: &CollectionName,
        enrolments: Vec<Enrolment>,
    ) -> Result<Vec<Arc<Person>>, RosterError> {
        let _writer = self.writing();
        let gallery = self.gallery(collection).ok_or(RosterError::NotFound)?;
        self.enrol_into(collection, &gallery, enrolments)
    }

    /// Enrols one person unless somebody else in the collection has that face, by a cosine of at
    /// least `cosine_min` (inclusive). Check and enrolment are one step: of two requests with one
    /// face under different ids only the first succeeds.
    pub fn enrol_unless_duplicate(
        &self,
        collection: &CollectionName,
        enrolment: Enrolment,
        cosine_min: f32,
    ) -> Result<Arc<Person>, RosterError> {
        let _writer = self.writing();
        let gallery = self.gallery(collection).ok_or(RosterError::NotFound)?;
        let duplicate = gallery.best_other(&enrolment.template, &enrolment.id, cosine_min);
        if let Some(candidate) = duplicate {
            return Err(RosterError::Duplicate(Box::new(candidate)));
        }
        let enrolled = self.enrol_into(collection, &gallery, vec![enrolment])?;
        enrolled.into_iter().next().ok_or(RosterError::NotFound)
    }

    /// Removes a person, templates and picture, and answers who it was.
    pub fn delete_person(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Arc<Person>, RosterError> {
        let _writer = self.writing();
        let gallery = self.gallery(collection).ok_or(RosterError::NotFound)?;
        let person = gallery.person(id).ok_or(RosterError::NotFound)?;
        let change = Change::DeletePerson { collection: collection.clone(), id: id.clone() };
        self.commit_removal(&change)?;
        self.replace_gallery(collection, gallery.without_person(id));
        Ok(Arc::new(person))
    }

    /// One person.
    pub fn person(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Arc<Member>, RosterError> {
        let gallery = self.gallery(collection).ok_or(RosterError::NotFound)?;
        gallery.member(id).cloned().ok_or(RosterError::NotFound)
    }

    /// How many people of a collection a search text finds, and one page of them, by id.
    pub fn persons(
        &self,
        collection: &CollectionName,
        page: Page<'_>,
    ) -> Result<(usize, Vec<Arc<Member>>), RosterError> {
        let gallery = self.gallery(collection).ok_or(RosterError::NotFound)?;
        let search = folded(page.search);
        if search.is_empty() {
            let window = gallery.members().skip(page.skip).take(page.take);
            return Ok((gallery.len(), window.cloned().collect()));
        }
        let contains = |text: &str| folded(text).contains(&search);
        let found: Vec<&Arc<Member>> = gallery
            .members()
            .filter(|member| contains(member.id.as_str()) || contains(&member.name))
            .collect();
        let window = found.iter().skip(page.skip).take(page.take);
        Ok((found.len(), window.map(|member| Arc::clone(member)).collect()))
    }

    /// The stored picture of a person; `None` when none was kept.
    pub fn image(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Option<Vec<u8>>, RosterError> {
        self.person(collection, id)?;
        Ok(self.store.image(collection, id)?)
    }

    /// All keys, in the order in which they were made.
    pub fn keys(&self) -> Vec<KeyRecord> {
        self.snapshot.load().keys.clone()
    }

    /// Makes a key and answers its record and the key itself, which is stored nowhere.
    pub fn add_key(
        &self,
        name: &str,
        scopes: &[Scope],
    ) -> Result<(KeyRecord, String), RosterError> {
        let _writer = self.writing();
        self.make_key(name, scopes)
    }

    /// Makes an admin key if no key may administer, which is so at the first start, also after
    /// keys for clients were made on the command line. The caller shows it once.
    pub fn ensure_admin_key(&self) -> Result<Option<(KeyRecord, String)>, RosterError> {
        let _writer = self.writing();
        if self.keys().iter().any(|record| record.scopes.contains(&Scope::Admin)) {
            return Ok(None);
        }
        self.audit.before(audit::DEVICE, AuditAct::AddKey, "admin")?;
        self.make_key("admin", &[Scope::Admin]).map(Some)
    }

    /// Revokes a key, but never the last one that may administer.
    pub fn revoke_key(&self, id: &str) -> Result<(), RosterError> {
        let _writer = self.writing();
        let keys = self.keys();
        if !keys.iter().any(|record| record.id == id) {
            return Err(RosterError::NotFound);
        }
        if keys::is_last_admin(&keys, id) {
            return Err(RosterError::LastAdminKey { id: id.to_string() });
        }
        self.commit_removal(&Change::DeleteKey { id: id.to_string() })?;
        self.replace(|snapshot| snapshot.keys.retain(|record| record.id != id));
        Ok(())
    }

    /// The key record that a presented key belongs to, compared in constant time.
    pub fn authenticate(&self, presented: &str) -> Option<KeyRecord> {
        keys::find(&self.snapshot.load().keys, presented).cloned()
    }

    /// Whether something was deleted or replaced since the last scrub, or nothing was scrubbed
    /// since the start.
    pub fn scrub_owed(&self) -> bool {
        self.scrub_owed.load(Ordering::SeqCst)
    }

    /// Removes from the medium what deletions left behind. Costs a copy of everything that is
    /// live: for a thread in the background.
    pub fn scrub(&self) -> Result<ScrubReport, StoreError> {
        // Cleared first, so that what is deleted meanwhile is scrubbed by the next one.
        self.scrub_owed.store(false, Ordering::SeqCst);
        self.store.scrub().inspect_err(|_| self.scrub_owed.store(true, Ordering::SeqCst))
    }

    /// The caller holds the writer's lock.
    fn enrol_into(
        &self,
        collection: &CollectionName,
        gallery: &Gallery,
        enrolments: Vec<Enrolment>,
    ) -> Result<Vec<Arc<Person>>, RosterError> {
        let last: HashMap<PersonId, usize> =
            enrolments.iter().enumerate().map(|(index, new)| (new.id.clone(), index)).collect();
        let winners = enrolments.into_iter().enumerate().filter(|(i, new)| last[&new.id] == *i);
        let now = self.clock.utc();
        let mut replaces = false;
        let mut changes = Vec::with_capacity(last.len());
        for (_, enrolment) in winners {
            let present = gallery.person(&enrolment.id);
            replaces |= present.is_some();
            let image = enrolment.image.clone();
            changes.push((Arc::new(self.enrolled(enrolment, present, now)?), image));
        }
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let persons: Vec<_> = changes.iter().map(|(person, _)| Arc::clone(person)).collect();
        let change = Change::PutPersons { collection: collection.clone(), persons: changes };
        self.store.commit(&change)?;
        if replaces {
            self.scrub_owed.store(true, Ordering::SeqCst);
        }
        self.replace_gallery(collection, gallery.with_persons(&persons));
        Ok(persons)
    }

    /// The record of a person after an enrolment.
    fn enrolled(
        &self,
        enrolment: Enrolment,
        present: Option<Person>,
        now: UtcTime,
    ) -> Result<Person, RosterError> {
        let created = present.as_ref().map_or(now, |person| person.created);
        let (mut references, eye_ratio) = match (enrolment.mode, present) {
            (EnrolmentMode::AddFace, Some(present)) => {
                (present.references, EyeRatio::wider(present.eye_ratio, enrolment.eye_ratio))
            }
            (_, present) => {
                let kept = || {
                    let (face, same_min) = (&enrolment.template, enrolment.same_face_min?);
                    present?.eyes_of(face, &self.model, same_min)
                };
                (Vec::new(), enrolment.eye_ratio.or_else(kept))
            }
        };
        if references.len() >= REFERENCES_PER_PERSON_MAX {
            // The oldest reference of a model that is gone makes room: nothing can match it.
            let stale = references.iter().position(|reference| reference.model != self.model);
            references.remove(stale.ok_or(RosterError::TooManyReferences)?);
        }
        references.push(Reference { template: enrolment.template, model: self.model.clone() });
        Ok(Person {
            id: enrolment.id,
            name: enrolment.name,
            metadata: enrolment.metadata,
            storage: enrolment.storage,
            references,
            eye_ratio,
            created,
            updated: now,
        })
    }

    /// The caller holds the writer's lock.
    fn make_key(&self, name: &str, scopes: &[Scope]) -> Result<(KeyRecord, String), RosterError> {
        let present = self.keys();
        loop {
            let key = keys::generate()
                .map_err(|error| RosterError::NoRandomness { reason: error.to_string() })?;
            let sha256 = keys::hash(&key);
            let id = keys::public_id(&sha256);
            // Ids have 32 bits: another key of the same id would be replaced.
            if present.iter().any(|record| record.id == id) {
                continue;
            }
            let (name, scopes) = (name.to_string(), scopes.to_vec());
            let record = KeyRecord { id, name, sha256, scopes, created: self.clock.utc() };
            self.store.commit(&Change::PutKey(record.clone()))?;
            self.replace(|snapshot| {
                snapshot.keys.push(record.clone());
                snapshot.sort_keys();
            });
            return Ok((record, key));
        }
    }

    fn commit_removal(&self, change: &Change) -> Result<(), StoreError> {
        self.store.commit(change)?;
        self.scrub_owed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        // A writer that panicked has left the old snapshot in place, which is whole.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_gallery(&self, name: &CollectionName, gallery: Gallery) {
        self.replace(|snapshot| {
            snapshot.collections.insert(name.clone(), Arc::new(gallery));
        });
    }

    /// Puts a changed snapshot in place. The caller holds the writer's lock.
    fn replace(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        change(&mut snapshot);
        self.snapshot.store(Arc::new(snapshot));
    }
}

/// Lower case letter by letter: `str::to_lowercase` writes a Greek sigma by its place in the word,
/// and part of a word would not be found in it.
fn folded(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::gallery::ranking::SearchOptions;
    use crate::store::memory::MemoryStore;

    const DIMENSION: usize = 4;

    struct Bench {
        store: Arc<MemoryStore>,
        clock: Arc<SimulatedClock>,
        roster: Roster,
    }

    fn model(text: &str) -> EmbeddingModelId {
        EmbeddingModelId(text.to_string())
    }

    fn open(store: &Arc<MemoryStore>, clock: &Arc<SimulatedClock>, model_id: &str) -> Roster {
        let (store, clock) = (Arc::clone(store), Arc::clone(clock));
        Roster::open(store, clock, model(model_id), DIMENSION).unwrap()
    }

    fn bench() -> Bench {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(SimulatedClock::new(UtcTime::from_millis(1_000)));
        let roster = open(&store, &clock, "m1");
        Bench { store, clock, roster }
    }

    fn name(text: &str) -> CollectionName {
        CollectionName::new(text).unwrap()
    }

    fn id(text: &str) -> PersonId {
        PersonId::new(text).unwrap()
    }

    fn face(values: [f32; DIMENSION]) -> Template {
        Template::from_embedding(&values).unwrap()
    }

    /// A direction of its own for each number up to a thousand.
    fn numbered(number: usize) -> [f32; DIMENSION] {
        let angle = number as f32 / 1000.0;
        [angle.cos(), angle.sin(), 0.5, 0.0]
    }

    fn enrolment(person: &str, values: [f32; DIMENSION]) -> Enrolment {
        Enrolment {
            id: id(person),
            name: format!("name of {person}"),
            metadata: BTreeMap::new(),
            storage: FaceStorageType::NoStorage,
            template: face(values),
            eye_ratio: None,
            same_face_min: None,
            image: ImageChange::Remove,
            mode: EnrolmentMode::Replace,
        }
    }

    fn add_face(person: &str, values: [f32; DIMENSION]) -> Enrolment {
        Enrolment { mode: EnrolmentMode::AddFace, ..enrolment(person, values) }
    }

    fn found(roster: &Roster, collection: &str, values: [f32; DIMENSION]) -> Vec<String> {
        let options = SearchOptions { cosine_min: 0.999_99, results_max: 500 };
        let candidates = roster.gallery(&name(collection)).unwrap().search(&face(values), options);
        candidates.iter().map(|candidate| candidate.person.id.to_string()).collect()
    }

    /// Everything that readers can see, in comparable form.
    fn visible(roster: &Roster) -> (Vec<(CollectionName, Vec<Person>)>, Vec<KeyRecord>) {
        let people = |collection: &CollectionName| {
            let gallery = roster.gallery(collection).unwrap();
            gallery.members().map(|member| gallery.person(&member.id).unwrap()).collect()
        };
        let names = roster.collections().into_iter();
        (names.map(|(name, _)| (name.clone(), people(&name))).collect(), roster.keys())
    }

    #[test]
    fn collections_come_and_go() {
        let Bench { roster, .. } = bench();
        roster.create_collection(&name("b")).unwrap();
        roster.create_collection(&name("a")).unwrap();
        assert!(matches!(roster.create_collection(&name("a")), Err(RosterError::AlreadyExists)));
        roster.enrol(&name("a"), vec![enrolment("x", numbered(1))]).unwrap();
        assert_eq!(roster.collections(), [(name("a"), 1), (name("b"), 0)]);
        assert_eq!(roster.delete_collection(&name("a")).unwrap(), 1);
        assert!(matches!(roster.delete_collection(&name("a")), Err(RosterError::NotFound)));
        assert!(roster.gallery(&name("a")).is_none());
        roster.create_collection(&name("a")).unwrap();
        assert_eq!(roster.collections(), [(name("a"), 0), (name("b"), 0)]);
    }

    #[test]
    fn whatever_needs_a_collection_says_that_it_is_missing() {
        let Bench { roster, store, .. } = bench();
        let (nowhere, x) = (name("nowhere"), id("x"));
        let refused = [
            roster.enrol(&nowhere, vec![enrolment("x", numbered(1))]).err(),
            roster.enrol(&nowhere, vec![]).err(),
            roster.enrol_unless_duplicate(&nowhere, enrolment("x", numbered(1)), 0.5).err(),
            roster.delete_person(&nowhere, &x).err(),
            roster.person(&nowhere, &x).err(),
            roster.image(&nowhere, &x).err(),
            roster.persons(&nowhere, Page::default()).err(),
        ];
        assert!(refused.iter().all(|error| matches!(error, Some(RosterError::NotFound))));
        roster.create_collection(&nowhere).unwrap();
        let refused = [
            roster.delete_person(&nowhere, &x).err(),
            roster.person(&nowhere, &x).err(),
            roster.image(&nowhere, &x).err(),
        ];
        assert!(refused.iter().all(|error| matches!(error, Some(RosterError::NotFound))));
        assert_eq!(roster.enrol(&nowhere, vec![]).unwrap(), []);
        assert_eq!(store.commits(), 1);
    }

    #[test]
    fn enrolling_again_replaces_face_name_and_picture_but_not_the_first_date() {
        let Bench { roster, store, clock } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let jpeg: Arc<[u8]> = Arc::from(&b"jpeg"[..]);
        let image = ImageChange::Replace(jpeg);
        let first = Enrolment { image, ..enrolment("Zoë 🙂", numbered(1)) };
        roster.enrol(&staff, vec![first]).unwrap();
        assert_eq!(roster.image(&staff, &id("Zoë 🙂")).unwrap().as_deref(), Some(&b"jpeg"[..]));
        clock.advance(Duration::from_secs(1));
        let metadata = BTreeMap::from([("floor".to_string(), "3".to_string())]);
        let second = Enrolment {
            metadata: metadata.clone(),
            name: "Ζωή".to_string(),
            ..enrolment("Zoë 🙂", numbered(500))
        };
        roster.enrol(&staff, vec![second]).unwrap();
        let member = roster.person(&staff, &id("Zoë 🙂")).unwrap();
        assert_eq!((member.name.as_str(), member.references), ("Ζωή", 1));
        assert_eq!(member.metadata, metadata);
        assert_eq!(member.created, UtcTime::from_millis(1_000));
        assert_eq!(member.updated, UtcTime::from_millis(2_000));
        assert_eq!(roster.image(&staff, &id("Zoë 🙂")).unwrap(), None);
        assert_eq!(found(&roster, "staff", numbered(1)), Vec::<String>::new());
        assert_eq!(found(&roster, "staff", numbered(500)), ["Zoë 🙂"]);
        assert_eq!(visible(&open(&store, &clock, "m1")), visible(&roster));
    }

    #[test]
    fn the_widest_of_a_persons_open_eyes_is_kept_until_the_next_enrolment() {
        let Bench { roster, store, clock } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let add =
            |ratio| Enrolment { eye_ratio: EyeRatio::new(ratio), ..add_face("x", numbered(1)) };
        let unknown = f32::NAN;
        for (new, expected) in [
            (add(unknown), None),
            (add(0.2), Some(0.2)),
            (add(0.1), Some(0.2)),
            (add(0.3), Some(0.3)),
            (add(unknown), Some(0.3)),
            (Enrolment { mode: EnrolmentMode::Replace, ..add(0.1) }, Some(0.1)),
            (enrolment("x", numbered(2)), None),
            (add(0.25), Some(0.25)),
        ] {
            roster.enrol(&staff, vec![new]).unwrap();
            let kept = roster.person(&staff, &id("x")).unwrap().eye_ratio;
            assert_eq!(kept.map(EyeRatio::value), expected);
        }
        assert_eq!(visible(&open(&store, &clock, "m1")), visible(&roster));
        let other = open(&store, &clock, "m2");
        let kept = other.person(&staff, &id("x")).unwrap().eye_ratio;
        assert_eq!(kept, EyeRatio::new(0.25), "another embedding model changes no eyes");
    }

    #[test]
    fn open_eyes_stay_known_when_the_same_face_is_enrolled_anew() {
        let Bench { roster, store, clock } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let anew = |face: usize, ratio| Enrolment {
            eye_ratio: EyeRatio::new(ratio),
            same_face_min: Some(0.99),
            ..enrolment("x", numbered(face))
        };
        let (untold, other_face) = (f32::NAN, 900);
        let enrolled = |roster: &Roster, new| {
            let persons = roster.enrol(&staff, vec![new]).unwrap();
            assert_eq!(roster.person(&staff, &id("x")).unwrap().eye_ratio, persons[0].eye_ratio);
            persons[0].eye_ratio.map(EyeRatio::value)
        };
        for (new, expected) in [
            (anew(1, untold), None),
            (anew(1, 0.2), Some(0.2)),
            (anew(20, untold), Some(0.2)),
            (anew(1, 0.15), Some(0.15)),
            (anew(other_face, untold), None),
            (anew(1, untold), None),
            (anew(1, 0.2), Some(0.2)),
        ] {
            assert_eq!(enrolled(&roster, new), expected);
        }
        let other_model = open(&store, &clock, "m2");
        assert_eq!(enrolled(&other_model, anew(1, untold)), None, "nothing to compare with");
    }

    #[test]
    fn faces_are_added_up_to_sixteen() {
        let Bench { roster, store, clock } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        for number in 0..REFERENCES_PER_PERSON_MAX {
            roster.enrol(&staff, vec![add_face("x", numbered(number * 20))]).unwrap();
        }
        let refused = roster.enrol(&staff, vec![add_face("x", numbered(900))]);
        assert!(matches!(refused, Err(RosterError::TooManyReferences)));
        for number in 0..REFERENCES_PER_PERSON_MAX {
            assert_eq!(found(&roster, "staff", numbered(number * 20)), ["x"], "{number}");
        }
        // The templates went to the store and back with each face, and have not drifted.
        assert_eq!(visible(&open(&store, &clock, "m1")), visible(&roster));
        roster.enrol(&staff, vec![enrolment("x", numbered(900))]).unwrap();
        assert_eq!(roster.person(&staff, &id("x")).unwrap().references, 1);
    }

    #[test]
    fn references_of_another_model_stay_and_make_room() {
        let Bench { roster, store, clock } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        for number in 0..REFERENCES_PER_PERSON_MAX {
            roster.enrol(&staff, vec![add_face("x", numbered(number * 20))]).unwrap();
        }
        let later = open(&store, &clock, "m2");
        assert_eq!(later.stale_references(), 16);
        assert_eq!(found(&later, "staff", numbered(20)), Vec::<String>::new());
        later.enrol(&staff, vec![add_face("x", numbered(500))]).unwrap();
        assert_eq!(later.stale_references(), 15);
        assert_eq!(found(&later, "staff", numbered(500)), ["x"]);
        let back = open(&store, &clock, "m1");
        assert_eq!(back.stale_references(), 1);
        assert_eq!(found(&back, "staff", numbered(0)), Vec::<String>::new());
        assert_eq!(found(&back, "staff", numbered(20)), ["x"]);
    }

    #[test]
    fn of_two_with_one_id_the_last_wins() {
        let Bench { roster, store, .. } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let batch = vec![
            enrolment("x", numbered(1)),
            enrolment("y", numbered(2)),
            enrolment("x", numbered(300)),
        ];
        let enrolled = roster.enrol(&staff, batch).unwrap();
        let ids: Vec<_> = enrolled.iter().map(|person| person.id.as_str()).collect();
        assert_eq!(ids, ["y", "x"]);
        assert_eq!(found(&roster, "staff", numbered(1)), ["y"]);
        assert_eq!(found(&roster, "staff", numbered(300)), ["x"]);
        assert_eq!(store.commits(), 2);
    }

    #[test]
    fn a_face_of_somebody_else_is_a_duplicate_and_ones_own_is_not() {
        let Bench { roster, .. } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let unless = |person: &str| {
            roster.enrol_unless_duplicate(&staff, enrolment(person, numbered(1)), 0.99)
        };
        unless("x").unwrap();
        unless("x").unwrap();
        match unless("y") {
            Err(RosterError::Duplicate(candidate)) => {
                assert_eq!((candidate.person.id.as_str(), candidate.cosine), ("x", 1.0));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(roster.collections(), [(staff.clone(), 1)]);
    }

    #[test]
    fn of_simultaneous_duplicates_one_is_enrolled() {
        let Bench { roster, .. } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let enrolled = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (roster, staff) = (&roster, &staff);
                    scope.spawn(move || {
                        let new = enrolment(&format!("p{number}"), numbered(1));
                        roster.enrol_unless_duplicate(staff, new, 0.99).is_ok()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|ok| *ok).count()
        });
        assert_eq!((enrolled, roster.collections()[0].1), (1, 1));
    }

    #[test]
    fn a_page_is_sorted_by_id_and_counts_everything() {
        let Bench { roster, .. } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let batch = (0..600).rev().map(|n| enrolment(&format!("p{n:03}"), numbered(n))).collect();
        roster.enrol(&staff, batch).unwrap();
        let named =
            Enrolment { name: "ÉMILE Ωmega ΣΑΣΑ".into(), ..enrolment("z", numbered(700)) };
        roster.enrol(&staff, vec![named]).unwrap();
        let page = |skip, take, search| {
            let (count, people) = roster.persons(&staff, Page { skip, take, search }).unwrap();
            (count, people.iter().map(|member| member.id.to_string()).collect::<Vec<_>>())
        };
        let text = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(page(298, 2, ""), (601, text(&["p298", "p299"])));
        assert_eq!(page(600, 20, ""), (601, text(&["z"])));
        assert_eq!(page(601, 20, ""), (601, vec![]));
        assert_eq!(page(usize::MAX, usize::MAX, ""), (601, vec![]));
        assert_eq!(page(1, 2, "P12"), (10, text(&["p121", "p122"])));
        assert_eq!(page(0, 5, "émile ω"), (1, text(&["z"])));
        assert_eq!(page(0, 5, "ΣΑΣ"), (1, text(&["z"])));
        assert_eq!(page(0, 1, "NAME OF"), (600, text(&["p000"])));
        assert_eq!(page(0, 0, ""), (601, vec![]));
    }

    #[test]
    fn when_the_store_fails_nothing_changes() {
        let Bench { roster, store, clock } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        roster.enrol(&staff, vec![enrolment("x", numbered(1))]).unwrap();
        let (admin, _) = roster.add_key("first", &[Scope::Admin]).unwrap();
        roster.add_key("second", &[Scope::Admin]).unwrap();
        roster.scrub().unwrap();
        let before = visible(&roster);
        let changes: [(&str, &dyn Fn() -> Option<RosterError>); 8] = [
            ("create", &|| roster.create_collection(&name("new")).err()),
            ("delete", &|| roster.delete_collection(&staff).err()),
            ("enrol", &|| roster.enrol(&staff, vec![enrolment("y", numbered(2))]).err()),
            ("replace", &|| roster.enrol(&staff, vec![enrolment("x", numbered(2))]).err()),
            ("add face", &|| roster.enrol(&staff, vec![add_face("x", numbered(2))]).err()),
            ("delete person", &|| roster.delete_person(&staff, &id("x")).err()),
            ("add key", &|| roster.add_key("third", &[Scope::Search]).err()),
            ("revoke key", &|| roster.revoke_key(&admin.id).err()),
        ];
        for (what, change) in changes {
            store.fail_next(1);
            assert!(matches!(change(), Some(RosterError::Store(StoreError::Io { .. }))), "{what}");
            assert_eq!(visible(&roster), before, "{what}");
            assert_eq!(visible(&open(&store, &clock, "m1")), before, "{what}");
            assert!(!roster.scrub_owed(), "{what}");
        }
        for (what, change) in changes.iter().rev().filter(|(what, _)| *what != "delete") {
            assert!(change().is_none(), "{what} works when the store does");
        }
        assert_eq!(visible(&open(&store, &clock, "m1")), visible(&roster));
    }

    #[test]
    fn deletions_owe_a_scrub_until_it_succeeds() {
        let Bench { roster, store, .. } = bench();
        let staff = name("staff");
        assert!(roster.scrub_owed(), "an earlier run may have left something");
        assert!(!roster.scrub().unwrap().owed);
        roster.create_collection(&staff).unwrap();
        roster.enrol(&staff, vec![enrolment("x", numbered(1))]).unwrap();
        assert!(!roster.scrub_owed());
        let owed_after = |what: &str| {
            assert!(roster.scrub_owed(), "{what}");
            store.fail_next(1);
            assert!(roster.scrub().is_err());
            assert!(roster.scrub_owed(), "{what}");
            assert!(roster.scrub().unwrap().owed, "{what}");
            assert!(!roster.scrub_owed(), "{what}");
        };
        roster.enrol(&staff, vec![enrolment("x", numbered(2))]).unwrap();
        owed_after("a replaced template");
        assert_eq!(roster.delete_person(&staff, &id("x")).unwrap().id, id("x"));
        owed_after("a deleted person");
        roster.delete_collection(&staff).unwrap();
        owed_after("a deleted collection");
        let (record, _) = roster.add_key("camera", &[Scope::Search]).unwrap();
        roster.revoke_key(&record.id).unwrap();
        owed_after("a revoked key");
    }

    #[test]
    fn the_first_start_makes_one_admin_key() {
        let Bench { roster, store, clock } = bench();
        let (record, key) = roster.ensure_admin_key().unwrap().unwrap();
        assert_eq!(record.scopes, [Scope::Admin]);
        assert_eq!(record.created, UtcTime::from_millis(1_000));
        assert_eq!(roster.authenticate(&key), Some(record.clone()));
        assert_eq!(roster.ensure_admin_key().unwrap(), None);
        let later = open(&store, &clock, "m1");
        assert_eq!(later.ensure_admin_key().unwrap(), None);
        assert_eq!(later.authenticate(&key), Some(record.clone()));
        assert!(!format!("{record:?}").contains(&key));
    }

    /// A search key was made on the command line before the daemon first ran; then no admin key was
    /// made, and nobody could administer over HTTP.
    #[test]
    fn the_first_start_makes_an_admin_key_beside_a_search_key_made_before() {
        let Bench { roster, .. } = bench();
        roster.add_key("reception", &[Scope::Search]).unwrap();
        let (record, _) = roster.ensure_admin_key().unwrap().expect("an admin key");
        assert_eq!(record.scopes, [Scope::Admin]);
        assert_eq!(roster.ensure_admin_key().unwrap(), None);
        assert_eq!(roster.keys().len(), 2);
    }

    #[test]
    fn keys_are_revoked_except_the_last_admin() {
        let Bench { roster, store, clock } = bench();
        let (first, first_key) = roster.ensure_admin_key().unwrap().unwrap();
        let (search, search_key) = roster.add_key("camera", &[Scope::Search]).unwrap();
        let refused = roster.revoke_key(&first.id).unwrap_err();
        assert!(matches!(&refused, RosterError::LastAdminKey { id } if *id == first.id));
        assert!(refused.to_string().contains("add another admin key first"));
        assert!(matches!(roster.revoke_key("00000000"), Err(RosterError::NotFound)));
        roster.revoke_key(&search.id).unwrap();
        assert_eq!(roster.authenticate(&search_key), None);
        let (_, second_key) = roster.add_key("second", &[Scope::Admin]).unwrap();
        roster.revoke_key(&first.id).unwrap();
        assert_eq!(roster.authenticate(&first_key), None);
        assert!(roster.authenticate(&second_key).is_some());
        for wrong in ["", "flk_", &second_key[..second_key.len() - 1]] {
            assert_eq!(roster.authenticate(wrong), None);
        }
        assert_eq!(open(&store, &clock, "m1").keys(), roster.keys());
    }

    /// Two people are always written together, with one number in both names and faces. A reader
    /// that finds different numbers has seen half a change.
    #[test]
    fn readers_never_see_half_a_change() {
        const ROUNDS: usize = 300;
        let Bench { roster, .. } = bench();
        let staff = name("staff");
        roster.create_collection(&staff).unwrap();
        let pair = |number: usize| {
            let named = |person: &str| Enrolment {
                name: number.to_string(),
                ..enrolment(person, numbered(number))
            };
            // Far apart in the gallery: in different leaves.
            vec![named("a"), named("z")]
        };
        let crowd = (0..600).map(|n| enrolment(&format!("m{n}"), [0.0, 0.0, 0.0, 1.0])).collect();
        roster.enrol(&staff, crowd).unwrap();
        roster.enrol(&staff, pair(0)).unwrap();
        thread::scope(|scope| {
            let readers: Vec<_> =
                (0..3).map(|_| scope.spawn(|| read_pairs(&roster, ROUNDS))).collect();
            let other = scope.spawn(|| {
                for number in 0..ROUNDS {
                    roster.enrol(&staff, vec![enrolment("n", numbered(number))]).unwrap();
                    roster.delete_person(&staff, &id("n")).unwrap();
                }
            });
            for number in 1..=ROUNDS {
                roster.enrol(&staff, pair(number)).unwrap();
            }
            other.join().unwrap();
            let seen: BTreeSet<usize> =
                readers.into_iter().flat_map(|r| r.join().unwrap()).collect();
            assert!(seen.contains(&ROUNDS));
        });
        assert_eq!(roster.collections(), [(staff.clone(), 602)]);
    }

    /// Reads until the last round is visible, and answers the rounds that were seen.
    fn read_pairs(roster: &Roster, last: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut newest = 0;
        while newest < last {
            let gallery = roster.gallery(&name("staff")).unwrap();
            let number_of = |person: &str| -> usize {
                gallery.member(&id(person)).unwrap().name.parse().unwrap()
            };
            let number = number_of("a");
            assert_eq!(number_of("z"), number);
            assert!(number >= newest, "the past came back");
            let options = SearchOptions { cosine_min: 1.0, results_max: 3 };
            let found = gallery.search(&face(numbered(number)), options);
            let ids: Vec<_> = found.iter().map(|c| c.person.id.as_str()).collect();
            assert!(ids.starts_with(&["a"]) && ids.ends_with(&["z"]), "{ids:?}");
            newest = number;
            seen.insert(number);
        }
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn people_of_any_name_survive_a_restart(
            people in prop::collection::vec(("\\PC{1,40}", ".{0,40}", 0..900_usize), 1..20),
            removed in 0..20_usize,
        ) {
            let Bench { roster, store, clock } = bench();
            let everyone = name("everyone");
            roster.create_collection(&everyone).unwrap();
            let new = |(person, name, number): &(String, String, usize)| Enrolment {
                name: name.clone(),
                ..enrolment(person, numbered(*number))
            };
            roster.enrol(&everyone, people.iter().map(new).collect()).unwrap();
            let (gone, _, _) = &people[removed % people.len()];
            roster.delete_person(&everyone, &id(gone)).unwrap();
            let later = open(&store, &clock, "m1");
            prop_assert_eq!(visible(&later), visible(&roster));
            let ids: BTreeSet<&String> = people.iter().map(|(person, ..)| person).collect();
            prop_assert_eq!(later.collections(), [(everyone.clone(), ids.len() - 1)]);
            for (person, name, _) in people.iter().rev().filter(|(person, ..)| person != gone) {
                let search = Page { skip: 0, take: 1000, search: person };
                let (_, found) = later.persons(&everyone, search).unwrap();
                prop_assert!(found.iter().any(|member| member.id.as_str() == person));
                let last = people.iter().rfind(|(other, ..)| other == person).map(|(_, n, _)| n);
                let member = later.person(&everyone, &id(person)).unwrap();
                prop_assert_eq!(Some(&member.name), last, "{}", name);
            }
        }
    }
}
