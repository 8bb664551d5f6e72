//! Whether a source of ADD or COPY is a URL or a git repository rather than a path.

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
    let Some((scheme, rest)) = source.split_once("://") else {
        return if is_scp_like(source) { Remote::Git } else { Remote::No };
    };
    match scheme.to_ascii_lowercase().as_str() {
        "git" | "ssh" => Remote::Git,
        "http" | "https" => {
            let path = rest.split(['#', '?']).next().unwrap_or_default();
            let path = path.split_once('/').map_or("", |(_, path)| path);
            match path.ends_with(".git") {
                true => Remote::Git,
                false if scheme == "http" || scheme == "https" => Remote::Http,
                false => Remote::No,
            }
        }
        _ => Remote::No,
    }
}

/// `user@host:path`.
fn is_scp_like(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let word = |text: &str, extra: &[char]| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(&c))
    };
    word(user, &['-', '_']) && word(host, &['-', '.'])
}
