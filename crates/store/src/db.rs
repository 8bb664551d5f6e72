//! `index.db`: opening, schema, repair.

use crate::error::{IoContext, Result};
use crate::fsutil::{lock_path, now, optional};
use crate::{Store, StoreError, locked};
use rbuild_oci::Digest;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use rustix::fs::FlockOperation;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// `PRAGMA user_version` of the schema below.
const SCHEMA_VERSION: i64 = 1;

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Per connection. The WAL is checkpointed at 2 MiB: whoever opens the index alone reads the whole WAL first.
const CONNECTION: &str = "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 512;";

/// Digests are 32-byte blobs, times are seconds since 1970, `packed.epoch` is `NO_EPOCH` for none. The last columns are
/// the long ones: SQLite reads a row's overflow pages only as far as they are asked for.
const SCHEMA: &str = "
CREATE TABLE layers (
    id BLOB PRIMARY KEY, kind INTEGER NOT NULL, content BLOB, created INTEGER NOT NULL, created_nanos INTEGER NOT NULL,
    last_used INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX layers_content ON layers (content) WHERE content IS NOT NULL;
CREATE TABLE packed (
    layer BLOB NOT NULL, codec TEXT NOT NULL, epoch INTEGER NOT NULL, diff_id BLOB NOT NULL, blob BLOB NOT NULL,
    size INTEGER NOT NULL, tar_size INTEGER NOT NULL, media_type TEXT NOT NULL,
    PRIMARY KEY (layer, codec, epoch)) WITHOUT ROWID;
CREATE TABLE records (
    key BLOB PRIMARY KEY, op BLOB NOT NULL, content_key BLOB, layer BLOB, content_id BLOB, created INTEGER NOT NULL,
    last_used INTEGER NOT NULL, uses INTEGER NOT NULL, cost_ms INTEGER NOT NULL, chain BLOB NOT NULL, config TEXT);
CREATE INDEX records_op ON records (op);
CREATE INDEX records_content ON records (content_key) WHERE content_key IS NOT NULL;
CREATE TABLE preimages (key BLOB PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE tombstones (key BLOB PRIMARY KEY, op BLOB NOT NULL, evicted INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE resolutions (
    reference TEXT NOT NULL, platform TEXT NOT NULL, descriptor TEXT NOT NULL, resolved INTEGER NOT NULL,
    PRIMARY KEY (reference, platform)) WITHOUT ROWID;
CREATE TABLE blob_sources (
    blob BLOB NOT NULL, repository TEXT NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (blob, repository)) WITHOUT ROWID;
";

/// The connection, opened at its first use.
pub(crate) struct Db {
    root: PathBuf,
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

struct Open {
    connection: Connection,
    /// Device and inode of the file when it was opened.
    file: Option<(u64, u64)>,
}

/// What opening came to, if it failed.
enum Failure {
    /// With the device and inode of the file that is damaged.
    Damaged(rusqlite::Error, Option<(u64, u64)>),
    Other(StoreError),
}

impl Db {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), path: root.join("index.db"), open: Mutex::new(None) }
    }

    /// Runs `f` on the connection. If the index turns out to be damaged it is rebuilt, and `f` runs once more.
    fn with<T>(
        &self,
        warnings: &Mutex<Vec<String>>,
        mut f: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut slot = locked(&self.open);
        let mut repaired = false;
        loop {
            let tried = match &mut *slot {
                Some(open) => f(&mut open.connection).map_err(|e| self.classify(e, open.file)),
                None => match self.connect((!repaired).then_some(warnings)) {
                    Ok(open) => {
                        *slot = Some(open);
                        continue;
                    }
                    Err(failure) => Err(failure),
                },
            };
            match tried {
                Ok(value) => return Ok(value),
                Err(Failure::Damaged(e, seen)) if !repaired => {
                    repaired = true;
                    *slot = None;
                    self.move_aside(seen, &e, warnings)?;
                }
                Err(Failure::Damaged(e, _)) => return Err(StoreError::database(&self.path, e)),
                Err(Failure::Other(e)) => return Err(e),
            }
        }
    }

    fn classify(&self, e: rusqlite::Error, file: Option<(u64, u64)>) -> Failure {
        let damaged = match &e {
            rusqlite::Error::SqliteFailure(code, message) => match code.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
                // A table that our schema has is not there.
                _ => message.as_deref().is_some_and(|m| m.starts_with("no such ")),
            },
            // A value is not what our schema puts there.
            rusqlite::Error::SqlInputError { msg, .. } => msg.starts_with("no such "),
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => true,
            _ => false,
        };
        if damaged { Failure::Damaged(e, file) } else { Failure::Other(StoreError::database(&self.path, e)) }
    }

    /// `warnings` hears of an index that is lost, unless that is no surprise.
    fn connect(&self, warnings: Option<&Mutex<Vec<String>>>) -> std::result::Result<Open, Failure> {
        let known = inode(&self.path).is_some();
        if known && let Some(open) = self.connect_existing()? {
            return Ok(open);
        }
        // Missing, or made by somebody who has not come to the schema yet.
        let _lock = self.lock().map_err(Failure::Other)?;
        if inode(&self.path).is_none() {
            for suffix in ["-wal", "-shm"] {
                let _ = fs::remove_file(with_suffix(&self.path, suffix));
            }
        }
        if let Some(open) = self.connect_existing()? {
            return Ok(open);
        }
        let mut open = self.attach()?;
        let layers = self.snapshots().map_err(Failure::Other)?;
        let blobs =
            fs::read_dir(self.root.join("blobs/sha256")).is_ok_and(|mut blobs| blobs.next().is_some());
        let empty = layers.is_empty() && !blobs;
        create(&mut open.connection, &layers, empty).map_err(|e| self.classify(e, open.file))?;
        if let Some(warnings) = warnings
            && !layers.is_empty()
        {
            locked(warnings).push(format!(
                "the cache index {} was lost and has been rebuilt: {} layers are known, earlier steps run again",
                self.path.display(),
                layers.len()
            ));
        }
        Ok(open)
    }

    /// Attaches to an index that has a schema; `None` if it has none yet.
    fn connect_existing(&self) -> std::result::Result<Option<Open>, Failure> {
        if inode(&self.path).is_none() {
            return Ok(None);
        }
        let open = self.attach()?;
        let version: i64 = open
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|e| self.classify(e, open.file))?;
        match version {
            0 => Ok(None),
            SCHEMA_VERSION => Ok(Some(open)),
            newer => Err(Failure::Other(StoreError::NewerVersion {
                path: self.path.clone(),
                found: newer.to_string(),
                known: SCHEMA_VERSION.to_string(),
            })),
        }
    }

    fn attach(&self) -> std::result::Result<Open, Failure> {
        // Before it is opened: if another process replaces it in between, the new one is not taken for damaged.
        let before = inode(&self.path);
        let attach = || {
            let connection = Connection::open(&self.path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // The last process out would otherwise copy the WAL and wait for the disk, at the end of every build.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.set_prepared_statement_cache_capacity(64);
            connection.execute_batch(CONNECTION)?;
            Ok(Open { connection, file: before.or_else(|| inode(&self.path)) })
        };
        attach().map_err(|e| self.classify(e, before))
    }

    /// Moves the index away if it is still the one that was `seen` to be damaged: another process may have been first.
    fn move_aside(
        &self,
        seen: Option<(u64, u64)>,
        reason: &rusqlite::Error,
        warnings: &Mutex<Vec<String>>,
    ) -> Result<()> {
        let _lock = self.lock()?;
        if seen.is_none() || inode(&self.path) != seen {
            return Ok(());
        }
        let aside = self.path.with_file_name(format!("index.db.damaged-{}-{}", now(), std::process::id()));
        for suffix in ["-wal", "-shm", ""] {
            let (from, to) = (with_suffix(&self.path, suffix), with_suffix(&aside, suffix));
            optional(fs::rename(&from, &to)).at("move away", &from)?;
        }
        locked(warnings).push(format!(
            "the cache index {} was damaged ({reason}); it was moved to {} and is rebuilt: earlier steps run again",
            self.path.display(),
            aside.display()
        ));
        Ok(())
    }

    fn lock(&self) -> Result<Option<fs::File>> {
        let path = self.root.join("locks/db");
        lock_path(&path, FlockOperation::LockExclusive).at("lock", &path)
    }

    /// Layers that are unpacked, with the time of that.
    fn snapshots(&self) -> Result<Vec<(Digest, i64)>> {
        let dir = self.root.join("snapshots");
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let entry = entry.at("list", &dir)?;
            let Some(id) = entry.file_name().to_str().and_then(Digest::from_hex) else { continue };
            let created = entry.metadata().map_or(0, |meta| meta.mtime());
            found.push((id, created));
        }
        Ok(found)
    }
}

