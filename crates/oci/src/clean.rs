//! Lexical paths, which references within images and build files share.

/// The shortest path lexically equal to `path`, as Go's `filepath.Clean` makes it: without `.`, repeated slashes and, as
/// far as they can be resolved, `..`; `.` for an empty one.
pub fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a//b/./c/..", "a/b"),
            ("/../a", "/a"),
            ("../../a", "../../a"),
            ("a/../..", ".."),
            ("/a/..", "/"),
            ("./.", "."),
        ] {
            assert_eq!(clean_path(path), cleaned, "{path}");
            assert_eq!(clean_path(cleaned), cleaned, "{path}");
        }
    }
}
