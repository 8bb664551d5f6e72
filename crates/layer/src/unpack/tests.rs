use super::*;
use dirs::{DirMeta, Dirs};

#[test]
fn held_directory_names_are_bounded() {
    let mut dirs = Dirs::default();
    let mut failed = None;
    for i in 0..20_000 {
        let path = TreePath::clamped(format!("{i}/{}", "y".repeat(4000))).unwrap();
        if let Err(error) = dirs.insert(&path, &path, DirMeta::implied()) {
            failed = Some((i, error.to_string()));
            break;
        }
    }
    let (count, message) = failed.expect("20,000 names of 4,000 bytes are too many");
    assert!(count > 16_000 && message.contains("directory names"), "{count}: {message}");
}

#[test]
fn forgetting_a_directory_forgets_what_is_below_and_nothing_else() {
    let path = |text: &str| TreePath::clamped(text).unwrap();
    let mut dirs = Dirs::default();
    for name in ["a", "a/b", "a/b/c", "a-b", "ab", "b"] {
        dirs.insert(&path(name), &path(name), DirMeta::implied()).unwrap();
    }
    dirs.forget(&path("a"));
    let left: Vec<String> = dirs.by_path.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["/a-b", "/ab", "/b"]);
}