/// A new index is not waited for: whatever a power loss leaves of it is as good as none. On a disk with much to write the
/// first build of a store would otherwise wait for all of it.
fn create(connection: &mut Connection, layers: &[(Digest, i64)], empty: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "OFF")?;
    make_schema(connection, layers, empty)?;
    connection.execute_batch(CONNECTION)
}

fn make_schema(connection: &mut Connection, layers: &[(Digest, i64)], empty: bool) -> rusqlite::Result<()> {
    let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(SCHEMA)?;
    for (id, created) in layers {
        tx.execute(
            "INSERT INTO layers (id, kind, created, created_nanos, last_used, bytes) VALUES (?1, 0, ?2, 0, ?3, 0)",
            params![id.as_bytes(), created, now()],
        )?;
    }
    if empty {
        // Known without measuring it.
        tx.execute_batch(crate::gc::TABLE)?;
        tx.execute("INSERT INTO sizes (name, bytes) VALUES ('measured', 0)", [])?;
    }
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Store {
    /// Reads from the index; `f` may run twice.
    pub(crate) fn query<T>(&self, f: impl FnMut(&mut Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.inner.db.with(&self.inner.warnings, f)
    }

    /// Changes the index in one transaction; `f` may run twice.
    pub(crate) fn change<T>(&self, mut f: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        self.query(|connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = f(&tx)?;
            tx.commit()?;
            Ok(value)
        })
    }
}

/// A digest column.
pub(crate) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    Ok(Digest::from_bytes(row.get(column)?))
}

/// A digest column that may be NULL.
pub(crate) fn optional_digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    Ok(row.get::<_, Option<[u8; 32]>>(column)?.map(Digest::from_bytes))
}

/// The first row of a cached statement.
pub(crate) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, map).optional()
}

/// Runs a cached statement.
pub(crate) fn run(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}
