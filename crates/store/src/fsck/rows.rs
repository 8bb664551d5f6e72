//! `index.db`: its pages, and that its rows lead to files.

use super::{Fsck, ProblemKind};
use crate::LayerKind;
use crate::db::{digest, run};
use crate::error::Result;
use crate::fsutil::now;
use crate::record::delete_record;
use rbuild_oci::Digest;
use rusqlite::Connection;
use std::collections::HashSet;
use std::fs;

/// Most remarks of SQLite that are shown.
const REMARKS: usize = 5;

/// A packed form whose blob is gone.
struct LostForm {
    layer: Digest,
    blob: Digest,
}

impl Fsck<'_> {
    /// Lets SQLite look at every page. A damaged index is rebuilt if repairs are wanted.
    pub(super) fn check_index(&mut self) -> Result<()> {
        let repair = self.options.repair;
        let mut remarks = Vec::new();
        self.store.query(|db| {
            let mut statement = db.prepare("PRAGMA integrity_check(100)")?;
            let found = statement.query_map([], |row| row.get::<_, String>(0))?;
            let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
            if found.first().is_some_and(|text| text == "ok") {
                return Ok(());
            }
            let text = found.iter().take(REMARKS).cloned().collect::<Vec<_>>().join("; ");
            remarks = found;
            if !repair {
                return Ok(());
            }
            // Answered as SQLite itself answers when it meets the damage: the index is moved aside and rebuilt.
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            Err(rusqlite::Error::SqliteFailure(code, Some(text)))
        })?;
        if !remarks.is_empty() {
            remarks.truncate(REMARKS);
            self.add_repaired(ProblemKind::Index, "index.db", remarks.join("; "), "rebuilt from the files");
        }
        Ok(())
    }

    /// Under the gate.
    pub(super) fn check_rows(&mut self) -> Result<()> {
        let (forms, records, count) = {
            let this = &*self;
            this.store.query(|db| {
                let forms = this.lost_forms(db)?;
                let (records, count) = this.lost_records(db, &forms)?;
                Ok((forms, records, count))
            })?
        };
        self.report.records = count;
        for form in &forms {
            let detail = format!("its packed form {} is not here", form.blob);
            self.add_repaired(ProblemKind::Row, form.layer, detail, "forgotten");
        }
        for (key, layer) in &records {
            let detail = format!("the layer {layer} of this record is not here");
            self.add_repaired(ProblemKind::Row, key, detail, "forgotten, the step runs again");
        }
        if self.options.repair && !(forms.is_empty() && records.is_empty()) {
            let now = now();
            self.store.change(|tx| {
                for form in &forms {
                    let sql = "DELETE FROM packed WHERE layer = ?1 AND blob = ?2";
                    run(tx, sql, [form.layer.as_bytes(), form.blob.as_bytes()])?;
                }
                records.iter().try_for_each(|(key, _)| delete_record(tx, key, now))
            })?;
        }
        Ok(())
    }

    fn lost_forms(&self, db: &Connection) -> rusqlite::Result<Vec<LostForm>> {
        // A pulled layer's form says where it can be had again; it need not be here.
        let sql = "SELECT p.layer, p.blob, p.size FROM packed p LEFT JOIN layers l ON l.id = p.layer
            WHERE coalesce(l.kind, 0) != ?1";
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([LayerKind::Pulled as i64])?;
        let mut lost = Vec::new();
        while let Some(row) = rows.next()? {
            let (layer, blob) = (digest(row, 0)?, digest(row, 1)?);
            let size = row.get::<_, i64>(2)?.cast_unsigned();
            let whole = fs::metadata(self.store.blob_path(&blob)).is_ok_and(|meta| meta.len() == size);
            if !whole || self.bad_blobs.contains(&blob) {
                lost.push(LostForm { layer, blob });
            }
        }
        Ok(lost)
    }

    /// Records with a layer that is neither unpacked nor packed nor to be pulled again; and how many there are at all.
    fn lost_records(
        &self,
        db: &Connection,
        lost: &[LostForm],
    ) -> rusqlite::Result<(Vec<(Digest, Digest)>, usize)> {
        let lost: HashSet<(Digest, Digest)> = lost.iter().map(|form| (form.layer, form.blob)).collect();
        let mut available = HashSet::new();
        let mut statement = db.prepare("SELECT layer, blob FROM packed")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let form = (digest(row, 0)?, digest(row, 1)?);
            if !lost.contains(&form) {
                available.insert(form.0);
            }
        }
        let mut statement = db.prepare("SELECT id FROM layers WHERE kind = ?1")?;
        let mut rows = statement.query([LayerKind::Pulled as i64])?;
        while let Some(row) = rows.next()? {
            available.insert(digest(row, 0)?);
        }
        let is_here = |id: &Digest| {
            let dir = self.store.root().join("snapshots").join(id.hex()).join("fs");
            available.contains(id) || (dir.is_dir() && !self.bad_layers.contains(id))
        };
        let (mut found, mut count) = (Vec::new(), 0);
        let mut statement = db.prepare("SELECT key, chain FROM records")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            count += 1;
            let chain: Vec<u8> = row.get(1)?;
            let ids = chain.chunks_exact(32).filter_map(|id| <[u8; 32]>::try_from(id).ok());
            if let Some(gone) = ids.map(Digest::from_bytes).find(|id| !is_here(id)) {
                found.push((digest(row, 0)?, gone));
            }
        }
        Ok((found, count))
    }
}
