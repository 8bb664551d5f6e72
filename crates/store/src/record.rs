//! Cache records: what a key has led to.

use crate::db::{digest, first, optional_digest, run};
use crate::error::Result;
use crate::fsutil::now;
use crate::layer::{insert_layer, insert_packed};
use crate::{Layer, LayerId, Packed, Store, locked};
use rbuild_oci::Digest;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

/// The result of a step under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Definition key or content key.
    pub key: Digest,
    /// Digest of the operation alone, without its inputs.
    pub op_digest: Digest,
    /// Content key, if it is known and not the key itself.
    pub content_key: Option<Digest>,
    /// The layer the step made; `None` if it made none.
    pub layer: Option<LayerId>,
    /// All layers of the result, the base first, the step's own last.
    pub chain: Vec<LayerId>,
    /// Identity of the result as an input of content keys.
    pub content_id: Option<Digest>,
    /// What else the step resulted in, as JSON of the caller's own.
    pub config: Option<String>,
    /// When the step ran, seconds since 1970.
    pub created: i64,
    /// How long it ran, in milliseconds.
    pub cost_ms: u64,
    /// When the record was last used, seconds since 1970. Ignored when the record is written.
    pub last_used: i64,
    /// How many builds have used it since. Ignored when the record is written.
    pub uses: u64,
}

/// Rows that become visible together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    layers: Vec<Layer>,
    packed: Vec<Packed>,
    records: Vec<(Record, Option<String>)>,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer. One that is known already keeps its time, and learns its content digest.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Adds a packed form; its blob should be in the store.
    pub fn packed(mut self, packed: Packed) -> Self {
        self.packed.push(packed);
        self
    }

    /// Adds a record, which replaces one with the same key, with the preimage of its key as JSON (DESIGN promise 2).
    pub fn record(mut self, record: Record, preimage: impl Into<String>) -> Self {
        self.records.push((record, Some(preimage.into())));
        self
    }

    /// Adds a record and leaves a preimage that is stored under its key as it is.
    pub fn record_only(mut self, record: Record) -> Self {
        self.records.push((record, None));
        self
    }
}

const RECORD: &str =
    "key, op, content_key, layer, content_id, created, last_used, uses, cost_ms, chain, config";

impl Store {
    /// Writes rows in one transaction. The files they name must be in place.
    pub fn write(&self, batch: &Batch) -> Result<()> {
        self.with_room(|| self.write_once(batch))
    }

    fn write_once(&self, batch: &Batch) -> Result<()> {
        let used = batch.layers.iter().map(|layer| layer.id);
        let used = used.chain(batch.packed.iter().map(|packed| packed.blob));
        let used: Vec<Digest> = used.chain(batch.records.iter().map(|(record, _)| record.key)).collect();
        let _gate = self.protect(&used)?;
        let now = now();
        self.change(|tx| {
            for layer in &batch.layers {
                insert_layer(tx, layer, now)?;
            }
            for packed in &batch.packed {
                insert_packed(tx, packed)?;
            }
            for (record, preimage) in &batch.records {
                insert_record(tx, record, preimage.as_deref(), now)?;
            }
            Ok(())
        })
    }

    /// [`Store::write`] of one layer.
    pub fn put_layer(&self, layer: Layer) -> Result<()> {
        self.write(&Batch::new().layer(layer))
    }

    /// [`Store::write`] of one packed form.
    pub fn put_packed(&self, packed: Packed) -> Result<()> {
        self.write(&Batch::new().packed(packed))
    }

    /// [`Store::write`] of one record with its preimage.
    pub fn put_record(&self, record: Record, preimage: impl Into<String>) -> Result<()> {
        self.write(&Batch::new().record(record, preimage))
    }

