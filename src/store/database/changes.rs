//! Collections, people, pictures and keys: how each change becomes records.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use crate::access::event::Event;
use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::Person;
use crate::store::database::{Database, damaged, meta, not_sealed, refused};
use crate::store::schema::{self, COLLECTIONS, IMAGES, KEYS, META, PERSONS, SealedTable};
use crate::store::vault::RecordId;
use crate::store::{
    Change, Contents, EventBounds, ImageChange, KeyRecord, ScrubReport, Setting, Store, StoreError,
};

type BytesTable<'tx> = Table<'tx, &'static [u8], &'static [u8]>;

impl Store for Database {
    fn load(&self) -> Result<Contents, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(COLLECTIONS.definition()).map_err(refused)?;
            let mut collections = Vec::new();
            for entry in table.iter().map_err(refused)? {
                let (key, sealed) = entry.map_err(refused)?;
                let plain = self.unseal(COLLECTIONS, key.value(), sealed.value())?;
                let name = schema::decode_collection(&plain)
                    .map_err(|error| damaged(COLLECTIONS, &error))?;
                let persons = self.load_persons(tx, &self.collection_id(&name))?;
                collections.push((name, persons));
            }
            collections.sort_by(|(one, _), (other, _)| one.cmp(other));
            Ok(Contents { collections, keys: self.load_keys(tx)? })
        })
    }

    fn commit(&self, change: &Change) -> Result<(), StoreError> {
        self.write(|tx| {
            let leaves_something = match change {
                Change::CreateCollection { name } => self.create_collection(tx, name),
                Change::DeleteCollection { name } => self.delete_collection(tx, name),
                Change::PutPersons { collection, persons } => {
                    self.put_persons(tx, collection, persons)
                }
                Change::DeletePerson { collection, id } => self.delete_person(tx, collection, id),
                Change::PutKey(record) => self.put_key(tx, record),
                Change::DeleteKey { id } => self.delete_key(tx, id),
                Change::PutSetting { setting, value } => meta::put_setting(tx, *setting, value),
                Change::DropEvents { up_to } => Self::drop_events(tx, *up_to),
            }?;
            if leaves_something { meta::owe_scrub(tx) } else { Ok(()) }
        })
    }

    fn image(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.person_key(&self.collection_id(collection), collection, id);
        let image = self.read(|tx| {
            let table = tx.open_table(IMAGES.definition()).map_err(refused)?;
            let sealed = table.get(key.as_slice()).map_err(refused)?;
            sealed.map(|sealed| self.unseal(IMAGES, &key, sealed.value())).transpose()
        })?;
        Ok(image.map(|mut image| std::mem::take(&mut *image)))
    }

    fn append_event(&self, event: &Event) -> Result<u64, StoreError> {
        self.write(|tx| self.append(tx, event))
    }

    fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|tx| self.list_events(tx, after_seq, limit))
    }

    fn event(&self, id: &str) -> Result<Option<Event>, StoreError> {
        self.read(|tx| self.find_event(tx, id))
    }

    fn setting(&self, setting: Setting) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|tx| meta::setting(&tx.open_table(META).map_err(refused)?, setting))
    }

    fn event_bounds(&self) -> Result<EventBounds, StoreError> {
        self.read(Self::bounds)
    }

    fn scrub(&self) -> Result<ScrubReport, StoreError> {
        self.scrub_if_owed()
    }
}

/// Each change answers whether it leaves deleted or replaced bytes in the file.
impl Database {
    fn create_collection(
        &self,
        tx: &WriteTransaction,
        name: &CollectionName,
    ) -> Result<bool, StoreError> {
        let id = self.collection_id(name);
        let mut table = tx.open_table(COLLECTIONS.definition()).map_err(refused)?;
        if table.get(id.as_slice()).map_err(refused)?.is_none() {
            let plain =
                schema::encode_collection(name).map_err(|error| not_sealed(COLLECTIONS, &error))?;
            self.put(&mut table, COLLECTIONS, &id, &plain)?;
        }
        Ok(false)
    }

    fn delete_collection(
        &self,
        tx: &WriteTransaction,
        name: &CollectionName,
    ) -> Result<bool, StoreError> {
        let id = self.collection_id(name);
        let existed = remove(tx, COLLECTIONS, &id)?;
        let (first, last) = schema::collection_range(&id);
        for table in [PERSONS, IMAGES] {
            let mut table = tx.open_table(table.definition()).map_err(refused)?;
            table
                .retain_in::<&[u8], _>(first.as_slice()..=last.as_slice(), |_, _| false)
                .map_err(refused)?;
        }
        Ok(existed)
    }

