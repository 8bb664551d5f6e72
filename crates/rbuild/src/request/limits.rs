//! `--ulimit` and `--shm-size`, with docker's grammar and messages.

use crate::exit::Usage;
use anyhow::Result;
use rbuild_frontend::number::ram_in_bytes;

/// Limits by their names on the command line.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// All limits; of a name that is given twice the last counts, in its first place.
pub(super) fn ulimits(texts: &[String]) -> Result<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for text in texts {
        let limit = ulimit(text)?;
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        match all.iter_mut().find(|other| name(other) == name(&limit)) {
            Some(other) => *other = limit,
            None => all.push(limit),
        }
    }
    Ok(all)
}

/// Says which of these limits (as [`ulimits`] gives them) the machine does not let us have whole.
pub(super) fn beyond(limits: &[String]) -> Vec<String> {
    use rustix::process::{Resource, getrlimit};
    use rustix::thread::{CapabilitySet, capabilities};
    if capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_RESOURCE)) {
        return Vec::new();
    }
    let own = |name: &str| match name {
        "memlock" => getrlimit(Resource::Memlock).maximum,
        "nofile" => getrlimit(Resource::Nofile).maximum,
        "nproc" => getrlimit(Resource::Nproc).maximum,
        "stack" => getrlimit(Resource::Stack).maximum,
        _ => None,
    };
    let warning = |limit: &String| {
        let (name, values) = limit.split_once('=')?;
        let hard = values.rsplit(':').next()?;
        let own = own(name)?;
        let above = hard.parse::<u64>().map_or(true, |hard| hard > own);
        above.then(|| {
            format!("--ulimit {limit}: steps get {own}, which is all that rbuild has itself (raising it takes CAP_SYS_RESOURCE)")
        })
    };
    limits.iter().filter_map(warning).collect()
}

/// `name=soft[:hard]` as `name=soft:hard`; -1 is unlimited.
pub(super) fn ulimit(text: &str) -> Result<String> {
    let fail = |message: String| Err(Usage::new(format!("invalid --ulimit: {message}")).into());
    let Some((name, limits)) = text.split_once('=') else {
        return fail(format!("invalid ulimit argument: {text}"));
    };
    if !ULIMITS.contains(&name) {
        return fail(format!("invalid ulimit type: {name}"));
    }
    let values: Vec<&str> = limits.split(':').collect();
    let (soft, hard) = match values[..] {
        [both] => (both, both),
        [soft, hard] => (soft, hard),
        _ => {
            let why = "can only have up to two, `soft[:hard]`";
            return fail(format!("too many limit value arguments - {limits}, {why}"));
        }
    };
    let (hard, soft) = match (hard.parse::<i64>(), soft.parse::<i64>()) {
        (Ok(hard), Ok(soft)) => (hard, soft),
        (hard_value, _) => {
            let wrong = if hard_value.is_err() { hard } else { soft };
            let digits = wrong.strip_prefix(['-', '+']).unwrap_or(wrong);
            let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let why = if numeric { "value out of range" } else { "invalid syntax" };
            return fail(format!("strconv.ParseInt: parsing {wrong:?}: {why}"));
        }
    };
    let order = "ulimit soft limit must be less than or equal to hard limit";
    match (soft, hard) {
        (_, -1) => {}
        (-1, _) => return fail(format!("{order}: soft: -1 (unlimited), hard: {hard}")),
        _ if soft > hard => return fail(format!("{order}: {soft} > {hard}")),
        _ => {}
    }
    Ok(format!("{name}={soft}:{hard}"))
}

/// Sizes with the units b, k, m, g, t, p (powers of 1024).
pub(super) fn bytes(text: &str) -> Result<u64> {
    let size = ram_in_bytes(text)
        .and_then(|size| u64::try_from(size).map_err(|_| format!("invalid size: '{text}'")));
    size.map_err(|message| {
        Usage::new(format!("{message}: expected a number with an optional unit b, k, m or g")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::path::PathBuf;

    /// Replays a table of the conformance data: `check` gives why an entry differs. Fails below 99 %.
    fn replay(name: &str, check: impl Fn(&Value) -> Option<String>) {
        #[expect(clippy::disallowed_methods, reason = "a test is told by the environment where the data is")]
        let root = std::env::var_os("RBUILD_CONFORMANCE").map(PathBuf::from);
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance");
        let text = match std::fs::read(root.unwrap_or_else(|| beside.into()).join(name)) {
            Ok(text) => text,
            Err(error) => return println!("skipped: {name}: {error}"),
        };
        let entries: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let failures: Vec<String> = entries.iter().filter_map(check).collect();
        failures.iter().for_each(|failure| println!("  differs: {failure}"));
        let passed = entries.len() - failures.len();
        println!("{name}: {} run, {passed} passed, 0 skipped", entries.len());
        assert!(passed > 0 && passed * 100 >= entries.len() * 99);
    }

    /// D-015
    #[test]
    fn one_limit() {
        replay("golden/ulimits.json", |entry| {
            let text = entry["ulimit"].as_str().unwrap();
            let got = ulimit(text).map_err(|error| error.to_string());
            let expected = match entry["error"].as_str() {
                Some(error) => Err(format!("invalid --ulimit: {error}")),
                None => {
                    Ok(format!("{}={}:{}", entry["name"].as_str().unwrap(), entry["soft"], entry["hard"]))
                }
            };
            (got != expected).then(|| format!("{text}: expected {expected:?}, got {got:?}"))
        });
    }

    /// D-015: as in docker, where they are a map.
    #[test]
    fn the_last_limit_of_a_name_counts() {
        let texts = ["nofile=1:2", "core=0", "nofile=5"].map(str::to_owned);
        assert_eq!(ulimits(&texts).unwrap(), ["nofile=5:5", "core=0:0"]);
    }

    /// D-015
    #[test]
    fn sizes_of_shm() {
        replay("golden/ram-in-bytes.json", |entry| {
            let text = entry["size"].as_str().unwrap();
            let got = bytes(text);
            let same = match (&got, entry["error"].as_str()) {
                (Ok(got), None) => entry["bytes"] == *got,
                (Err(error), Some(expected)) => error.to_string().starts_with(expected),
                _ => false,
            };
            (!same).then(|| format!("{entry}: got {got:?}"))
        });
    }
}
