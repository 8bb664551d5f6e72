//! Tar headers as Go's `archive/tar` writes them: USTAR where everything fits, else PAX records before a USTAR header
//! whose fields hold what fits (POSIX.1-2017, pax "ustar Interchange Format" and "pax Extended Header").

use crate::{BLOCK, PAX_XATTR};
use rbuild_tree::Xattrs;
use std::collections::BTreeMap;
use tar::{Header, UstarHeader};

/// The fields of one entry.
pub(crate) struct Fields<'a> {
    /// Name; directories end with `/`.
    pub(crate) name: &'a [u8],
    /// POSIX type flag.
    pub(crate) type_flag: u8,
    /// Link target, or empty.
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Seconds since the epoch.
    pub(crate) mtime: i64,
    /// Nanoseconds after `mtime`.
    pub(crate) mtime_nanos: u32,
    pub(crate) dev: (u32, u32),
    pub(crate) xattrs: Option<&'a Xattrs>,
}

/// Appends the header of an entry, with its PAX records if it needs any, to `out`. The error is a reason.
pub(crate) fn append(out: &mut Vec<u8>, fields: &Fields<'_>) -> Result<(), &'static str> {
    let mut records = pax_records(fields)?;
    let split = split_name(fields.name);
    if needs_path_record(fields.name) && (split.is_none() || !records.is_empty()) {
        records.insert(b"path".to_vec(), fields.name.to_vec());
    }
    let mut header = Header::new_ustar();
    let ustar = header.as_ustar_mut().expect("new_ustar makes a ustar header");
    match (records.is_empty(), split) {
        (true, Some((prefix, rest))) => {
            put_text(&mut ustar.prefix, prefix);
            put_text(&mut ustar.name, rest);
        }
        (true, None) => put_text(&mut ustar.name, fields.name),
        (false, _) => put_text(&mut ustar.name, &ascii(fields.name)),
    }
    put_text(&mut ustar.linkname, &ascii(fields.link));
    put_octal(&mut ustar.mode, u64::from(fields.mode));
    put_octal(&mut ustar.uid, u64::from(fields.uid));
    put_octal(&mut ustar.gid, u64::from(fields.gid));
    put_octal(&mut ustar.size, fields.size);
    put_octal(&mut ustar.mtime, u64::try_from(fields.mtime).unwrap_or(u64::MAX));
    if !fits(&ustar.dev_major, fields.dev.0.into()) || !fits(&ustar.dev_minor, fields.dev.1.into()) {
        return Err("its device number does not fit into a tar header");
    }
    put_octal(&mut ustar.dev_major, u64::from(fields.dev.0));
    put_octal(&mut ustar.dev_minor, u64::from(fields.dev.1));
    ustar.typeflag = [fields.type_flag];
    if !records.is_empty() {
        append_records(out, fields.name, &records);
    }
    out.extend_from_slice(with_checksum(header).as_bytes());
    Ok(())
}

/// Zero bytes from the end of `size` bytes of data to the next block.
pub(crate) fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// Everything but `path` that does not fit into the USTAR header.
fn pax_records(fields: &Fields<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, &'static str> {
    let mut records = BTreeMap::new();
    let mut add = |key: &[u8], value: String| records.insert(key.to_vec(), value.into_bytes());
    if !fits(&[0; 8], fields.uid.into()) {
        add(b"uid", fields.uid.to_string());
    }
    if !fits(&[0; 8], fields.gid.into()) {
        add(b"gid", fields.gid.to_string());
    }
    if !fits(&[0; 12], fields.size) {
        add(b"size", fields.size.to_string());
    }
    if fields.mtime_nanos > 0 && fields.mtime >= 0 {
        let text = format!("{}.{:09}", fields.mtime, fields.mtime_nanos);
        add(b"mtime", text.trim_end_matches('0').to_owned());
    } else if !u64::try_from(fields.mtime).is_ok_and(|t| fits(&[0; 12], t)) {
        add(b"mtime", fields.mtime.to_string());
    }
    if fields.link.len() > 100 || !fields.link.is_ascii() {
        records.insert(b"linkpath".to_vec(), fields.link.to_vec());
    }
    for (name, value) in fields.xattrs.into_iter().flatten() {
        if name.contains(&b'=') || name.is_empty() {
            return Err("the name of one of its extended attributes is empty or contains `=`");
        }
        records.insert([PAX_XATTR, name].concat(), value.clone());
    }
    Ok(records)
}

fn needs_path_record(name: &[u8]) -> bool {
    name.len() > 100 || !name.is_ascii()
}

/// Splits a name that is too long for the name field at a slash into prefix and name, if that makes both fit.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 || !name.is_ascii() {
        return None;
    }
    let end = if name.len() > 156 { 156 } else { name.len() - usize::from(name.ends_with(b"/")) };
    let slash = name[..end].iter().rposition(|c| *c == b'/')?;
    let rest = name.len() - slash - 1;
    (slash > 0 && slash <= 155 && rest > 0 && rest <= 100).then(|| (&name[..slash], &name[slash + 1..]))
}

