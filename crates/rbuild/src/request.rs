//! What was typed → what it means.

mod cache;
mod confidential;
pub(crate) mod history;
mod limits;
pub(crate) mod mounts;
mod outputs;
mod platforms;
mod resources;

use crate::args::BuildArgs;
use crate::exit::Usage;
use anyhow::{Context as _, Result};
use confidential::confidential;
use limits::bytes;
use rbuild_build::{
    BuildRequest, ContextSource, DockerfileSource, Entitlement, LayoutImage, NamedContext, NetworkMode,
    NoCache, RemoteUrl,
};
use rbuild_frontend::gitref::{GitRef, GitRefError};
use rbuild_oci::Reference;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A request, and what belongs to it while it runs.
pub(crate) struct Prepared {
    pub(crate) request: BuildRequest,
    /// Lines to show before the build: ignored flags and the like.
    pub(crate) warnings: Vec<String>,
    /// Holds a context that came on standard input.
    _spool: Option<File>,
}

/// Resolves the command line against the environment and the file system.
pub(crate) fn prepare(args: &BuildArgs) -> Result<Prepared> {
    let (context, dockerfile, spool) = sources(args)?;
    let mut warnings = legacy_warnings(args);
    let build_args = build_args(args, &mut warnings)?;
    let platforms = platforms::platforms(&args.platform)?;
    let index = platforms::makes_index(&build_args, &platforms)?;
    let outputs = outputs::outputs(&args.output)?;
    let request = BuildRequest {
        context,
        dockerfile,
        named_contexts: named_contexts(&args.build_context, &mut warnings)?,
        tags: args.tag.iter().map(|text| tag(text)).collect::<Result<_>>()?,
        build_args,
        labels: args.label.iter().map(|text| key_value(text)).collect(),
        target: args.target.clone().filter(|target| !target.is_empty()),
        platforms,
        index,
        no_cache: no_cache(args),
        pull: args.pull.unwrap_or(false),
        offline: args.offline,
        locked: args.locked,
        lock_file: args.lock_file.clone(),
        max_resolution_age: args.max_resolution_age.as_deref().map(duration).transpose()?.unwrap_or_default(),
        push: args.push,
        outputs: outputs.outputs,
        network: network(&args.network)?,
        extra_hosts: extra_hosts(&args.add_host)?,
        ulimits: limits::ulimits(&args.ulimit)?,
        shm_size: args.shm_size.as_deref().map(bytes).transpose()?.filter(|size| *size > 0),
        cgroup: resources::cgroup(args)?,
        entitlements: entitlements(args)?,
        confidential: confidential(&args.secret, &args.ssh, &mut warnings)?,
        max_parallelism: args.max_parallelism,
        stat_cache: !args.no_stat_cache,
        context_modes: args.context_modes.into(),
        compression: outputs.compression,
        cache_from: cache::cache_imports(&args.cache_from)?,
        cache_to: cache::cache_exports(&args.cache_to)?,
        cache_export_budget: cache::budget(args.cache_export_budget.as_deref())?,
        cache_mounts_from: mounts::imports("--cache-mounts-from", &args.cache_mounts_from)?,
        cache_mounts_to: mounts::exports("--cache-mounts-to", &args.cache_mounts_to)?,
        load: args.load,
        rewrite_timestamp: outputs.rewrite_timestamp,
    };
    warnings.extend(limits::beyond(&request.ulimits));
    if request.push && request.tags.is_empty() {
        return Err(Usage::new("tag is needed when pushing to registry: add -t NAME").into());
    }
    Ok(Prepared { request, warnings, _spool: spool })
}

type Sources = (ContextSource, DockerfileSource, Option<File>);

