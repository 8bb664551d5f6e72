//! `--cgroup-parent`.

use std::path::PathBuf;

/// The path below the root of a hierarchy.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    // The systemd form of docker and BuildKit, `x.slice:prefix:`, names a slice too.
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let is_slice = name.ends_with(".slice") && !name.contains('/');
    if is_slice && (rest.is_empty() || rest.ends_with(':')) {
        return slice(name);
    }
    if text.contains('\0') {
        return Err(format!("invalid cgroup parent {text:?}: it contains NUL"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(format!("invalid cgroup parent {text:?}: it must not contain `..`"));
    }
    Ok(parts.into_iter().collect())
}

/// systemd's rule: every dash is a level, so `a-b.slice` lies in `a.slice`; `-.slice` is the root.
fn slice(name: &str) -> Result<PathBuf, String> {
    let stem = name.strip_suffix(".slice").unwrap_or(name);
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    if stem.split('-').any(str::is_empty) {
        return Err(format!("invalid cgroup parent {name:?}: no slice of systemd has this name"));
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}
