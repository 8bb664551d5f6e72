//! `--cache-from`, `--cache-to` and `--cache-export-budget` (C-025 to C-029).

use crate::exit::Usage;
use anyhow::Result;
use rbuild_build::{
    CacheExport, CacheForm, CacheImport, CacheMode, CacheTarget, Compression, DEFAULT_CACHE_EXPORT_BUDGET,
    csv_fields,
};
use rbuild_oci::Reference;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Name of a local cache without `tag`.
pub(super) const DEFAULT_TAG: &str = "latest";
/// Options of every export but `inline`.
const EXPORT_OPTIONS: [&str; 8] = [
    "type",
    "mode",
    "image-manifest",
    "oci-mediatypes",
    "compression",
    "compression-level",
    "force-compression",
    "ignore-error",
];

/// All `--cache-from`. Several names may be given in one: `--cache-from a,b`.
pub(super) fn cache_imports(texts: &[String]) -> Result<Vec<CacheImport>> {
    let mut found = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let mut options = Options::parse("--cache-from", text)?;
        if options.names.is_empty() {
            found.push(import(&mut options)?);
        }
        for name in &options.names {
            found.push(CacheImport::Registry { reference: options.reference(name)?, insecure: false });
        }
    }
    Ok(found)
}

/// All `--cache-to`.
pub(super) fn cache_exports(texts: &[String]) -> Result<Vec<CacheExport>> {
    let mut found = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let mut options = Options::parse("--cache-to", text)?;
        if options.names.is_empty() {
            found.push(export(&mut options)?);
        }
        for name in &options.names {
            let reference = options.reference(name)?;
            found.push(to(CacheTarget::Registry { reference, insecure: false }));
        }
    }
    Ok(found)
}

/// `--cache-export-budget`: e.g. `90s`, `1m30s`, or `none` for no limit.
pub(super) fn budget(text: Option<&str>) -> Result<Option<Duration>> {
    match text {
        None => Ok(Some(DEFAULT_CACHE_EXPORT_BUDGET)),
        Some("none") => Ok(None),
        Some(text) => Ok(Some(duration(text).ok_or_else(|| {
            let expected = "expected a duration like 90s, 1m30s or 500ms, or none";
            Usage::new(format!("invalid --cache-export-budget `{text}`: {expected}"))
        })?)),
    }
}

/// Go's durations with the units h, m, s and ms; a bare number is seconds.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(number)?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// An export of its default options.
fn to(target: CacheTarget) -> CacheExport {
    CacheExport {
        target,
        mode: CacheMode::Min,
        form: CacheForm::Manifest,
        compression: None,
        force_compression: false,
        ignore_error: true,
    }
}

