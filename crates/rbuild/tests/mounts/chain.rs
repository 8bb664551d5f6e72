//! Roots of more layers than overlayfs mounts.

use crate::bed::bed;
use std::fmt::Write as _;
use std::fs;

/// Overlayfs takes 500 directories; an image may have more.
#[test]
fn a_chain_of_600_layers_can_be_run_and_copied_into() {
    let Some(bed) = bed("a_chain_of_600_layers_can_be_run_and_copied_into") else { return };
    bed.write("f", "context");
    let mut text = String::new();
    for n in 0..300 {
        writeln!(text, "COPY <<E /n/f{n}\n{n}\nE\nCOPY --chown={n} <<E /n/last\n{n}\nE").unwrap();
    }
    text.push_str(
        "RUN ls /n | wc -l >/count && cat /n/f0 /n/f299 /n/last >/said && stat -c %u /n/last >>/said && rm /n/f1\n\
         COPY f /n/copied\nRUN cat /n/copied >>/said && test ! -e /n/f1",
    );
    let files = bed.files(&text, &[]);
    assert_eq!(fs::read_to_string(files.join("count")).unwrap().trim(), "301");
    assert_eq!(fs::read_to_string(files.join("said")).unwrap(), "0\n299\n299\n299\ncontext");
    assert!(!files.join("n/f1").exists() && files.join("n/f2").exists());
}
