//! Sources of ADD that are fetched: URLs and git repositories (A-115 to A-119).

use super::vertices::Inputs;
use super::{Lowering, Outcome};
use crate::ast::LineRange;
use crate::gitref::{GitRef, GitRefError, path_of};
use rbuild_ir::{CopySource, HttpOp, Op, RemoteUrl, percent_decoded};
use rbuild_oci::Digest;

/// Permission bits of a fetched file.
const FILE_MODE: u32 = 0o600;
/// Name of a file whose URL has no path.
const UNNAMED: &str = "__unnamed__";

/// Kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remote {
    /// A path in the context.
    No,
    /// A file behind http or https.
    Http,
    /// A git repository.
    Git,
}

/// Tells by its text what a source is. `github.com/…` without a scheme is a path: it could be a directory.
pub(crate) fn classify(source: &str) -> Remote {
    match GitRef::parse(source) {
        Ok(parsed) if parsed.indistinguishable_from_local => Remote::No,
        Ok(_) | Err(GitRefError::Invalid(_)) => Remote::Git,
        Err(GitRefError::NotGit(_)) if source.starts_with("http://") || source.starts_with("https://") => {
            Remote::Http
        }
        Err(GitRefError::NotGit(_)) => Remote::No,
    }
}

/// What ADD's flags say about fetched sources.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteFlags<'a> {
    pub(super) checksum: Option<&'a str>,
    pub(super) keep_git_dir: Option<bool>,
}

/// The operation that fetches `source`, and the path of what is copied out of its root. `None` for a path.
pub(super) fn fetch(source: &str, flags: RemoteFlags<'_>) -> Outcome<Option<(Op, String)>> {
    match classify(source) {
        Remote::No => Ok(None),
        Remote::Http => {
            let op = http(source, flags.checksum)?;
            let path = format!("/{}", without_wildcards(&op.filename));
            Ok(Some((Op::Http(op), path)))
        }
        Remote::Git => {
            let mut op = GitRef::parse(source).map_err(|error| error.to_string())?.into_op();
            if let Some(checksum) = flags.checksum {
                if op.checksum.as_ref().is_some_and(|own| own != checksum) {
                    return Err(format!(
                        "checksum conflicts: the flag says {checksum}, the URL {}",
                        op.checksum.unwrap_or_default()
                    ));
                }
                op.checksum = Some(checksum.to_owned());
            }
            op.keep_git_dir = flags.keep_git_dir.unwrap_or(op.keep_git_dir);
            check_git(&op)?;
            Ok(Some((Op::Git(op), "/".to_owned())))
        }
    }
}

/// The operation of [`fetch`] alone.
pub(crate) fn fetched_source(
    source: &str,
    checksum: Option<&str>,
    keep_git_dir: Option<bool>,
) -> Result<Option<Op>, String> {
    Ok(fetch(source, RemoteFlags { checksum, keep_git_dir })?.map(|(op, _)| op))
}

fn http(source: &str, checksum: Option<&str>) -> Outcome<HttpOp> {
    let checksum = checksum.map(parse_digest).transpose()?;
    Ok(HttpOp {
        url: RemoteUrl::new(source),
        checksum,
        filename: filename(source),
        mode: FILE_MODE,
        uid: 0,
        gid: 0,
    })
}

/// `sha256:<hex>`, in the words of BuildKit's digest library.
fn parse_digest(text: &str) -> Outcome<Digest> {
    let Some((algorithm, hex)) = text.split_once(':').filter(|(algorithm, _)| !algorithm.is_empty()) else {
        return Err("invalid checksum digest format".into());
    };
    if algorithm != "sha256" {
        return Err("unsupported digest algorithm".into());
    }
    if hex.len() != 64 {
        return Err("invalid checksum digest length".into());
    }
    text.parse().map_err(|_| "invalid checksum digest format".into())
}

/// What git gets on its command line must be a name and nothing else.
fn check_git(op: &rbuild_ir::GitOp) -> Outcome {
    if !rbuild_ir::is_reference(&op.reference) {
        return Err(format!("invalid git ref {}", crate::quote::go_quote(&op.reference)));
    }
    match &op.checksum {
        Some(text) if !rbuild_ir::is_commit_prefix(text) => {
            Err(format!("invalid checksum {}, expected a commit id in hex", crate::quote::go_quote(text)))
        }
        _ => Ok(()),
    }
}

/// The last component of the URL's path.
pub fn filename(url: &str) -> String {
    let path = percent_decoded(path_of(url));
    match crate::paths::base(&path) {
        "." | ".." | "/" => UNNAMED.to_owned(),
        name if name.contains('\0') => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

/// A file name as a source that means just itself.
fn without_wildcards(name: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | '\\');
    name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

impl Lowering<'_, '_> {
    /// The vertex of a fetched source, and what is copied of it.
    pub(super) fn fetched(
        &mut self,
        node: usize,
        (op, path): (Op, String),
        name: &str,
        lines: LineRange,
        inputs: &mut Inputs,
    ) -> CopySource {
        let stage = self.plan.stage_key(node);
        let vertex = self.vertices.add(op, None, &[], name.to_owned(), stage, lines);
        CopySource::Path { from: inputs.source(&super::state::Root::Vertex(vertex)), path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_the_last_component() {
        for (url, name) in [
            ("https://h/a/b.tar.gz", "b.tar.gz"),
            ("https://h/a/b%20c?x=/y#/z", "b c"),
            ("https://h/a/", "a"),
            ("https://h/", UNNAMED),
            ("https://h", UNNAMED),
            ("https://h?x", UNNAMED),
            ("https://h/a/..", UNNAMED),
            ("https://h/a%2F..", UNNAMED),
            ("https://h/%2e%2e%2fetc%2fpasswd", "passwd"),
            ("https://h/a%00b", UNNAMED),
        ] {
            assert_eq!(filename(url), name, "{url}");
        }
    }

    #[test]
    fn checksums_of_files() {
        let good = format!("sha256:{}", "0".repeat(64));
        assert!(parse_digest(&good).is_ok());
        for (text, error) in [
            ("md5:abc", "unsupported digest algorithm"),
            ("abc", "invalid checksum digest format"),
            (":abc", "invalid checksum digest format"),
            ("sha256:abc", "invalid checksum digest length"),
        ] {
            assert_eq!(parse_digest(text).unwrap_err(), error);
        }
    }

    #[test]
    fn names_with_wildcards_mean_themselves() {
        assert_eq!(without_wildcards(r"a*b?c[d\e"), r"a\*b\?c\[d\\e");
    }
}
