//! Selecting from a build context on disk.

use super::*;
use rbuild_context::{Ignore, LocalContext};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

/// A-097, A-105, A-128, A-130: what .dockerignore excludes does not exist; the rule is named when it is asked for.
#[test]
fn a_context_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("src/deep")).unwrap();
    for (name, text) in
        [("src/main.c", "int main;"), ("src/deep/a.log", "log"), ("secret.json", "{}"), ("keep.log", "")]
    {
        fs::write(at(name), text).unwrap();
    }
    fs::set_permissions(at("src/main.c"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::hard_link(at("src/main.c"), at("src/other.c")).unwrap();
    symlink("/src/main.c", at("link.c")).unwrap();
    let ignore = Arc::new(Ignore::parse(".dockerignore", b"# logs\n**/*.log\n!keep.log\n*.json\n").unwrap());
    let context = LocalContext::open(dir.path(), Some(ignore.clone()), None).unwrap().reset_owner(true);
    let excluded_by = |path: &TreePath| {
        let exists = context.unfiltered().lstat(path).is_ok_and(|meta| meta.is_some());
        ignore
            .rule(path)
            .filter(|_| exists)
            .map(|rule| format!("{}:{} `{}`", ignore.file(), rule.line, rule.pattern))
    };
    let options = SelectOptions { excluded_by: Some(&excluded_by), ..SelectOptions::default() };

    let all = select(&context, ".", &options).unwrap();
    assert_eq!(listed(&all), ["/keep.log", "/link.c", "/src", "/src/deep", "/src/main.c", "/src/other.c"]);
    let main = &all.roots[0].entries[4];
    assert_eq!((main.meta.mode, main.meta.uid, main.meta.size), (0o750, 0, 9));
    assert_eq!(main.data.as_ref().unwrap().digest, Some(rbuild_oci::Digest::of("int main;")));
    assert_eq!(all.roots[0].entries[5].hard_link_to, Some(path("src/main.c")));
    let layer =
        place(&[select(&context, "link.c", &options).unwrap()], "/n/", &MemTree::new(), &super::options())
            .unwrap();
    assert_eq!(layer[1].path, path("n/link.c"));

    let error = |source: &str| select(&context, source, &options).unwrap_err().to_string();
    assert_eq!(error("secret.json"), r#""/secret.json": not found: excluded by .dockerignore:4 `*.json`"#);
    assert_eq!(error("other.json"), r#""/other.json": not found"#);
    assert_eq!(error("src/mian.c"), r#""/src/mian.c": not found (did you mean /src/main.c?)"#);
    assert!(select(&context, "*.json", &options).unwrap().roots.is_empty());
}
