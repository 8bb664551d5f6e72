//! `--output` (D-024 to D-029, B-021).

use super::cache::{Options, compression};
use super::tag;
use crate::exit::Usage;
use anyhow::Result;
use rbuild_build::{Compression, Destination, Output};
use rbuild_oci::Reference;
use std::io::IsTerminal;
use std::path::PathBuf;

const FLAG: &str = "--output";
/// Options of files and directories.
const TREE: [&str; 3] = ["type", "dest", "platform-split"];
/// Options of images, wherever they go.
const IMAGE: [&str; 7] = [
    "type",
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
];

/// All `--output`, and what they say of the layers that they share.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) outputs: Vec<Output>,
    pub(super) compression: Compression,
    /// Whether file times in new layers are clamped to SOURCE_DATE_EPOCH.
    pub(super) rewrite_timestamp: bool,
}

/// How an output wants new layers, if it says so.
#[derive(Default)]
struct Layers {
    compression: Option<Compression>,
    rewrite_timestamp: Option<bool>,
}

pub(super) fn outputs(texts: &[String]) -> Result<Outputs> {
    let mut outputs = Vec::new();
    let mut all = Layers::default();
    for text in texts {
        let (output, layers) = output(text)?;
        outputs.push(output);
        agree("compression", text, &mut all.compression, layers.compression)?;
        agree("rewrite-timestamp", text, &mut all.rewrite_timestamp, layers.rewrite_timestamp)?;
    }
    Ok(Outputs {
        outputs,
        compression: all.compression.unwrap_or_default(),
        rewrite_timestamp: all.rewrite_timestamp.unwrap_or(true),
    })
}

/// The outputs of a build have the same layers.
fn agree<T: PartialEq>(option: &str, text: &str, all: &mut Option<T>, one: Option<T>) -> Result<()> {
    if all.is_some() && one.is_some() && *all != one {
        let problem = format!(
            "invalid {FLAG} `{text}`: {option} is not that of another --output: all images of a build have the same layers"
        );
        return Err(Usage::new(problem).into());
    }
    if one.is_some() {
        *all = one;
    }
    Ok(())
}

fn output(text: &str) -> Result<(Output, Layers)> {
    let none = Layers::default();
    if text == "-" {
        return Ok((Output::Tar { dest: stdout()?, split: None }, none));
    }
    if !text.contains('=') {
        return Ok((Output::Local { dir: PathBuf::from(text), split: None }, none));
    }
    let mut options = Options::parse(FLAG, text)?;
    let kind = options.take("type").unwrap_or_else(|| "local".into());
    match kind.as_str() {
        "local" | "tar" => Ok((tree(&kind, &mut options)?, none)),
        "oci" | "docker" | "image" | "registry" => image(&kind, &mut options),
        "cacheonly" => {
            options.known(&["type"])?;
            Ok((Output::CacheOnly, none))
        }
        _ => {
            let reason =
                format!("unknown type `{kind}`: use oci, docker, local, tar, image, registry or cacheonly");
            Err(options.problem(reason).into())
        }
    }
}

fn tree(kind: &str, options: &mut Options) -> Result<Output> {
    options.known(&TREE)?;
    let split = options.optional_flag("platform-split")?;
    Ok(match kind {
        "local" => Output::Local { dir: PathBuf::from(options.required("dest")?), split },
        _ => Output::Tar { dest: destination(options.take("dest").as_deref().unwrap_or("-"))?, split },
    })
}

fn image(kind: &str, options: &mut Options) -> Result<(Output, Layers)> {
    let own: &[&str] = match kind {
        "oci" => &["dest", "tar"],
        "docker" => &["dest"],
        _ => &["push"],
    };
    options.known(&[&IMAGE, own].concat())?;
    let names = names(options)?;
    let output = match kind {
        "oci" => {
            let dest = destination(options.take("dest").as_deref().unwrap_or("-"))?;
            let is_dir = matches!(&dest, Destination::Path(path) if path.is_dir());
            Output::Oci { dest, tar: options.flag("tar", !is_dir)?, names }
        }
        "docker" => {
            Output::Docker { dest: options.take("dest").as_deref().map(destination).transpose()?, names }
        }
        _ => Output::Image { names, push: options.flag("push", kind == "registry")? },
    };
    Ok((output, layers(options)?))
}

