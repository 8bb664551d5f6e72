//! Lexical paths: Go's `path.Clean` and what WORKDIR and COPY make of it.

pub use rbuild_oci::clean_path as clean;

/// `parent/path`, cleaned.
pub fn join(parent: &str, path: &str) -> String {
    clean(&format!("{parent}/{path}"))
}

/// The last element; `/` of a root and `.` of an empty path, as in Go.
pub fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Makes `path` absolute below `parent`. An absolute path stays as it was written, a relative one is joined and
/// cleaned; `keep_slash` keeps a final `/` or `/.`.
pub fn normalize(parent: &str, path: &str, keep_slash: bool) -> String {
    let parent = if parent.starts_with('/') { parent.to_owned() } else { join("/", parent) };
    let mut out = match path {
        "" => parent,
        path if path.starts_with('/') => path.to_owned(),
        path => join(&parent, path),
    };
    if keep_slash {
        if path.ends_with('/') && !out.ends_with('/') {
            out.push('/');
        } else if path.ends_with("/.") {
            if out != "/" {
                out.push('/');
            }
            out.push('.');
        }
    }
    out
}

/// The directory that `WORKDIR path` gives when `current` was the directory before.
pub fn workdir(current: &str, path: &str) -> String {
    normalize(current, path, false)
}

/// Destination of a COPY in the directory `cwd`, as BuildKit normalises it: relative ones are cleaned.
pub fn copy_dest(cwd: &str, dest: &str) -> String {
    normalize(cwd, dest, true)
}

/// The same, cleaned; a final `/` says that it has to be a directory, as an empty one and `.` do.
pub fn copy_dest_clean(cwd: &str, dest: &str) -> String {
    let directory = matches!(dest, "" | ".") || dest.ends_with('/') || dest.ends_with("/.");
    let mut out = clean(&copy_dest(cwd, dest));
    if directory && out != "/" {
        out.push('/');
    }
    out
}

/// A source of a COPY: below the root of its tree.
pub fn copy_source(path: &str) -> String {
    normalize("/", path, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_like_go() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/..", "a/b"),
            ("/../a", "/a"),
            ("../a", "../a"),
            ("a/../..", ".."),
            ("/a/..", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!((base("/a/b/"), base("/"), base(""), base("x")), ("b", "/", ".", "x"));
        for (dest, cleaned) in [("a/.", "/w/a/"), ("/a//b", "/a/b"), (".", "/w/"), ("", "/w/"), ("..", "/")] {
            assert_eq!(copy_dest_clean("/w", dest), cleaned, "{dest}");
        }
    }
}
