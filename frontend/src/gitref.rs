//! The grammar of git repositories in ADD and as build contexts (A-117, D-003):
//! `https://host/repo.git#ref:subdir`, `git@host:repo`, `ssh://…`, `git://…`, `github.com/owner/repo`, and the query
//! form `?ref=…&subdir=…`.

use crate::quote::go_quote;
use rbuild_ir::{GitOp, GitTime, RemoteUrl, percent_decoded};

/// A repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitRef {
    /// The URL without query and fragment; `github.com/…` stays without a scheme.
    pub remote: RemoteUrl,
    /// Last component of the path without `.git`.
    pub short_name: String,
    /// Branch, tag or commit; empty for the remote's HEAD.
    pub reference: String,
    /// Commit id, or its beginning, that has to be found.
    pub checksum: String,
    /// Directory inside the repository.
    pub subdir: String,
    /// It could as well be a path: `github.com/…`.
    pub indistinguishable_from_local: bool,
    /// Nothing protects the connection: `http`, `git`.
    pub unencrypted_tcp: bool,
    /// `keep-git-dir=`.
    pub keep_git_dir: Option<bool>,
    /// `submodules=`.
    pub submodules: Option<bool>,
    /// `mtime=`.
    pub mtime: Option<GitTime>,
    /// `fetch-by-commit=`.
    pub fetch_by_commit: bool,
}

/// Why a text is no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitRefError {
    /// It is something else: a path, or a URL of a file.
    #[error("{0}")]
    NotGit(&'static str),
    /// It is a repository, but its query or fragment is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl GitRef {
    /// Reads a source of ADD or a build context.
    ///
    /// # Errors
    /// [`GitRefError::NotGit`] when it is a path or the URL of a file; [`GitRefError::Invalid`] when it is a repository
    /// that is described wrongly.
    pub fn parse(text: &str) -> Result<Self, GitRefError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Err(GitRefError::NotGit("invalid argument"));
        }
        let local = text.starts_with("github.com/");
        let url = if local { split_tail(text.to_owned(), text) } else { parse_url(text)? };
        if matches!(url.scheme, "http" | "https") && !percent_decoded(path_of(&url.remote)).ends_with(".git")
        {
            return Err(GitRefError::NotGit("invalid argument"));
        }
        let last = url.remote.rsplit('/').next().unwrap_or_default();
        let (reference, subdir) = url.fragment.split_once(':').unwrap_or((&url.fragment, ""));
        let mut parsed = Self {
            short_name: last.strip_suffix(".git").unwrap_or(last).to_owned(),
            reference: reference.to_owned(),
            checksum: String::new(),
            subdir: subdir.to_owned(),
            indistinguishable_from_local: local,
            unencrypted_tcp: matches!(url.scheme, "http" | "git"),
            keep_git_dir: None,
            submodules: None,
            mtime: None,
            fetch_by_commit: false,
            remote: RemoteUrl::new(url.remote),
        };
        parsed.read_query(&url.query).map_err(GitRefError::Invalid)?;
        Ok(parsed)
    }

    /// The operation that fetches it. `github.com/…` is reached by https.
    pub fn into_op(self) -> GitOp {
        let remote = match self.indistinguishable_from_local {
            true => RemoteUrl::new(format!("https://{}", self.remote.secret())),
            false => self.remote,
        };
        GitOp {
            remote,
            reference: self.reference,
            checksum: Some(self.checksum).filter(|checksum| !checksum.is_empty()),
            fetch_by_commit: self.fetch_by_commit,
            subdir: crate::paths::join("/", &self.subdir).trim_start_matches('/').to_owned(),
            keep_git_dir: self.keep_git_dir.unwrap_or(false),
            submodules: self.submodules.unwrap_or(true),
            mtime: self.mtime.unwrap_or_default(),
        }
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (form_decoded(key), form_decoded(value));
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(format!("query {} has multiple values", go_quote(&key)));
            }
            pairs.push((key, value));
        }
        let (mut tag, mut branch) = (None, None);
        for (key, value) in pairs {
            let flag = matches!(&*key, "keep-git-dir" | "submodules" | "fetch-by-commit");
            let known =
                matches!(&*key, "ref" | "tag" | "branch" | "subdir" | "checksum" | "commit" | "mtime");
            if !flag && !known {
                return Err(format!("unexpected query {}", go_quote(&key)));
            }
            if value.is_empty() && !flag {
                return Err(format!("query {} has no value", go_quote(&key)));
            }
            match &*key {
                "ref" => agree(&mut self.reference, "ref", value)?,
                "tag" => tag = Some(with_prefix("refs/tags/", value)),
                "branch" => branch = Some(with_prefix("refs/heads/", value)),
                "subdir" => agree(&mut self.subdir, "subdir", value)?,
                "checksum" | "commit" => agree(&mut self.checksum, "checksum", value)?,
                "keep-git-dir" => self.keep_git_dir = Some(boolean(&key, &value)?),
                "submodules" => self.submodules = Some(boolean(&key, &value)?),
                "fetch-by-commit" => self.fetch_by_commit = boolean(&key, &value)?,
                _ => self.mtime = Some(time(&value)?),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".into());
        }
        match tag.or(branch) {
            Some(named) => agree(&mut self.reference, "ref", named),
            None => Ok(()),
        }
    }
}