fn sources(args: &BuildArgs) -> Result<Sources> {
    let Some(context) = args.context.as_deref() else {
        return Err(Usage::new(r#"please specify build context (e.g. "." for the current directory)"#).into());
    };
    let file_is_stdin = args.file.as_deref() == Some(OsStr::new("-"));
    if context == "-" {
        if file_is_stdin {
            return Err(Usage::new(
                "invalid argument: can't use stdin for both build context and dockerfile",
            )
            .into());
        }
        return context_from_stdin(args.file.as_deref());
    }
    let context = match context.to_str().and_then(remote) {
        Some(url) => ContextSource::Remote(url),
        None => ContextSource::Directory(directory(context)?),
    };
    let dockerfile = match args.file.as_deref() {
        None => DockerfileSource::Default,
        Some(_) if file_is_stdin => {
            let mut text = Vec::new();
            std::io::stdin()
                .lock()
                .take(MAX_DOCKERFILE + 1)
                .read_to_end(&mut text)
                .context("reading the Dockerfile from standard input")?;
            if text.len() as u64 > MAX_DOCKERFILE {
                return Err(Usage::new("the Dockerfile on standard input is larger than 64 MiB").into());
            }
            DockerfileSource::Text { name: "<stdin>".into(), text }
        }
        Some(file) => match file.to_str().filter(|text| is_url(text)) {
            Some(url) => DockerfileSource::Url(RemoteUrl::new(url)),
            None => DockerfileSource::Path(PathBuf::from(file)),
        },
    };
    Ok((context, dockerfile, None))
}

fn directory(context: &OsStr) -> Result<PathBuf> {
    let path = PathBuf::from(context);
    if path.is_dir() {
        return Ok(path);
    }
    let reason = if path.exists() { "is not a directory" } else { "not found" };
    Err(Usage::new(format!("unable to prepare context: path \"{}\" {reason}", path.display())).into())
}

/// A Dockerfile on standard input may be this long; whatever is longer is no Dockerfile.
const MAX_DOCKERFILE: u64 = 64 << 20;

/// D-003: a repository or a URL. What could as well be a path is one if it exists.
fn remote(text: &str) -> Option<RemoteUrl> {
    let fetched = match GitRef::parse(text) {
        Ok(parsed) => !parsed.indistinguishable_from_local || !Path::new(text).exists(),
        Err(GitRefError::Invalid(_)) => true,
        Err(GitRefError::NotGit(_)) => is_url(text),
    };
    fetched.then(|| RemoteUrl::new(text))
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// D-001: an archive is the context; anything else is a Dockerfile with an empty context.
fn context_from_stdin(file: Option<&OsStr>) -> Result<Sources> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Usage::new(
            "standard input is a terminal: pipe a Dockerfile or a tar archive into `rbuild -`",
        )
        .into());
    }
    let mut start = Vec::new();
    (&mut stdin).take(512).read_to_end(&mut start).context("reading the context from standard input")?;
    if !looks_like_archive(&start) {
        if file.is_some() {
            let problem = "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles";
            return Err(Usage::new(problem).into());
        }
        let mut text = start;
        stdin
            .take(MAX_DOCKERFILE)
            .read_to_end(&mut text)
            .context("reading the Dockerfile from standard input")?;
        let dockerfile = DockerfileSource::Text { name: "<stdin>".into(), text };
        return Ok((ContextSource::Empty, dockerfile, None));
    }
    // Without a name, so that it is gone however this process ends.
    let mut spool = tempfile::tempfile().context("creating a file for the context from standard input")?;
    spool
        .write_all(&start)
        .and_then(|()| std::io::copy(&mut stdin, &mut spool).map(drop))
        .context("spooling the context from standard input")?;
    let dockerfile =
        file.map_or(DockerfileSource::Default, |file| DockerfileSource::Path(PathBuf::from(file)));
    let path = PathBuf::from(format!("/proc/self/fd/{}", spool.as_raw_fd()));
    Ok((ContextSource::Archive(path), dockerfile, Some(spool)))
}