fn layers(options: &mut Options) -> Result<Layers> {
    if !options.flag("oci-mediatypes", true)? {
        return Err(options
            .problem("oci-mediatypes=false is not supported: images have OCI media types")
            .into());
    }
    if options.flag("force-compression", false)? {
        let reason = "force-compression=true is not supported: layers of base images are kept as they are";
        return Err(options.problem(reason).into());
    }
    Ok(Layers {
        compression: compression(options)?,
        rewrite_timestamp: options.optional_flag("rewrite-timestamp")?,
    })
}

/// `name=`, a list between commas.
fn names(options: &mut Options) -> Result<Vec<Reference>> {
    let names = options.take("name").unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).map(tag).collect()
}

fn destination(text: &str) -> Result<Destination> {
    if text == "-" { stdout() } else { Ok(Destination::Path(PathBuf::from(text))) }
}

fn stdout() -> Result<Destination> {
    if std::io::stdout().is_terminal() {
        let problem =
            "refusing to write an archive to a terminal: redirect standard output or give dest=FILE";
        return Err(Usage::new(problem).into());
    }
    Ok(Destination::Stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Result<Outputs> {
        outputs(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn outputs_are_understood() {
        let path = |text: &str| Destination::Path(text.into());
        for (text, meant) in [
            ("out", Output::Local { dir: "out".into(), split: None }),
            ("type=oci,dest=x.tar", Output::Oci { dest: path("x.tar"), tar: true, names: vec![] }),
            ("type=oci,dest=x,tar=false", Output::Oci { dest: path("x"), tar: false, names: vec![] }),
            ("type=docker,dest=x.tar", Output::Docker { dest: Some(path("x.tar")), names: vec![] }),
            ("type=docker", Output::Docker { dest: None, names: vec![] }),
            ("type=docker,name=a:1", Output::Docker { dest: None, names: vec!["a:1".parse().unwrap()] }),
            ("type=tar,dest=x.tar", Output::Tar { dest: path("x.tar"), split: None }),
            ("type=cacheonly", Output::CacheOnly),
            ("dest=out,platform-split=true", Output::Local { dir: "out".into(), split: Some(true) }),
        ] {
            assert_eq!(all(&[text]).unwrap().outputs, [meant], "{text}");
        }
        let found = all(&["type=registry,name=localhost:5000/a"]).unwrap();
        let [Output::Image { names, push: true }] = &found.outputs[..] else { panic!("{found:?}") };
        assert_eq!(names[0].to_string(), "localhost:5000/a:latest");
        for (bad, words) in [
            ("type=local", "dest is required"),
            ("type=nope,dest=x", "unknown type `nope`"),
            ("type=oci,dest=x,frob=1", "unknown option `frob`"),
            ("type=oci,tar=maybe", "neither true nor false"),
            ("type=local,dest=x,name=y", "unknown option `name`"),
            ("type=image,oci-mediatypes=false", "OCI media types"),
        ] {
            let problem = all(&[bad]).unwrap_err().to_string();
            assert!(problem.contains(words) && problem.contains(bad), "{problem}");
        }
    }

    /// B-021, B-013: what images share is said once, or the same each time.
    #[test]
    fn the_layers_of_a_build_are_packed_one_way() {
        let found =
            all(&["type=image,compression=zstd,compression-level=9", "type=oci,dest=x", "out"]).unwrap();
        assert_eq!((found.compression, found.rewrite_timestamp), (Compression::Zstd { level: 9 }, true));
        assert_eq!(all(&["out"]).unwrap().compression, Compression::default());
        assert!(!all(&["type=docker,rewrite-timestamp=false"]).unwrap().rewrite_timestamp);
        let twice = all(&["type=image,compression=zstd", "type=oci,dest=x,compression=gzip"]);
        assert!(twice.unwrap_err().to_string().contains("all images of a build have the same layers"));
    }
}
