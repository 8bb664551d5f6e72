//! The digest of what a layer does, without times.

use crate::hash_source;
use rayon::prelude::*;
use rbuild_oci::{Digest, Sha256Writer};
use rbuild_tree::{LayerEntry, LayerEntryKind, Metadata};
use std::io::{self, Write};

/// Begins every preimage; a change of the encoding changes it.
const DOMAIN: &[u8] = b"rbuild layer content v1\0";

/// The digest of a layer's content: per entry path, type, mode, owner, link target, device numbers, extended
/// attributes and data, but no time (DESIGN section 4, early cutoff). Two layers with equal digests differ at most in
/// times and in where their bytes are. Data whose digest is not known is hashed, in parallel.
pub fn content_digest(entries: &[LayerEntry]) -> io::Result<Digest> {
    let digests: Vec<Option<Digest>> = entries
        .par_iter()
        .map_init(Vec::new, |buffer, entry| match &entry.kind {
            LayerEntryKind::Node { data: Some(data), .. } => match data.digest {
                Some(digest) => Ok(Some(digest)),
                None => hash_source(&data.source, &entry.path, buffer).map(Some),
            },
            _ => Ok(None),
        })
        .collect::<io::Result<_>>()?;
    let mut preimage = io::BufWriter::with_capacity(64 * 1024, Sha256Writer::new(io::sink()));
    preimage.write_all(DOMAIN)?;
    for (entry, digest) in entries.iter().zip(digests) {
        encode(&mut preimage, entry, digest)?;
    }
    let writer = preimage.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(writer.finish().1)
}

/// Every field has a fixed width or its length before it, so that no two layers have one encoding.
fn encode(out: &mut impl Write, entry: &LayerEntry, digest: Option<Digest>) -> io::Result<()> {
    bytes(out, entry.path.as_bytes())?;
    match &entry.kind {
        LayerEntryKind::Whiteout => out.write_all(b"w"),
        LayerEntryKind::Opaque => out.write_all(b"o"),
        LayerEntryKind::Node { hard_link_to: Some(target), .. } => {
            out.write_all(b"h")?;
            bytes(out, target.as_bytes())
        }
        LayerEntryKind::Node { meta, data, hard_link_to: None } => {
            out.write_all(b"n")?;
            metadata(out, meta)?;
            if let (Some(data), Some(digest)) = (data, digest) {
                out.write_all(&data.size.to_le_bytes())?;
                out.write_all(digest.as_bytes())?;
            }
            Ok(())
        }
    }
}

fn metadata(out: &mut impl Write, meta: &Metadata) -> io::Result<()> {
    // Named one by one: a new field must be put in or out here.
    let Metadata { kind, mode, uid, gid, size: _, mtime: _, rdev, link_target, hard_link: _, xattrs } = meta;
    out.write_all(&[*kind as u8])?;
    for number in [*mode, *uid, *gid, rdev.0, rdev.1, xattrs.len() as u32] {
        out.write_all(&number.to_le_bytes())?;
    }
    bytes(out, link_target)?;
    for (name, value) in xattrs {
        bytes(out, name)?;
        bytes(out, value)?;
    }
    Ok(())
}

fn bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)
}
