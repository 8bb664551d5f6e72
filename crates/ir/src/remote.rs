//! Sources that are fetched: files behind URLs and git repositories.

use rbuild_oci::Digest;
use serde::{Serialize, Serializer};
use std::fmt;

/// What stands in the place of user names and passwords.
const REDACTED: &str = "xxxxx";

/// A URL that may carry credentials. Whatever shows or encodes it shows it without them; only [`RemoteUrl::secret`]
/// gives the whole of it.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteUrl(String);

impl RemoteUrl {
    /// Takes a URL as it is.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its credentials: for the request itself, never for messages, keys or files.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// The URL with `xxxxx` for user name and password. The user of an SSH URL is no secret.
    pub fn redacted(&self) -> String {
        redacted(&self.0)
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteUrl({:?})", self.redacted())
    }
}

impl Serialize for RemoteUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

/// `text` with the credentials of every `scheme://user:password@host` in it replaced by `xxxxx`.
pub fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace());
        let (authority, tail) = after.split_at(end.unwrap_or(after.len()));
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let ssh = before.to_ascii_lowercase().ends_with("ssh://");
                match user.split_once(':') {
                    Some((name, _)) if ssh => out.push_str(&format!("{name}:{REDACTED}")),
                    Some(_) => out.push_str(&format!("{REDACTED}:{REDACTED}")),
                    None if ssh => out.push_str(user),
                    None => out.push_str(REDACTED),
                }
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// A file behind an `http` or `https` URL. Its root holds one file, `filename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpOp {
    /// Where it is.
    pub url: RemoteUrl,
    /// Digest that its bytes must have.
    pub checksum: Option<Digest>,
    /// One path component.
    pub filename: String,
    /// Permission bits of the file.
    pub mode: u32,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
}

/// What the files of a checkout are dated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GitTime {
    /// The time they were checked out at.
    #[default]
    Checkout,
    /// The commit's time.
    Commit,
}

/// A tree of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GitOp {
    /// `https://…`, `http://…`, `git://…`, `ssh://…` or `user@host:path`.
    pub remote: RemoteUrl,
    /// Branch, tag, `refs/…` or a whole commit id; empty is the remote's HEAD.
    pub reference: String,
    /// The commit id, or the beginning of it, that `reference` must lead to.
    pub checksum: Option<String>,
    /// Fetch the commit that `checksum` names rather than `reference`.
    pub fetch_by_commit: bool,
    /// The directory that becomes the root; empty is the whole tree.
    pub subdir: String,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are checked out.
    pub submodules: bool,
    /// Modification times.
    pub mtime: GitTime,
}

/// Whether git can be given this as a reference: a commit id, a branch, a tag or `refs/…` by git's own rules, so that it
/// is neither an option nor a pattern nor a path. Empty is the remote's HEAD.
pub fn is_reference(text: &str) -> bool {
    let bad = |c: char| c.is_control() || " ~^:?*[\\\"'`$;|&<>(){}".contains(c);
    text.is_empty()
        || !(text.len() > MAX_REFERENCE
            || text.starts_with(['-', '/', '+'])
            || text.ends_with(['/', '.'])
            || text == "@"
            || text.contains(bad)
            || ["..", "//", "@{"].iter().any(|part| text.contains(part))
            || text.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock")))
}

/// Whether this can be the beginning of a commit id.
pub fn is_commit_prefix(text: &str) -> bool {
    (MIN_COMMIT..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether this is a whole commit id (SHA-1 or SHA-256).
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_commit_prefix(text)
}

/// Longest reference, in bytes.
const MAX_REFERENCE: usize = 1024;
/// Shortest beginning of a commit id that is taken for one.
const MIN_COMMIT: usize = 4;

/// `%41` becomes `A`; what is no such sequence stays, bytes that are no UTF-8 become U+FFFD.
pub fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let hex = hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (url, shown) in [
            ("https://h/a.git", "https://h/a.git"),
            ("https://user:pw@h/a.git", "https://xxxxx:xxxxx@h/a.git"),
            ("https://token@h:1/a", "https://xxxxx@h:1/a"),
            ("https://a:p@ss@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://h/a@b", "https://h/a@b"),
            ("HTTP://u:p@h", "HTTP://xxxxx:xxxxx@h"),
            ("ssh://git@h/a", "ssh://git@h/a"),
            ("ssh://git:pw@h/a", "ssh://git:xxxxx@h/a"),
            ("git@h:a.git", "git@h:a.git"),
            (
                "ADD https://u:p@h/a http://v:q@i/b /c",
                "ADD https://xxxxx:xxxxx@h/a http://xxxxx:xxxxx@i/b /c",
            ),
            ("://", "://"),
            ("", ""),
        ] {
            assert_eq!(redacted(url), shown);
            let url = RemoteUrl::new(url);
            assert_eq!(serde_json::to_string(&url).unwrap(), serde_json::to_string(shown).unwrap());
            assert!(format!("{url:?}{url}").contains(shown));
        }
    }

    #[test]
    fn references_are_names() {
        for good in ["", "main", "v1.0", "refs/heads/a/b", "release/1.2", "HEAD", "feature-x_y@z", "é"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "-x",
            "--upload-pack=touch /tmp/x",
            "a b",
            "a..b",
            "a^{commit}",
            "a~1",
            "a:b",
            "*",
            "/a",
            "a/",
            "a//b",
            "@",
            "@{1}",
            ".a",
            "a/.b",
            "x.lock",
            "a\nb",
            "+a:b",
            "$(x)",
            "a.",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
        assert!(!is_reference(&"x".repeat(2000)));
        for (text, whole, prefix) in [
            ("0123456789012345678901234567890123456789", true, true),
            ("deadbeef", false, true),
            ("abc", false, false),
            ("DEADBEEF", false, false),
            ("xyzw", false, false),
        ] {
            assert_eq!((is_commit(text), is_commit_prefix(text)), (whole, prefix), "{text}");
        }
    }
}