/// gzip, bzip2, xz and zstd by their magic numbers, tar by `ustar` or by a header's checksum field.
fn looks_like_archive(start: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    if MAGIC.iter().any(|magic| start.starts_with(magic)) {
        return true;
    }
    let Some(header) = start.get(..512) else { return false };
    if &header[257..262] == b"ustar" {
        return true;
    }
    let stored = std::str::from_utf8(&header[148..156]).ok().map(|text| text.trim_matches(['\0', ' ']));
    let stored = stored.and_then(|text| u32::from_str_radix(text, 8).ok());
    let sum = |from: &[u8]| from.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    stored == Some(sum(&header[..148]) + 8 * u32::from(b' ') + sum(&header[156..]))
}

fn legacy_warnings(args: &BuildArgs) -> Vec<String> {
    let legacy = &args.legacy;
    let mut warnings = Vec::new();
    let mut ignored = |given: bool, flag: &str| {
        if given {
            warnings.push(format!("flag {flag} has no effect and is ignored"));
        }
    };
    ignored(legacy.compress, "--compress");
    ignored(legacy.isolation.is_some(), "--isolation");
    ignored(!legacy.security_opt.is_empty(), "--security-opt");
    ignored(legacy.rm.is_some(), "--rm");
    ignored(legacy.force_rm.is_some(), "--force-rm");
    ignored(legacy.builder.is_some(), "--builder");
    ignored(legacy.debug, "--debug");
    if legacy.squash {
        warnings.push("experimental flag squash is removed with BuildKit; the image is not squashed".into());
    }
    warnings
}

/// D-005: `K` takes the environment's value and is dropped when unset; D-022: SOURCE_DATE_EPOCH comes along by itself.
fn build_args(args: &BuildArgs, warnings: &mut Vec<String>) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    if let Some(epoch) = environment("SOURCE_DATE_EPOCH") {
        found.push(("SOURCE_DATE_EPOCH".to_owned(), epoch));
    }
    for text in &args.build_arg {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), environment(text)),
        };
        if key.is_empty() {
            return Err(Usage::new(format!("invalid --build-arg `{text}`: expected KEY=VALUE or KEY")).into());
        }
        match value {
            Some(value) => {
                found.retain(|(earlier, _)| earlier != key);
                found.push((key.to_owned(), value));
            }
            None => {
                warnings.push(format!("--build-arg {key} has no value: it is not set in the environment"))
            }
        }
    }
    Ok(found)
}

#[allow(clippy::disallowed_methods, reason = "the binary is where the environment is read")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A name given with -t.
pub(crate) fn tag(text: &str) -> Result<Reference> {
    let reference: Reference =
        text.parse().map_err(|error| Usage::new(format!("invalid tag \"{text}\": {error}")))?;
    if reference.digest().is_some() {
        return Err(Usage::new(format!("invalid tag \"{text}\": a tag cannot have a digest")).into());
    }
    Ok(reference.with_default_tag())
}

fn no_cache(args: &BuildArgs) -> NoCache {
    if args.no_cache {
        return NoCache::All;
    }
    let stages: BTreeSet<String> = args.no_cache_filter.iter().map(|stage| stage.to_lowercase()).collect();
    if stages.is_empty() { NoCache::Never } else { NoCache::Stages(stages) }
}

fn network(text: &str) -> Result<NetworkMode> {
    match text {
        "default" | "" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err(Usage::new(format!("invalid network mode \"{text}\": use default, none or host")).into()),
    }
}

/// Several may stand in one flag, between commas.
fn extra_hosts(texts: &[String]) -> Result<Vec<(String, String)>> {
    texts.iter().flat_map(|text| text.split(',')).map(extra_host).collect()
}

fn extra_host(text: &str) -> Result<(String, String)> {
    let problem = || Usage::new(format!("invalid --add-host `{text}`: expected HOST:IP or HOST=IP"));
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(problem)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = if address == "host-gateway" { "127.0.0.1" } else { address };
    let address =
        address.parse::<std::net::IpAddr>().ok().filter(|_| !name.is_empty()).ok_or_else(problem)?;
    // As BuildKit writes it into /etc/hosts, whatever it was typed as.
    Ok((name.to_owned(), address.to_canonical().to_string()))
}

