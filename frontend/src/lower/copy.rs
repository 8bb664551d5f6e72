//! COPY and ADD (A12, A-124 to A-127).

use super::config::{expand, expand_text};
use super::mounts::MAIN_CONTEXT;
use super::remote::{self, Remote, RemoteFlags, classify};
use super::state::{Root, State};
use super::vertices::Inputs;
use super::{Lowering, Outcome, names};
use crate::ast::{AddInstruction, CopyInstruction, SourceContent, SourcesAndDest, Span, Word};
use crate::lint::copy_ignored_file;
use crate::paths;
use crate::quote::go_quote;
use crate::shell::Lex;
use crate::stage::Command;
use rbuild_ir::{CopyOp, CopySource, Op, Unpack};

/// What COPY and ADD have in common.
struct Copying<'a> {
    paths: &'a SourcesAndDest,
    /// `None` is the main context.
    from: Option<Root>,
    chown: Option<String>,
    chmod: Option<String>,
    chmod_span: Span,
    link: bool,
    parents: bool,
    excludes: &'a [Word],
    unpack: Unpack,
    is_add: bool,
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
}

impl Lowering<'_, '_> {
    pub(super) fn copy_instruction(
        &mut self,
        node: usize,
        state: &mut State,
        command: &Command<'_>,
        copy: &CopyInstruction,
    ) -> Outcome {
        let lex = self.plan.lex;
        let chown = flag(state, &lex, copy.chown.as_ref())?;
        let chmod = flag(state, &lex, copy.chmod.as_ref())?;
        let from = match command.sources.first().copied().flatten() {
            None => None,
            Some(source) => match self.finished(source) {
                Some(source) => Some(source.root.clone()),
                None => {
                    let from = copy.from.as_ref().map(Word::as_str).unwrap_or_default();
                    state.fault = span_of(copy.from.as_ref());
                    state.remedy = Some(match source == node {
                        true => "a stage cannot copy from itself: give FROM the stage that has the files"
                            .to_owned(),
                        false => format!("move the stage `{from}` above this one"),
                    });
                    return Err(format!(
                        "cannot copy from stage {}, it needs to be defined before current stage {}",
                        go_quote(from),
                        go_quote(&self.plan.nodes[node].shown)
                    ));
                }
            },
        };
        let copying = Copying {
            paths: &copy.paths,
            from,
            chown,
            chmod,
            chmod_span: span_of(copy.chmod.as_ref()),
            link: copy.link,
            parents: copy.parents,
            excludes: &copy.excludes,
            unpack: Unpack::Never,
            is_add: false,
            checksum: None,
            keep_git_dir: None,
        };
        self.copy(node, state, command, copying)
    }

    pub(super) fn add_instruction(
        &mut self,
        node: usize,
        state: &mut State,
        command: &Command<'_>,
        add: &AddInstruction,
    ) -> Outcome {
        let lex = self.plan.lex;
        let chown = flag(state, &lex, add.chown.as_ref())?;
        let chmod = flag(state, &lex, add.chmod.as_ref())?;
        let checksum = flag(state, &lex, add.checksum.as_ref())?;
        let copying = Copying {
            paths: &add.paths,
            from: None,
            chown,
            chmod,
            chmod_span: span_of(add.chmod.as_ref()),
            link: add.link,
            parents: false,
            excludes: &add.excludes,
            unpack: match add.unpack {
                None => Unpack::Auto,
                Some(true) => Unpack::Always,
                Some(false) => Unpack::Never,
            },
            is_add: true,
            checksum,
            keep_git_dir: add.keep_git_dir,
        };
        self.copy(node, state, command, copying)
    }

    fn copy(
        &mut self,
        node: usize,
        state: &mut State,
        command: &Command<'_>,
        copying: Copying<'_>,
    ) -> Outcome {
        let lex = self.plan.lex;
        let lines = command.instruction.lines;
        let sources: Vec<String> = copying
            .paths
            .sources
            .iter()
            .map(|word| expand(&mut *state, &lex, word))
            .collect::<Outcome<_>>()?;
        let dest = expand(state, &lex, &copying.paths.dest)?;
        let contents: Vec<Inline> = copying
            .paths
            .contents
            .iter()
            .map(|content| inline(&mut *state, content))
            .collect::<Outcome<_>>()?;
        self.spent += contents.iter().map(|file| file.data.len()).sum::<usize>();
        if let Some(chmod) = &copying.chmod {
            check_chmod(chmod).inspect_err(|_| {
                state.fault = copying.chmod_span;
                state.remedy =
                    Some("write an octal mode like 0755, or a symbolic one like u+rwX,go-w".to_owned());
            })?;
        }
        check_checksum(copying.checksum.as_deref(), &sources)?;
        let flags = RemoteFlags { checksum: copying.checksum.as_deref(), keep_git_dir: copying.keep_git_dir };
        let mut fetches = Vec::with_capacity(sources.len());
        for source in &sources {
            let fetch = remote::fetch(source, flags)?;
            match (classify(source), copying.is_add) {
                (kind @ (Remote::Http | Remote::Git), false) => {
                    let kind = if kind == Remote::Http { "URL" } else { "git ref" };
                    state.remedy = Some("use ADD for remote sources".to_owned());
                    return Err(format!("source can't be a {kind} for COPY"));
                }
                _ => fetches.push(fetch),
            }
        }

        if let (Some(ignore), true) = (&self.plan.options.ignore, command.sources.is_empty()) {
            let local =
                sources.iter().zip(&copying.paths.sources).filter(|(path, _)| classify(path) == Remote::No);
            let check = |(path, word): (&String, &Word)| {
                copy_ignored_file::check(ignore, copying.is_add, path, word.span)
            };
            state.findings.extend(local.filter_map(check));
        }

        let shown = names::shown(&command.instruction.original, &lex, &state.env);
        let name = names::prefixed(&self.plan, node, state, &shown);
        let created_by = rbuild_ir::redacted(&created_by(&copying, &sources, &contents, &dest));
        let name = rbuild_ir::redacted(&name);
        let mut inputs = Inputs::default();
        let from = match &copying.from {
            Some(root) => inputs.source(root),
            None => rbuild_ir::Source::Context(MAIN_CONTEXT.into()),
        };
        let mut copied = Vec::with_capacity(sources.len() + contents.len());
        for (path, fetch) in sources.iter().zip(fetches) {
            copied.push(match fetch {
                Some(fetch) => self.fetched(node, fetch, &name, lines, &mut inputs),
                None => CopySource::Path {
                    from: from.clone(),
                    path: match copying.parents {
                        true => with_pivot(path),
                        false => paths::clean(&paths::copy_source(path)),
                    },
                },
            });
        }
        let files =
            contents.into_iter().map(|Inline { name, data, raw }| CopySource::Inline { name, data, raw });
        let op = Op::Copy(CopyOp {
            sources: copied.into_iter().chain(files).collect(),
            dest: paths::copy_dest_clean(&state.cwd, &dest),
            // --link with --chmod is a normal copy.
            link: copying.link && copying.chmod.is_none(),
            chown: copying.chown,
            chmod: copying.chmod,
            parents: copying.parents,
            exclude: copying.excludes.iter().map(|word| word.value.clone()).collect(),
            unpack: copying.unpack,
            is_add: copying.is_add,
        });
        let layer = self.add_layer(node, state, op, inputs.vertices(), name, lines);
        state.commit_layer(created_by, Some(layer));
        Ok(())
    }
}

