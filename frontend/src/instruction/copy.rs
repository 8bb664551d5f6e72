//! COPY and ADD.

use std::collections::HashMap;

use super::{Fault, name};
use crate::ast::{AddInstruction, CopyInstruction, Heredoc, Node, SourceContent, SourcesAndDest, Word};
use crate::flag::{Flags, Kind, Known};
use crate::heredoc::parse_heredoc;

const COPY_FLAGS: Known = &[
    ("chown", Kind::Text),
    ("from", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Bool),
    ("parents", Kind::Bool),
    ("exclude", Kind::Texts),
];

const ADD_FLAGS: Known = &[
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Bool),
    ("keep-git-dir", Kind::Bool),
    ("checksum", Kind::Text),
    ("unpack", Kind::Bool),
    ("exclude", Kind::Texts),
];

pub(super) fn copy(node: &Node) -> Result<CopyInstruction, Fault> {
    enough_arguments(node)?;
    let flags = Flags::parse(&node.flags, COPY_FLAGS)?;
    Ok(CopyInstruction {
        paths: sources_and_dest(node)?,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        excludes: flags.texts("exclude"),
        flags_used: flags.used(),
    })
}

pub(super) fn add(node: &Node) -> Result<AddInstruction, Fault> {
    enough_arguments(node)?;
    let flags = Flags::parse(&node.flags, ADD_FLAGS)?;
    Ok(AddInstruction {
        paths: sources_and_dest(node)?,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.bool("unpack"),
        excludes: flags.texts("exclude"),
        flags_used: flags.used(),
    })
}

fn enough_arguments(node: &Node) -> Result<(), Fault> {
    if node.args.len() >= 2 {
        return Ok(());
    }
    let name = name(node);
    let message = format!(
        "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
    );
    Err(Fault::new(message, node.span).help(format!("write {name} source destination")))
}

fn sources_and_dest(node: &Node) -> Result<SourcesAndDest, Fault> {
    let mut paths = SourcesAndDest::default();
    let Some((dest, sources)) = node.args.split_last() else {
        return Ok(paths);
    };
    if parse_heredoc(&dest.value).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", name(node));
        return Err(Fault::new(message, dest.span).help("put the destination path last"));
    }
    paths.dest = dest.clone();
    // Of several bodies with one name the last one counts.
    let bodies: HashMap<&str, &Heredoc> =
        node.heredocs.iter().map(|body| (body.name.as_str(), body)).collect();
    for source in sources {
        let Some(heredoc) = parse_heredoc(&source.value) else {
            paths.sources.push(source.clone());
            continue;
        };
        let mut heredoc = heredoc;
        if let Some(body) = bodies.get(heredoc.name.as_str()) {
            heredoc.content.clone_from(&body.content);
            heredoc.raw.clone_from(&body.raw);
        }
        paths.contents.push(SourceContent {
            data: heredoc.body(),
            raw: heredoc.raw_body(),
            expand: heredoc.expand,
            path: Word::new(heredoc.name, source.span),
        });
    }
    Ok(paths)
}