/// What `--allow` grants. Whoever gives every step the machine's network has said so, as with buildx.
fn entitlements(args: &BuildArgs) -> Result<BTreeSet<Entitlement>> {
    let own = (args.network == "host").then_some(Ok(Entitlement::NetworkHost));
    args.allow.iter().map(|text| entitlement(text)).chain(own).collect()
}

fn entitlement(text: &str) -> Result<Entitlement> {
    match text {
        "network.host" => Ok(Entitlement::NetworkHost),
        "security.insecure" => Ok(Entitlement::SecurityInsecure),
        "device" => Ok(Entitlement::Device(None)),
        _ => match text.strip_prefix("device=") {
            Some(name) if !name.is_empty() && !name.contains(',') => {
                Ok(Entitlement::Device(Some(name.to_owned())))
            }
            _ => Err(Usage::new(format!(
                "invalid entitlement \"{text}\": use network.host, security.insecure, device or device=NAME"
            ))
            .into()),
        },
    }
}

/// A-043: two names always mean the same, so that a context of theirs is never looked at.
fn named_contexts(options: &[String], warnings: &mut Vec<String>) -> Result<Vec<(String, NamedContext)>> {
    let mut contexts = options.iter().map(|text| named_context(text)).collect::<Result<Vec<_>>>()?;
    contexts.retain(|(name, _)| {
        let taken = ["scratch", "context"].iter().any(|own| name.eq_ignore_ascii_case(own));
        if taken {
            warnings
                .push(format!("--build-context {name} is not used: the name is taken, choose another one"));
        }
        !taken
    });
    Ok(contexts)
}

fn named_context(text: &str) -> Result<(String, NamedContext)> {
    let (name, value) = (text.split_once('='))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| Usage::new(format!("invalid --build-context `{text}`: expected NAME=VALUE")))?;
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        return Ok((name.to_owned(), oci_layout(layout)?));
    }
    if let Some(image) = value.strip_prefix("docker-image://") {
        let reference: Reference = image
            .parse()
            .map_err(|error| Usage::new(format!("invalid --build-context `{text}`: {error}")))?;
        return Ok((name.to_owned(), NamedContext::Image(reference.with_default_tag())));
    }
    if let Some(url) = remote(value) {
        return Ok((name.to_owned(), NamedContext::Remote(url)));
    }
    let dir = PathBuf::from(value);
    if !dir.is_dir() {
        return Err(
            Usage::new(format!("--build-context `{name}`: path \"{value}\" is not a directory")).into()
        );
    }
    Ok((name.to_owned(), NamedContext::Directory(dir)))
}

fn oci_layout(text: &str) -> Result<NamedContext> {
    if let Some((dir, digest)) = text.split_once('@') {
        let digest = digest.parse().map_err(|error| Usage::new(format!("oci-layout://{text}: {error}")))?;
        return Ok(NamedContext::OciLayout {
            dir: PathBuf::from(dir),
            image: Some(LayoutImage::Digest(digest)),
        });
    }
    // A colon may belong to a directory's name, or to a reference with a registry's port.
    if Path::new(text).is_dir() {
        return Ok(NamedContext::OciLayout { dir: PathBuf::from(text), image: None });
    }
    let split = text.match_indices(':').find(|(at, _)| Path::new(&text[..*at]).is_dir());
    let Some((at, _)) = split else {
        return Err(Usage::new(format!("oci-layout://{text}: there is no such directory")).into());
    };
    let (dir, tag) = (PathBuf::from(&text[..at]), text[at + 1..].to_owned());
    Ok(NamedContext::OciLayout { dir, image: Some(LayoutImage::Tag(tag)) })
}

fn duration(text: &str) -> Result<Duration> {
    let nanos =
        rbuild_frontend::number::parse_duration(text).ok().and_then(|nanos| u64::try_from(nanos).ok());
    let wrong = || Usage::new(format!("`{text}` is not a duration: write 90s, 15m or 24h")).into();
    nanos.map(Duration::from_nanos).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