fn span_of(word: Option<&Word>) -> Span {
    word.map(|word| word.span).unwrap_or_default()
}

/// An expanded flag; empty is as good as not written.
fn flag(state: &mut State, lex: &Lex, word: Option<&Word>) -> Outcome<Option<String>> {
    let value = word.map(|word| expand(state, lex, word)).transpose()?;
    Ok(value.filter(|value| !value.is_empty()))
}

/// A heredoc as a file.
struct Inline {
    name: String,
    data: String,
    raw: Option<Vec<u8>>,
}

/// A heredoc's file name and content. Bodies are expanded with `\` as escape and quotes as they are.
fn inline(state: &mut State, content: &SourceContent) -> Outcome<Inline> {
    let name = content.path.value.clone();
    if !content.expand {
        return Ok(Inline { name, data: content.data.clone(), raw: content.raw.clone() });
    }
    let lex = Lex { skip_process_quotes: true, ..Lex::new('\\') };
    let data = expand_text(state, &lex, &content.data, Span::default())?;
    Ok(Inline { name, data, raw: None })
}

fn created_by(copying: &Copying<'_>, sources: &[String], contents: &[Inline], dest: &str) -> String {
    let mut text = String::from(if copying.is_add { "ADD" } else { "COPY" });
    if copying.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", &copying.chown), ("chmod", &copying.chmod)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    for source in sources {
        text.push_str(&format!(" {source}"));
    }
    for file in contents {
        text.push_str(&format!(" <<{}", file.name));
    }
    format!("{text} {dest} # buildkit")
}

/// A source of `--parents`: the part before the pivot `/./` is not kept below the destination.
fn with_pivot(source: &str) -> String {
    match source.split_once("/./") {
        Some((before, kept)) => {
            let before = paths::clean(&paths::copy_source(before));
            let kept = paths::clean(&paths::copy_source(kept));
            format!("{}/.{kept}", before.trim_end_matches('/'))
        }
        None => paths::clean(&paths::copy_source(source)),
    }
}

/// Octal up to 07777, or symbolic.
pub(super) fn check_chmod(chmod: &str) -> Outcome {
    let not_octal =
        || format!("invalid chmod parameter: '{chmod}'. it should be octal string and between 0 and 07777");
    let octal = !chmod.is_empty() && chmod.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    match u32::from_str_radix(chmod, 8) {
        Ok(mode) if mode <= 0o7777 && !chmod.starts_with('+') => Ok(()),
        Ok(_) if !chmod.starts_with('+') => Err(not_octal()),
        _ if octal || chmod.starts_with(|c: char| c.is_ascii_digit()) => Err(not_octal()),
        _ if is_symbolic_mode(chmod) => Ok(()),
        _ => Err("invalid syntax".into()),
    }
}

/// `[ugoa…][-+=][perms…],…` as chmod(1) reads it.
fn is_symbolic_mode(text: &str) -> bool {
    text.split(',').all(|clause| {
        let ops = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let mut rest = ops;
        while let Some(after) = rest.strip_prefix(['-', '+', '=']) {
            let copied = after.strip_prefix(['u', 'g', 'o']);
            rest = copied.unwrap_or_else(|| after.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']));
        }
        !ops.is_empty() && rest.is_empty()
    })
}

fn check_checksum(checksum: Option<&str>, sources: &[String]) -> Outcome {
    match (checksum, sources) {
        (None, _) => Ok(()),
        (Some(_), [source]) if classify(source) != Remote::No => Ok(()),
        (Some(_), [_]) => Err("checksum requires HTTP(S) or Git sources".into()),
        (Some(_), _) => Err("checksum can't be specified for multiple sources".into()),
    }
}
