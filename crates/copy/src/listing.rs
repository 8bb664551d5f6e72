//! The structured key of a COPY as bytes, for whoever keeps it.
//!
//! ```text
//! listing = "rbuild.listing.1\n" entry*
//! entry   = shared:varint rest:bytes kind:u8 flags:u8 mode:varint uid:varint gid:varint
//!           [data: 32 bytes] [link: bytes] [major:varint minor:varint] [xattrs: 32 bytes]
//! bytes   = length:varint, then as many bytes
//! ```
//!
//! `shared` says how many bytes of the path are those of the entry before; `flags` says which of the optional fields are
//! there. Numbers are LEB128.

use crate::selection::{KeyEntry, KeyKind, Root, Selected, Selection, key_entry};
use rbuild_oci::Digest;
use std::io::{self, BufRead, Read, Write};

const MAGIC: &[u8] = b"rbuild.listing.1\n";
/// Longest path or link target that is read.
const MAX_BYTES: u64 = 64 << 10;

const HAS_DATA: u8 = 1;
const HAS_LINK: u8 = 2;
const HAS_RDEV: u8 = 4;
const HAS_XATTRS: u8 = 8;

const KINDS: [KeyKind; 7] = [
    KeyKind::File,
    KeyKind::Dir,
    KeyKind::Symlink,
    KeyKind::Char,
    KeyKind::Block,
    KeyKind::Fifo,
    KeyKind::Socket,
];

/// Writes what was selected, entry by entry, under the paths that the entries have in the source tree: it is these that
/// people know.
pub fn write_listing(selections: &[Selection], out: &mut dyn Write) -> io::Result<()> {
    let roots = selections.iter().flat_map(|selection| &selection.roots);
    write_entries(roots.flat_map(|root| root.entries.iter().map(|entry| listed(root, entry))), out)
}

fn listed(root: &Root, entry: &Selected) -> KeyEntry {
    let path = String::from_utf8_lossy(entry.source.as_bytes()).into_owned();
    KeyEntry { path, ..key_entry(root, entry) }
}

/// Writes entries; [`read_listing`] reads them.
pub fn write_entries(entries: impl Iterator<Item = KeyEntry>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(MAGIC)?;
    let (mut before, mut line) = (String::new(), Vec::new());
    for entry in entries {
        let shared = before.bytes().zip(entry.path.bytes()).take_while(|(one, other)| one == other).count();
        line.clear();
        encode(&entry, shared, &mut line);
        out.write_all(&line)?;
        before = entry.path;
    }
    Ok(())
}

fn encode(entry: &KeyEntry, shared: usize, out: &mut Vec<u8>) {
    // A field that is added has to be written too.
    let KeyEntry { path, kind, mode, uid, gid, data, link, rdev, xattrs } = entry;
    number(shared as u64, out);
    bytes(&path.as_bytes()[shared..], out);
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    out.push(*kind as u8);
    out.push(
        flag(data.is_some(), HAS_DATA)
            | flag(link.is_some(), HAS_LINK)
            | flag(rdev.is_some(), HAS_RDEV)
            | flag(xattrs.is_some(), HAS_XATTRS),
    );
    for value in [mode, uid, gid] {
        number(u64::from(*value), out);
    }
    out.extend(data.iter().flat_map(|digest| digest.as_bytes()));
    if let Some(link) = link {
        bytes(link.as_bytes(), out);
    }
    for value in rdev.iter().flat_map(|rdev| [rdev.0, rdev.1]) {
        number(u64::from(value), out);
    }
    out.extend(xattrs.iter().flat_map(|digest| digest.as_bytes()));
}

fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    number(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Reads what [`write_listing`] wrote, at most `limit` entries.
///
/// # Errors
/// When it is no listing, or longer.
pub fn read_listing(mut input: impl BufRead, limit: usize) -> io::Result<Vec<KeyEntry>> {
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(damaged("it does not begin like one"));
    }
    let (mut entries, mut path) = (Vec::new(), Vec::new());
    while !input.fill_buf()?.is_empty() {
        if entries.len() >= limit {
            return Err(io::Error::other(format!("there are more than {limit} files")));
        }
        entries.push(decode(&mut input, &mut path)?);
    }
    Ok(entries)
}