    fn put_persons(
        &self,
        tx: &WriteTransaction,
        collection: &CollectionName,
        changes: &[(Arc<Person>, ImageChange)],
    ) -> Result<bool, StoreError> {
        let collection_id = self.collection_id(collection);
        let collections = tx.open_table(COLLECTIONS.definition()).map_err(refused)?;
        if collections.get(collection_id.as_slice()).map_err(refused)?.is_none() {
            let reason = format!("the collection {collection} is not in the store");
            return Err(StoreError::Corrupt { reason });
        }
        let mut persons = tx.open_table(PERSONS.definition()).map_err(refused)?;
        let mut images = tx.open_table(IMAGES.definition()).map_err(refused)?;
        let mut replaced = false;
        for (person, image) in changes {
            let key = self.person_key(&collection_id, collection, &person.id);
            let plain = zeroize::Zeroizing::new(
                schema::encode_person(person).map_err(|error| not_sealed(PERSONS, &error))?,
            );
            replaced |= self.put(&mut persons, PERSONS, &key, &plain)?;
            replaced |= match image {
                ImageChange::Keep => false,
                ImageChange::Remove => images.remove(key.as_slice()).map_err(refused)?.is_some(),
                ImageChange::Replace(image) => self.put(&mut images, IMAGES, &key, image)?,
            };
        }
        Ok(replaced)
    }

    fn delete_person(
        &self,
        tx: &WriteTransaction,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<bool, StoreError> {
        let key = self.person_key(&self.collection_id(collection), collection, id);
        let person = remove(tx, PERSONS, &key)?;
        let image = remove(tx, IMAGES, &key)?;
        Ok(person || image)
    }

    fn put_key(&self, tx: &WriteTransaction, record: &KeyRecord) -> Result<bool, StoreError> {
        let plain = schema::encode_key(record).map_err(|error| not_sealed(KEYS, &error))?;
        let mut table = tx.open_table(KEYS.definition()).map_err(refused)?;
        self.put(&mut table, KEYS, &self.key_id(&record.id), &plain)
    }

    fn delete_key(&self, tx: &WriteTransaction, id: &str) -> Result<bool, StoreError> {
        remove(tx, KEYS, &self.key_id(id))
    }

    fn load_persons(
        &self,
        tx: &ReadTransaction,
        collection: &RecordId,
    ) -> Result<Vec<Arc<Person>>, StoreError> {
        let table = tx.open_table(PERSONS.definition()).map_err(refused)?;
        let (first, last) = schema::collection_range(collection);
        let range = table.range::<&[u8]>(first.as_slice()..=last.as_slice()).map_err(refused)?;
        let mut persons = Vec::new();
        for entry in range {
            let (key, sealed) = entry.map_err(refused)?;
            let plain = self.unseal(PERSONS, key.value(), sealed.value())?;
            let person = schema::decode_person(&plain).map_err(|error| damaged(PERSONS, &error))?;
            persons.push(Arc::new(person));
        }
        persons.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(persons)
    }

    fn load_keys(&self, tx: &ReadTransaction) -> Result<Vec<KeyRecord>, StoreError> {
        let table = tx.open_table(KEYS.definition()).map_err(refused)?;
        let mut keys = Vec::new();
        for entry in table.iter().map_err(refused)? {
            let (key, sealed) = entry.map_err(refused)?;
            let plain = self.unseal(KEYS, key.value(), sealed.value())?;
            keys.push(schema::decode_key(&plain).map_err(|error| damaged(KEYS, &error))?);
        }
        keys.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(keys)
    }

    /// Seals and inserts; answers whether something was replaced.
    fn put(
        &self,
        table: &mut BytesTable<'_>,
        kind: SealedTable,
        id: &[u8],
        plain: &[u8],
    ) -> Result<bool, StoreError> {
        let sealed = self.seal(kind, id, plain)?;
        let previous = table.insert(id, sealed.as_slice()).map_err(refused)?;
        Ok(previous.is_some())
    }

    fn collection_id(&self, name: &CollectionName) -> RecordId {
        self.vault.record_id("collection", &[name.as_str()])
    }

    fn person_key(
        &self,
        collection_id: &RecordId,
        collection: &CollectionName,
        id: &PersonId,
    ) -> [u8; schema::PERSON_KEY_BYTES] {
        // The collection's name is in it too, so that nobody can see from the keys that one person
        // id occurs in two collections.
        let person_id = self.vault.record_id("person", &[collection.as_str(), id.as_str()]);
        schema::person_key(collection_id, &person_id)
    }

    fn key_id(&self, id: &str) -> RecordId {
        self.vault.record_id("key", &[id])
    }
}

fn remove(tx: &WriteTransaction, table: SealedTable, id: &[u8]) -> Result<bool, StoreError> {
    let mut table = tx.open_table(table.definition()).map_err(refused)?;
    let removed = table.remove(id).map_err(refused)?;
    Ok(removed.is_some())
}