    /// The record of a key. One whose layers are gone is dropped and not returned. Under a lease it is kept with all
    /// its layers until the lease ends.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>> {
        Ok(self.records(std::slice::from_ref(key))?.pop().flatten())
    }

    /// [`Store::record`] of many keys at once, in the order given.
    pub fn records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>> {
        let _gate = self.protect(keys)?;
        let sql = format!("SELECT {RECORD} FROM records WHERE key = ?1");
        let (found, gone) = self.query(|db| {
            let tx = db.unchecked_transaction()?;
            let mut found = Vec::with_capacity(keys.len());
            let mut gone = Vec::new();
            for key in keys {
                let record = first(&tx, &sql, [key.as_bytes()], record_row)?;
                found.push(self.keep_whole(&tx, record, &mut gone)?);
            }
            Ok((found, gone))
        })?;
        self.drop_records(&gone)?;
        self.note_use(found.iter().flatten());
        Ok(found)
    }

    /// The newest record with this content key whose layers are available.
    pub fn record_by_content(&self, content_key: &Digest) -> Result<Option<Record>> {
        let sql = format!(
            "SELECT {RECORD} FROM records WHERE content_key = ?1 ORDER BY created DESC, rowid DESC LIMIT 16"
        );
        let _gate = self.protect(&[])?;
        let (found, gone) = self.query(|db| {
            let tx = db.unchecked_transaction()?;
            let mut gone = Vec::new();
            let mut found = None;
            let mut statement = tx.prepare_cached(&sql)?;
            for record in statement.query_map([content_key.as_bytes()], record_row)? {
                found = self.keep_whole(&tx, Some(record?), &mut gone)?;
                if found.is_some() {
                    break;
                }
            }
            Ok((found, gone))
        })?;
        let _noted =
            self.protect(found.as_ref().map(|record| &record.key).map_or(&[], std::slice::from_ref))?;
        self.drop_records(&gone)?;
        self.note_use(&found);
        Ok(found)
    }

    /// Records of an operation under whatever inputs, the newest first: what a miss is explained against. Whether
    /// their layers are available is not looked at.
    pub fn records_of_op(&self, op: &Digest, limit: u32) -> Result<Vec<Record>> {
        let sql =
            format!("SELECT {RECORD} FROM records WHERE op = ?1 ORDER BY created DESC, rowid DESC LIMIT ?2");
        self.query(|db| {
            db.prepare_cached(&sql)?.query_map(params![op.as_bytes(), limit], record_row)?.collect()
        })
    }

    /// Whether this operation was ever recorded, under whatever inputs.
    pub fn any_record_of_op(&self, op: &Digest) -> Result<bool> {
        let sql = "SELECT 1 FROM records WHERE op = ?1 LIMIT 1";
        Ok(self.query(|db| first(db, sql, [op.as_bytes()], |_| Ok(())))?.is_some())
    }

    /// Whether there is any record at all.
    pub fn has_records(&self) -> Result<bool> {
        Ok(self.query(|db| first(db, "SELECT 1 FROM records LIMIT 1", [], |_| Ok(())))?.is_some())
    }

    /// The preimage of a key, as JSON.
    pub fn preimage(&self, key: &Digest) -> Result<Option<String>> {
        self.query(|db| {
            first(db, "SELECT text FROM preimages WHERE key = ?1", [key.as_bytes()], |row| row.get(0))
        })
    }

    /// When prune removed the record of this key, seconds since 1970; `None` if it did not.
    pub fn evicted(&self, key: &Digest) -> Result<Option<i64>> {
        let sql = "SELECT evicted FROM tombstones WHERE key = ?1";
        self.query(|db| first(db, sql, [key.as_bytes()], |row| row.get(0)))
    }

    /// Whether this handle found a record of this key whose layers were gone, and dropped it.
    pub fn lost(&self, key: &Digest) -> bool {
        locked(&self.inner.lost).contains(key)
    }

    /// Sets the time of last use of these records to now, in one transaction. Records that were found by this handle
    /// need not be named: see [`Store::flush_uses`].
    pub fn touch(&self, keys: &[Digest]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let now = now();
        self.change(|tx| {
            for key in keys {
                let sql = "UPDATE records SET last_used = ?2, uses = uses + 1 WHERE key = ?1";
                run(tx, sql, params![key.as_bytes(), now])?;
            }
            Ok(())
        })
    }

    /// Writes the uses of all records that were found since the last call. The end of a lease does this.
    pub fn flush_uses(&self) -> Result<()> {
        let keys: Vec<Digest> = locked(&self.inner.used).drain().collect();
        self.touch(&keys)
    }

    fn note_use<'a>(&self, records: impl IntoIterator<Item = &'a Record>) {
        locked(&self.inner.used).extend(records.into_iter().map(|record| record.key));
    }

    /// The record, if all its layers are available; else its key is added to `gone`.
    fn keep_whole(
        &self,
        db: &Connection,
        record: Option<Record>,
        gone: &mut Vec<Digest>,
    ) -> rusqlite::Result<Option<Record>> {
        let Some(record) = record else { return Ok(None) };
        for layer in record.chain.iter().chain(&record.layer) {
            if !self.is_available(db, layer)? {
                gone.push(record.key);
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    fn drop_records(&self, keys: &[Digest]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        locked(&self.inner.lost).extend(keys);
        let now = now();
        self.change(|tx| keys.iter().try_for_each(|key| delete_record(tx, key, now)))
    }
}

fn record_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    let chain: Vec<u8> = row.get(9)?;
    if !chain.len().is_multiple_of(32) {
        return Err(rusqlite::Error::InvalidColumnType(9, "chain".into(), Type::Blob));
    }
    let layers =
        chain.chunks_exact(32).filter_map(|id| <[u8; 32]>::try_from(id).ok().map(Digest::from_bytes));
    Ok(Record {
        key: digest(row, 0)?,
        op_digest: digest(row, 1)?,
        content_key: optional_digest(row, 2)?,
        layer: optional_digest(row, 3)?,
        content_id: optional_digest(row, 4)?,
        created: row.get(5)?,
        last_used: row.get(6)?,
        uses: row.get::<_, i64>(7)?.cast_unsigned(),
        cost_ms: row.get::<_, i64>(8)?.cast_unsigned(),
        chain: layers.collect(),
        config: row.get(10)?,
    })
}

fn insert_record(db: &Connection, record: &Record, preimage: Option<&str>, now: i64) -> rusqlite::Result<()> {
    let chain: Vec<u8> = record.chain.iter().flat_map(|id| *id.as_bytes()).collect();
    run(
        db,
        "INSERT OR REPLACE INTO records
            (key, op, content_key, layer, content_id, created, last_used, uses, cost_ms, chain, config)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10)",
        params![
            record.key.as_bytes(),
            record.op_digest.as_bytes(),
            record.content_key.as_ref().map(|d| d.as_bytes()),
            record.layer.as_ref().map(|d| d.as_bytes()),
            record.content_id.as_ref().map(|d| d.as_bytes()),
            record.created,
            now,
            record.cost_ms.cast_signed(),
            chain,
            record.config,
        ],
    )?;
    if let Some(text) = preimage {
        run(
            db,
            "INSERT OR REPLACE INTO preimages (key, text) VALUES (?1, ?2)",
            params![record.key.as_bytes(), text],
        )?;
    }
    run(db, "DELETE FROM tombstones WHERE key = ?1", [record.key.as_bytes()]).map(drop)
}

/// Removes a record and its preimage, and leaves a tombstone.
pub(crate) fn delete_record(db: &Connection, key: &Digest, now: i64) -> rusqlite::Result<()> {
    let bytes = key.as_bytes();
    run(
        db,
        "INSERT OR REPLACE INTO tombstones (key, op, evicted) SELECT key, op, ?2 FROM records WHERE key = ?1",
        params![bytes, now],
    )?;
    run(db, "DELETE FROM preimages WHERE key = ?1", [bytes])?;
    run(db, "DELETE FROM records WHERE key = ?1", [bytes]).map(drop)
}