fn decode(input: &mut impl BufRead, path: &mut Vec<u8>) -> io::Result<KeyEntry> {
    let shared = read_number(input)?;
    if shared > path.len() as u64 {
        return Err(damaged("a path shares more than there is"));
    }
    path.truncate(shared as usize);
    path.extend(read_bytes(input)?);
    if path.len() as u64 > MAX_BYTES {
        return Err(damaged("a path is too long"));
    }
    let [kind, flags] = read_array(input)?;
    let kind = *KINDS.get(usize::from(kind)).ok_or_else(|| damaged("an entry has no known type"))?;
    let (mode, uid, gid) = (read_u32(input)?, read_u32(input)?, read_u32(input)?);
    let has = |flag: u8| flags & flag != 0;
    Ok(KeyEntry {
        path: String::from_utf8_lossy(path).into_owned(),
        kind,
        mode,
        uid,
        gid,
        data: has(HAS_DATA).then(|| read_array(input).map(Digest::from_bytes)).transpose()?,
        link: has(HAS_LINK)
            .then(|| read_bytes(input).map(|link| String::from_utf8_lossy(&link).into_owned()))
            .transpose()?,
        rdev: has(HAS_RDEV).then(|| Ok::<_, io::Error>((read_u32(input)?, read_u32(input)?))).transpose()?,
        xattrs: has(HAS_XATTRS).then(|| read_array(input).map(Digest::from_bytes)).transpose()?,
    })
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the list of files is damaged: {reason}"))
}

fn read_array<const N: usize>(input: &mut impl BufRead) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    input.read_exact(&mut array)?;
    Ok(array)
}

fn read_number(input: &mut impl BufRead) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let [byte] = read_array(input)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged("a number is too long"))
}

fn read_u32(input: &mut impl BufRead) -> io::Result<u32> {
    u32::try_from(read_number(input)?).map_err(|_| damaged("a number is too large"))
}

fn read_bytes(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let length = read_number(input)?;
    if length > MAX_BYTES {
        return Err(damaged("a text is too long"));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    input.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = KeyEntry> {
        let digest = || proptest::option::of(any::<u8>().prop_map(|byte| Digest::of([byte])));
        let rdev = proptest::option::of((any::<u32>(), any::<u32>()));
        let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
        (
            "[a-cé]{0,4}(/[a-c]{1,3}){0,3}",
            0..KINDS.len(),
            numbers,
            digest(),
            digest(),
            rdev,
            proptest::option::of(".{0,9}"),
        )
            .prop_map(|(path, kind, (mode, uid, gid), data, xattrs, rdev, link)| KeyEntry {
                path,
                kind: KINDS[kind],
                mode,
                uid,
                gid,
                data,
                link,
                rdev,
                xattrs,
            })
    }

    fn written(entries: &[KeyEntry]) -> Vec<u8> {
        let mut out = Vec::new();
        write_entries(entries.iter().cloned(), &mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn listings_round_trip(entries in proptest::collection::vec(entry(), 0..20)) {
            prop_assert_eq!(read_listing(&*written(&entries), 20).unwrap(), entries);
        }

        #[test]
        fn any_bytes_are_an_error_or_entries(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(read_listing(&*[MAGIC, &bytes].concat(), 1000));
            drop(read_listing(&*bytes, 1000));
        }
    }

    #[test]
    fn kinds_are_numbered_as_they_are_listed() {
        for (number, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn a_listing_that_is_cut_off_or_too_long_is_refused() {
        let entry = KeyEntry {
            path: "a".into(),
            kind: KeyKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            data: Some(Digest::of("x")),
            link: None,
            rdev: None,
            xattrs: None,
        };
        let bytes = written(&[entry.clone(), entry]);
        assert!(read_listing(&*bytes, 1).is_err());
        for end in [0, 3, MAGIC.len() + 1, bytes.len() - 1] {
            assert!(read_listing(&bytes[..end], 9).is_err(), "{end}");
        }
    }
}
