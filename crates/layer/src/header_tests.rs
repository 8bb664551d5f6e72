use super::*;

fn fields(name: &[u8]) -> Fields<'_> {
    Fields {
        name,
        type_flag: b'0',
        link: b"",
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: 0,
        mtime_nanos: 0,
        dev: (0, 0),
        xattrs: None,
    }
}

/// The PAX records in front of the header, and the header.
fn split(bytes: &[u8]) -> (Vec<String>, &[u8]) {
    let header = &bytes[bytes.len() - BLOCK..];
    let mut records = Vec::new();
    if bytes[156] == b'x' {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[124..135]).unwrap(), 8).unwrap();
        assert_eq!(bytes.len(), 2 * BLOCK + size.next_multiple_of(BLOCK));
        let body = String::from_utf8_lossy(&bytes[BLOCK..BLOCK + size]).into_owned();
        records = body.split_terminator('\n').map(str::to_owned).collect();
    } else {
        assert_eq!(bytes.len(), BLOCK);
    }
    (records, header)
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|c| *c == 0).next().unwrap()).into_owned()
}

/// name, prefix, records
fn rendered(fields: &Fields<'_>) -> (String, String, Vec<String>) {
    let mut out = Vec::new();
    append(&mut out, fields).unwrap();
    let (records, header) = split(&out);
    (text(&header[..100]), text(&header[345..500]), records)
}

#[test]
fn the_plain_header_is_byte_for_byte_gos() {
    let mut out = Vec::new();
    append(&mut out, &Fields { size: 5, mtime: 1_700_000_000, uid: 1000, gid: 100, ..fields(b"etc/passwd") })
        .unwrap();
    let mut expected = [0_u8; 512];
    for (at, bytes) in [
        (0, &b"etc/passwd"[..]),
        (100, b"0000644\0"),
        (108, b"0001750\0"),
        (116, b"0000144\0"),
        (124, b"00000000005\0"),
        (136, b"14524770400\0"),
        (148, b"......\0 "),
        (156, b"0"),
        (257, b"ustar\x0000"),
        (329, b"0000000\0"),
        (337, b"0000000\0"),
    ] {
        expected[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let sum: u32 = expected
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    expected[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
}

#[test]
fn long_names_are_split_where_they_can_be() {
    let dir = "d".repeat(60);
    let fits = format!("{dir}/{dir}/file");
    assert_eq!(rendered(&fields(fits.as_bytes())), ("file".into(), format!("{dir}/{dir}"), vec![]));
    let directory = format!("{dir}/{dir}/");
    assert_eq!(rendered(&fields(directory.as_bytes())), (format!("{dir}/"), dir.clone(), vec![]));
    let exact = "n".repeat(100);
    assert_eq!(rendered(&fields(exact.as_bytes())), (exact.clone(), String::new(), vec![]));
    let name = "n".repeat(101);
    assert_eq!(rendered(&fields(name.as_bytes())), (exact, String::new(), vec![format!("111 path={name}")]));
    // Split is possible, but another record forces PAX: then the name is in PAX as a whole.
    let (_, prefix, records) = rendered(&Fields { uid: 1 << 21, ..fields(fits.as_bytes()) });
    assert_eq!(prefix, "");
    assert_eq!(records, [format!("136 path={fits}"), "15 uid=2097152".into()]);
}

#[test]
fn records_appear_only_when_needed() {
    let xattrs = Xattrs::from([(b"security.capability".to_vec(), b"\x01\0=x".to_vec())]);
    let long = "l".repeat(101);
    let cases: [(Fields<'_>, &[&str]); 13] = [
        (Fields { uid: 2_097_151, gid: 2_097_151, ..fields(b"f") }, &[]),
        (Fields { gid: 2_097_152, ..fields(b"f") }, &["15 gid=2097152"]),
        (Fields { size: (8 << 30) - 1, ..fields(b"f") }, &[]),
        (Fields { size: 8 << 30, ..fields(b"f") }, &["19 size=8589934592"]),
        (Fields { mtime: (8 << 30) - 1, ..fields(b"f") }, &[]),
        (Fields { mtime: 8 << 30, ..fields(b"f") }, &["20 mtime=8589934592"]),
        (Fields { mtime: -1, ..fields(b"f") }, &["12 mtime=-1"]),
        (Fields { mtime: 7, mtime_nanos: 250_000_000, ..fields(b"f") }, &["14 mtime=7.25"]),
        (fields("ä".as_bytes()), &["11 path=ä"]),
        (Fields { link: "ö".as_bytes(), ..fields(b"f") }, &["15 linkpath=ö"]),
        (Fields { link: &long.as_bytes()[..100], ..fields(b"f") }, &[]),
        (
            Fields { xattrs: Some(&xattrs), ..fields(b"f") },
            &["41 SCHILY.xattr.security.capability=\u{1}\0=x"],
        ),
        (Fields { dev: (4095, (1 << 20) - 1), type_flag: b'3', ..fields(b"f") }, &[]),
    ];
    for (fields, expected) in cases {
        assert_eq!(rendered(&fields).2, expected, "{}", String::from_utf8_lossy(fields.name));
    }
}

#[test]
fn record_lengths_count_themselves() {
    for len in [1, 85, 86, 87, 88, 90, 980, 985, 986, 987, 990, 9980] {
        let mut out = Vec::new();
        append_record(&mut out, b"path", &vec![b'x'; len]);
        let written: usize = text(&out).split(' ').next().unwrap().parse().unwrap();
        assert_eq!(written, out.len(), "value of {len} bytes");
    }
}

#[test]
fn extended_headers_have_fixed_names() {
    for (name, expected) in [
        ("ä", "PaxHeaders.0/"),
        ("dir/é.txt", "dir/PaxHeaders.0/.txt"),
        ("dir/é/", "dir//PaxHeaders.0"),
        ("./", "PaxHeaders.0"),
    ] {
        let mut out = Vec::new();
        append(&mut out, &Fields { uid: u32::MAX - 1, ..fields(name.as_bytes()) }).unwrap();
        assert_eq!(text(&out[..100]), expected.trim_end_matches('/'), "{name}");
        assert_eq!(
            &out[100..136],
            b"0000000\x000000000\x000000000\x00".iter().chain(&out[124..136]).copied().collect::<Vec<_>>()
        );
    }
}

#[test]
fn what_no_header_can_hold_is_refused() {
    let bad = Xattrs::from([(b"user.a=b".to_vec(), vec![])]);
    assert!(append(&mut Vec::new(), &Fields { xattrs: Some(&bad), ..fields(b"f") }).is_err());
    assert!(append(&mut Vec::new(), &Fields { dev: (0, 1 << 21), ..fields(b"f") }).is_err());
}
