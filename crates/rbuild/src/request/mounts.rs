//! `--cache-mounts-from`, `--cache-mounts-to` and the places of `rbuild cache` (C-035).

use super::cache::{DEFAULT_TAG, Options};
use crate::exit::Usage;
use anyhow::Result;
use rbuild_build::{
    CacheImport, CacheTarget, DEFAULT_MOUNTS_EXPORT_SIZE, DEFAULT_MOUNTS_IMPORT_SIZE, MountsExport,
    MountsImport,
};
use rbuild_frontend::number::ram_in_bytes;
use std::path::PathBuf;

/// All places to read, as they are typed after `flag`. Several names may be given in one: `a,b`.
pub(crate) fn imports(flag: &'static str, texts: &[String]) -> Result<Vec<MountsImport>> {
    let mut found = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let mut options = Options::parse(flag, text)?;
        if options.names.is_empty() {
            found.push(import(&mut options)?);
        }
        for name in &options.names {
            let from = CacheImport::Registry { reference: options.reference(name)?, insecure: false };
            found.push(MountsImport { from, max_size: DEFAULT_MOUNTS_IMPORT_SIZE });
        }
    }
    Ok(found)
}

/// All places to write, as they are typed after `flag`.
pub(crate) fn exports(flag: &'static str, texts: &[String]) -> Result<Vec<MountsExport>> {
    let mut found = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let mut options = Options::parse(flag, text)?;
        if options.names.is_empty() {
            found.push(export(&mut options)?);
        }
        for name in &options.names {
            let target = CacheTarget::Registry { reference: options.reference(name)?, insecure: false };
            let max_size = DEFAULT_MOUNTS_EXPORT_SIZE;
            found.push(MountsExport { target, max_size, ignore_error: true });
        }
    }
    Ok(found)
}

fn import(options: &mut Options) -> Result<MountsImport> {
    let from = match options.kind()?.as_str() {
        "registry" => {
            options.known(&["type", "ref", "registry.insecure", "max-size"])?;
            let (reference, insecure) = options.registry()?;
            CacheImport::Registry { reference, insecure }
        }
        "local" => {
            options.known(&["type", "src", "tag", "digest", "max-size"])?;
            let dir = PathBuf::from(options.required("src")?);
            let tag = options.take("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned());
            let digest =
                options.take("digest").map(|text| text.parse().map_err(|error| options.problem(error)));
            CacheImport::Local { dir, tag, digest: digest.transpose()? }
        }
        other => return Err(options.unknown_type(other, "registry or local").into()),
    };
    Ok(MountsImport { from, max_size: max_size(options, DEFAULT_MOUNTS_IMPORT_SIZE)? })
}

fn export(options: &mut Options) -> Result<MountsExport> {
    let target = match options.kind()?.as_str() {
        "registry" => {
            options.known(&["type", "ref", "registry.insecure", "max-size", "ignore-error"])?;
            let (reference, insecure) = options.registry()?;
            CacheTarget::Registry { reference, insecure }
        }
        "local" => {
            options.known(&["type", "dest", "tag", "reset", "max-size", "ignore-error"])?;
            let dir = PathBuf::from(options.required("dest")?);
            let tag = options.take("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned());
            CacheTarget::Local { dir, tag, reset: options.flag("reset", false)? }
        }
        other => return Err(options.unknown_type(other, "registry or local").into()),
    };
    let max_size = max_size(options, DEFAULT_MOUNTS_EXPORT_SIZE)?;
    Ok(MountsExport { target, max_size, ignore_error: options.flag("ignore-error", true)? })
}

fn max_size(options: &mut Options, default: u64) -> Result<u64, Usage> {
    let Some(text) = options.take("max-size") else { return Ok(default) };
    let size = ram_in_bytes(&text).ok().and_then(|size| u64::try_from(size).ok());
    size.filter(|size| *size > 0).ok_or_else(|| {
        options.problem(format!("max-size `{text}`: expected bytes, or with a unit (500MB, 2GB)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(text: &str) -> Result<MountsExport> {
        Ok(exports("--cache-mounts-to", &[text.to_owned()])?.remove(0))
    }

    #[test]
    fn places_have_options() {
        let registry = exported("r.example/app:mounts").unwrap();
        assert_eq!((registry.max_size, registry.ignore_error), (2 << 30, true));
        let local =
            exported("type=local,dest=/x,tag=t,reset=true,max-size=500MB,ignore-error=false").unwrap();
        let target = CacheTarget::Local { dir: "/x".into(), tag: "t".into(), reset: true };
        assert_eq!(local, MountsExport { target, max_size: 500 << 20, ignore_error: false });
        let from = imports("--cache-mounts-from", &["a/b,type".to_owned(), "type=local,src=/x".to_owned()]);
        let from = from.unwrap();
        assert_eq!((from.len(), from[2].max_size), (3, 10 << 30));
        let insecure = "type=registry,ref=a/b:c,registry.insecure=true,max-size=1".to_owned();
        let from = imports("--cache-mounts-from", &[insecure]).unwrap().remove(0);
        let registry = CacheImport::Registry { reference: "a/b:c".parse().unwrap(), insecure: true };
        assert_eq!(from, MountsImport { from: registry, max_size: 1 });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("type=inline", "use registry or local"),
            ("type=registry", "ref is required"),
            ("type=local,src=x", "unknown option `src`"),
            ("type=registry,ref=x,max-size=big", "max-size `big`"),
            ("type=registry,ref=x,max-size=0", "max-size `0`"),
            ("type=registry,ref=x,max-sise=1", "did you mean max-size?"),
            ("type=registry,ref=x,mode=max", "unknown option `mode`"),
            ("type=registry,ref=x@sha256:0", "invalid --cache-mounts-to"),
        ] {
            let message = exported(text).unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