/// Sets what may be said twice, but not differently.
fn agree(field: &mut String, name: &str, value: String) -> Result<(), String> {
    if !field.is_empty() && *field != value {
        return Err(format!("{name} conflicts: {} vs {}", go_quote(field), go_quote(&value)));
    }
    *field = value;
    Ok(())
}

fn with_prefix(prefix: &str, value: String) -> String {
    if value.starts_with(prefix) { value } else { format!("{prefix}{value}") }
}

/// Go's `ParseBool`; without a value it is yes.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: {}", go_quote(value))),
    }
}

fn time(value: &str) -> Result<GitTime, String> {
    match value {
        "checkout" => Ok(GitTime::Checkout),
        "commit" => Ok(GitTime::Commit),
        _ => Err(format!("invalid mtime value: {} (must be \"checkout\" or \"commit\")", go_quote(value))),
    }
}

/// A URL cut into what matters here.
struct GitUrl {
    scheme: &'static str,
    /// Without query and fragment.
    remote: String,
    query: String,
    fragment: String,
}

fn parse_url(text: &str) -> Result<GitUrl, GitRefError> {
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return parse_scp(text).ok_or(GitRefError::NotGit("unknown protocol"));
    };
    let known = ["http", "https", "ssh", "git"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    let scheme = known.ok_or(GitRefError::NotGit("invalid protocol"))?;
    if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err(GitRefError::NotGit("invalid character in URL"));
    }
    let url = split_tail(format!("{scheme}://{rest}"), "");
    let authority = url.remote[scheme.len() + 3..].split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() || host.starts_with('-') {
        return Err(GitRefError::NotGit("invalid host in URL"));
    }
    Ok(GitUrl { scheme, ..url })
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `user@host:path`.
fn parse_scp(text: &str) -> Option<GitUrl> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let word = |text: &str, extra: &[char]| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(&c))
    };
    if !word(user, &['-', '_']) || !word(host, &['-', '.']) || path.contains('\n') {
        return None;
    }
    Some(GitUrl { scheme: "ssh", ..split_tail(text.to_owned(), text) })
}

/// Cuts query and fragment off. Those of a text that is no URL (`verbatim`) are not encoded.
fn split_tail(text: String, verbatim: &str) -> GitUrl {
    let (rest, fragment) = text.split_once('#').unwrap_or((&text, ""));
    let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
    let fragment = if verbatim.is_empty() { percent_decoded(fragment) } else { fragment.to_owned() };
    GitUrl { scheme: "", remote: remote.to_owned(), query: query.to_owned(), fragment }
}

/// What comes after the host of a URL, with its first slash.
pub(crate) fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.find('/').map_or("", |at| &rest[at..])
}

fn form_decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

#[cfg(test)]
mod tests;