/// The extended header (type `x`) that holds `records`.
fn append_records(out: &mut Vec<u8>, name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut body = Vec::new();
    for (key, value) in records {
        append_record(&mut body, key, value);
    }
    let mut header = Header::new_ustar();
    let ustar = header.as_ustar_mut().expect("new_ustar makes a ustar header");
    let mut title = ascii(&records_name(name));
    title.truncate(100);
    while title.ends_with(b"/") {
        title.pop();
    }
    put_text(&mut ustar.name, &title);
    for field in [&mut ustar.mode, &mut ustar.uid, &mut ustar.gid] {
        put_octal(field, 0);
    }
    put_octal(&mut ustar.size, body.len() as u64);
    put_octal(&mut ustar.mtime, 0);
    ustar.typeflag = [b'x'];
    out.extend_from_slice(with_checksum(header).as_bytes());
    out.extend_from_slice(&body);
    out.resize(out.len() + padding(body.len() as u64), 0);
}

/// `dir/PaxHeaders.0/file`; for a directory `dir/PaxHeaders.0`.
fn records_name(name: &[u8]) -> Vec<u8> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let cut = name.iter().rposition(|c| *c == b'/').map_or(0, |i| i + 1);
    let (dir, file) = name.split_at(cut);
    let mut out = [dir, b"PaxHeaders.0"].concat();
    if !file.is_empty() {
        out.push(b'/');
        out.extend_from_slice(file);
    }
    out
}

/// `LEN KEY=VALUE\n` where LEN counts the whole record, itself included.
fn append_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + digits(rest);
    if digits(len) != digits(rest) {
        len = rest + digits(len);
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.checked_ilog10().map_or(1, |d| d as usize + 1)
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// As much of `text` as fits. A cut never leaves a `/` at the end: old readers would take the file for a directory.
fn put_text(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
    if text.len() > field.len() && field.ends_with(b"/") {
        let keep = field.iter().rposition(|c| *c != b'/').map_or(0, |i| i + 1);
        field[keep..].fill(0);
    }
}

/// Whether `value` fits into an octal field with its NUL.
fn fits(field: &[u8], value: u64) -> bool {
    value < 1 << (3 * (field.len() - 1))
}

/// Octal digits with leading zeros and a NUL; 0 when the value does not fit (a PAX record holds it then).
fn put_octal(field: &mut [u8], value: u64) {
    let mut rest = if fits(field, value) { value } else { 0 };
    let last = field.len() - 1;
    field[last] = 0;
    for digit in field[..last].iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

/// Checksum as six digits, NUL and space, the form of the original tar.
fn with_checksum(mut header: Header) -> Header {
    let set = |header: &mut Header, value: [u8; 8]| {
        let ustar: &mut UstarHeader = header.as_ustar_mut().expect("made by new_ustar");
        ustar.cksum = value;
    };
    set(&mut header, [b' '; 8]);
    let sum: u64 = header.as_bytes().iter().map(|b| u64::from(*b)).sum();
    let mut field = [b' '; 8];
    put_octal(&mut field[..7], sum);
    set(&mut header, field);
    header
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