fn import(options: &mut Options) -> Result<CacheImport> {
    match options.kind()?.as_str() {
        "registry" => {
            options.known(&["type", "ref", "registry.insecure"])?;
            let (reference, insecure) = options.registry()?;
            Ok(CacheImport::Registry { reference, insecure })
        }
        "local" => {
            options.known(&["type", "src", "tag", "digest"])?;
            let dir = PathBuf::from(options.required("src")?);
            let tag = options.take("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned());
            let digest =
                options.take("digest").map(|text| text.parse().map_err(|error| options.problem(error)));
            Ok(CacheImport::Local { dir, tag, digest: digest.transpose()? })
        }
        "inline" => {
            let reason = "an inline cache is read with type=registry,ref=IMAGE";
            Err(options.problem(reason).into())
        }
        other => Err(options.unknown_type(other, "registry or local").into()),
    }
}

fn export(options: &mut Options) -> Result<CacheExport> {
    let target = match options.kind()?.as_str() {
        "registry" => {
            options.known(&[&EXPORT_OPTIONS[..], &["ref", "registry.insecure"]].concat())?;
            let (reference, insecure) = options.registry()?;
            CacheTarget::Registry { reference, insecure }
        }
        "local" => {
            options.known(&[&EXPORT_OPTIONS[..], &["dest", "tag", "reset"]].concat())?;
            let dir = PathBuf::from(options.required("dest")?);
            let tag = options.take("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned());
            CacheTarget::Local { dir, tag, reset: options.flag("reset", false)? }
        }
        "inline" => {
            options.known(&["type", "mode", "ignore-error"])?;
            CacheTarget::Inline
        }
        other => return Err(options.unknown_type(other, "registry, local or inline").into()),
    };
    let mode = match options.take("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") if target == CacheTarget::Inline => {
            let reason = "an inline cache holds the steps of the image's own layers: mode=max needs type=registry or type=local";
            return Err(options.problem(reason).into());
        }
        Some("max") => CacheMode::Max,
        Some(other) => return Err(options.problem(format!("mode `{other}`: use min or max")).into()),
    };
    let form = match (options.flag("image-manifest", true)?, options.flag("oci-mediatypes", true)?) {
        (true, true) => CacheForm::Manifest,
        (true, false) => {
            let reason =
                "an image manifest has OCI media types: oci-mediatypes=false needs image-manifest=false";
            return Err(options.problem(reason).into());
        }
        (false, oci) => CacheForm::Index { oci },
    };
    Ok(CacheExport {
        mode,
        form,
        compression: compression(options)?,
        force_compression: options.flag("force-compression", false)?,
        ignore_error: options.flag("ignore-error", true)?,
        ..to(target)
    })
}

pub(super) fn compression(options: &mut Options) -> Result<Option<Compression>> {
    let kind = options.take("compression");
    let level = options.take("compression-level");
    let level = level.map(|text| {
        let problem = || options.problem(format!("compression-level `{text}` is no number"));
        text.parse::<i32>().map_err(|_| problem())
    });
    let level = level.transpose()?;
    let in_range = |max: i32| match level {
        Some(level) if !(0..=max).contains(&level) => {
            Err(options.problem(format!("compression-level {level}: use 0 to {max}")))
        }
        _ => Ok(()),
    };
    match kind.as_deref() {
        None if level.is_some() => Err(options.problem("compression-level needs compression").into()),
        None => Ok(None),
        Some("uncompressed") => Ok(Some(Compression::None)),
        Some("gzip") => {
            in_range(9)?;
            let level = level.and_then(|level| u32::try_from(level).ok());
            Ok(Some(level.map_or_else(Compression::default, |level| Compression::Gzip { level })))
        }
        Some("zstd") => {
            in_range(22)?;
            Ok(Some(Compression::Zstd { level: level.unwrap_or(rbuild_build::DEFAULT_ZSTD_LEVEL) }))
        }
        Some(other) => {
            let reason = format!("compression `{other}` is not supported: use gzip, zstd or uncompressed");
            Err(options.problem(reason).into())
        }
    }
}

/// The fields of one option.
pub(super) struct Options {
    flag: &'static str,
    text: String,
    /// Fields without `=`, if all are: names of registry caches.
    pub(super) names: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Options {
    pub(super) fn parse(flag: &'static str, text: &str) -> Result<Self> {
        let mut options = Self { flag, text: text.to_owned(), names: Vec::new(), values: BTreeMap::new() };
        let fields = csv_fields(text).map_err(|reason| options.problem(reason))?;
        if fields.iter().all(|field| !field.contains('=')) {
            options.names = fields;
            return Ok(options);
        }
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                let reason = format!("invalid field `{field}`: expected key=value");
                return Err(options.problem(reason).into());
            };
            options.values.insert(key.trim().to_lowercase(), value.to_owned());
        }
        Ok(options)
    }

    pub(super) fn problem(&self, reason: impl std::fmt::Display) -> Usage {
        Usage::new(format!("invalid {} `{}`: {reason}", self.flag, self.text))
    }

    pub(super) fn unknown_type(&self, kind: &str, supported: &str) -> Usage {
        self.problem(format!("cache type `{kind}` is not supported: use {supported}"))
    }

    pub(super) fn kind(&self) -> Result<String> {
        let kind = self.values.get("type").filter(|kind| !kind.is_empty());
        Ok(kind.cloned().ok_or_else(|| self.problem("type is required (registry, local or inline)"))?)
    }

    /// Refuses an option that is not among these.
    pub(super) fn known(&self, known: &[&str]) -> Result<()> {
        let Some(unknown) = self.values.keys().find(|key| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let near = rbuild_frontend::suggest::suggest(unknown, known.iter().copied(), true);
        let hint = match near {
            Some(name) => format!(" (did you mean {name}?)"),
            None => format!(" (there are {})", known.join(", ")),
        };
        Err(self.problem(format!("unknown option `{unknown}`{hint}")).into())
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&mut self, key: &str) -> Result<String> {
        let value = self.take(key);
        Ok(value.ok_or_else(|| self.problem(format!("{key} is required")))?)
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    pub(super) fn optional_flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(self.problem(format!("{key}: `{other}` is neither true nor false")).into()),
        }
    }

    pub(super) fn registry(&mut self) -> Result<(Reference, bool)> {
        let name = self.required("ref")?;
        Ok((self.reference(&name)?, self.flag("registry.insecure", false)?))
    }

    pub(super) fn reference(&self, name: &str) -> Result<Reference> {
        let reference: Reference = name.parse().map_err(|error| self.problem(error))?;
        if matches!(self.flag, "--cache-to" | "--cache-mounts-to" | "--to") && reference.digest().is_some() {
            return Err(self.problem("a cache is written under a tag, not a digest").into());
        }
        Ok(reference.with_default_tag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(text: &str) -> CacheExport {
        cache_exports(&[text.to_owned()]).unwrap().pop().unwrap()
    }

    fn refused(text: &str) -> String {
        let exported = cache_exports(&[text.to_owned()]);
        exported.expect_err(text).to_string()
    }

    #[test]
    fn a_bare_name_is_a_registry_cache() {
        let registry =
            |text: &str, insecure| CacheImport::Registry { reference: text.parse().unwrap(), insecure };
        for (text, expected) in [
            ("r.example/app", vec![registry("r.example/app:latest", false)]),
            (
                "r.example/app:cache,other",
                vec![registry("r.example/app:cache", false), registry("other:latest", false)],
            ),
            (
                "type=registry,ref=r.example/app:c,registry.insecure=true",
                vec![registry("r.example/app:c", true)],
            ),
            ("", vec![]),
        ] {
            assert_eq!(cache_imports(&[text.to_owned()]).unwrap(), expected, "{text}");
        }
        let target =
            CacheTarget::Registry { reference: "r.example/app:latest".parse().unwrap(), insecure: false };
        assert_eq!(exported("r.example/app"), to(target));
    }

    #[test]
    fn options_mean_what_buildkit_means_by_them() {
        let all = exported(
            "type=registry,ref=a/b:c,mode=max,image-manifest=false,oci-mediatypes=false,compression=zstd,\
             compression-level=7,force-compression=true,ignore-error=false",
        );
        assert_eq!((all.mode, all.form), (CacheMode::Max, CacheForm::Index { oci: false }));
        assert_eq!(all.compression, Some(Compression::Zstd { level: 7 }));
        assert!(all.force_compression && !all.ignore_error);
        let local = exported("type=local,dest=/x,tag=t,reset=true,compression=uncompressed");
        let target = CacheTarget::Local { dir: "/x".into(), tag: "t".into(), reset: true };
        assert_eq!((local.target, local.compression), (target, Some(Compression::None)));
        assert_eq!(exported("type=inline").target, CacheTarget::Inline);
        let digest = rbuild_oci::Digest::of("x");
        let import = cache_imports(&[format!("type=local,src=/x,digest={digest}")]).unwrap();
        let expected = CacheImport::Local { dir: "/x".into(), tag: DEFAULT_TAG.into(), digest: Some(digest) };
        assert_eq!(import, [expected]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("type=gha", "cache type `gha` is not supported: use registry, local or inline"),
            ("type=s3,bucket=x", "`s3` is not supported"),
            ("type=azblob", "`azblob` is not supported"),
            ("ref=x", "type is required"),
            ("type=registry", "ref is required"),
            ("type=local", "dest is required"),
            ("type=registry,ref=x,mod=max", "unknown option `mod` (did you mean mode?)"),
            ("type=local,src=x", "unknown option `src`"),
            ("type=registry,ref=x,mode=mid", "use min or max"),
            ("type=inline,mode=max", "needs type=registry"),
            ("type=registry,ref=x,ignore-error=perhaps", "neither true nor false"),
            ("type=registry,ref=x,compression=estargz", "use gzip, zstd or uncompressed"),
            ("type=registry,ref=x,compression=gzip,compression-level=12", "use 0 to 9"),
            ("type=registry,ref=x,compression-level=1", "needs compression"),
            ("type=registry,ref=x,oci-mediatypes=false", "image-manifest=false"),
            ("type=registry,ref=UPPER", "invalid --cache-to"),
            ("type=registry,ref", "expected key=value"),
        ] {
            let message = refused(text);
            assert!(message.contains(words), "{text}: {message}");
        }
        let inline = cache_imports(&["type=inline".to_owned()]).unwrap_err().to_string();
        assert!(inline.contains("type=registry,ref=IMAGE"), "{inline}");
    }

    #[test]
    fn budgets_are_durations() {
        for (text, seconds) in
            [("90s", 90.0), ("1m30s", 90.0), ("500ms", 0.5), ("2h", 7200.0), ("7", 7.0), ("0s", 0.0)]
        {
            assert_eq!(budget(Some(text)).unwrap().unwrap().as_secs_f64(), seconds, "{text}");
        }
        assert_eq!(budget(Some("none")).unwrap(), None);
        assert_eq!(budget(None).unwrap(), Some(DEFAULT_CACHE_EXPORT_BUDGET));
        for bad in ["", "x", "5x", "s", "-1s", "99999999999h"] {
            assert!(budget(Some(bad)).is_err(), "{bad}");
        }
    }
}
