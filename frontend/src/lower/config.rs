//! Instructions that change the image's config only (A6 to A8), and ARG and WORKDIR.

use super::state::State;
use super::{Lowering, Outcome, names};
use crate::args::NOT_IN_ENV;
use crate::ast::{self, ArgInstruction, CommandLine, Instruction, InstructionKind, KeyValue, Span, Word};
use crate::env::Lookup;
use crate::lint::{
    expose_invalid_format, expose_proto_casing, legacy_key_value_format, secrets_used_in_arg_or_env,
    workdir_relative_path,
};
use crate::outline::{self, OutlineArg};
use crate::paths;
use crate::port::{parse_expose_word, parse_signal};
use crate::quote::go_quote_list;
use crate::shell::Lex;
use rbuild_ir::{MkdirOp, Op};
use rbuild_oci::Healthcheck;

/// Most ports of one EXPOSE: all of them, for three protocols.
const MAX_PORTS: usize = 3 * 65536;

/// Applies an instruction without a layer.
pub(super) fn apply(state: &mut State, lex: &Lex, instruction: &Instruction) -> Outcome {
    let keyword = instruction.keyword.as_str();
    match &instruction.kind {
        InstructionKind::Env(pairs) => env(state, lex, keyword, pairs),
        InstructionKind::Label(pairs) => label(state, lex, keyword, pairs),
        InstructionKind::Maintainer(who) => {
            state.config.author = Some(who.value.clone()).filter(|who| !who.is_empty());
            state.commit(format!("MAINTAINER {}", who.value));
            Ok(())
        }
        InstructionKind::Cmd(command) => {
            let args = command_args(state, command);
            state.cmd_set = true;
            state.config.config.args_escaped = Some(true);
            state.commit(format!("CMD {}", go_quote_list(&args)));
            state.config.config.cmd = non_empty(args);
            Ok(())
        }
        InstructionKind::Entrypoint(command) => {
            let args = command_args(state, command);
            state.commit(format!("ENTRYPOINT {}", go_quote_list(&args)));
            state.config.config.entrypoint = non_empty(args);
            if !state.cmd_set {
                state.config.config.cmd = None;
            }
            Ok(())
        }
        InstructionKind::Shell(words) => {
            let shell: Vec<String> = words.iter().map(|word| word.value.clone()).collect();
            state.commit(format!("SHELL [{}]", shell.join(" ")));
            state.config.config.shell = non_empty(shell);
            Ok(())
        }
        InstructionKind::Healthcheck(check) => {
            healthcheck(state, check);
            Ok(())
        }
        InstructionKind::User(user) => {
            let user = expand(state, lex, user)?;
            state.commit(format!("USER {user}"));
            state.config.config.user = Some(user).filter(|user| !user.is_empty());
            Ok(())
        }
        InstructionKind::Volume(words) => volume(state, lex, words),
        InstructionKind::Expose(words) => {
            let ports = ports(state, words, lex)?;
            let exposed = state.config.config.exposed_ports.get_or_insert_default();
            exposed.extend(ports.iter().map(|port| (port.clone(), Default::default())));
            state.commit(format!("EXPOSE [{}]", ports.join(" ")));
            Ok(())
        }
        InstructionKind::StopSignal(word) => {
            let name = expand(state, lex, word)?;
            parse_signal(&name)?;
            state.commit(format!("STOPSIGNAL {name}"));
            state.config.config.stop_signal = Some(name);
            Ok(())
        }
        InstructionKind::OnBuild(on_build) => {
            state.config.config.on_build.get_or_insert_default().push(on_build.expression.clone());
            Ok(())
        }
        InstructionKind::From(_)
        | InstructionKind::Arg(_)
        | InstructionKind::Run(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Add(_)
        | InstructionKind::Workdir(_) => Ok(()),
    }
}

/// Expands a value with the variables of this point.
pub(super) fn expand(state: &mut State, lex: &Lex, word: &Word) -> Outcome<String> {
    expand_text(state, lex, word.as_str(), word.span)
}

/// Expands a text that stands at `span`.
pub(super) fn expand_text(state: &mut State, lex: &Lex, text: &str, span: Span) -> Outcome<String> {
    match lex.process(text, &state.env) {
        Ok(expansion) => {
            state.note_unset(&expansion.unmatched, span);
            Ok(expansion.result)
        }
        Err(error) => {
            state.note_unset(&error.unmatched, span);
            state.fault = span;
            Err(error.to_string())
        }
    }
}

/// Go leaves empty lists out of the config.
fn non_empty(list: Vec<String>) -> Option<Vec<String>> {
    Some(list).filter(|list| !list.is_empty())
}

fn command_args(state: &State, command: &CommandLine) -> Vec<String> {
    let args: Vec<&str> = command.args.iter().map(Word::as_str).collect();
    match command.prepend_shell {
        true => state.with_shell(&args.join(" ")),
        false => args.into_iter().map(str::to_owned).collect(),
    }
}

/// Pairs with keys and values expanded; all of them see the values from before the instruction.
fn expand_pairs(state: &mut State, lex: &Lex, pairs: &[KeyValue]) -> Outcome<Vec<(String, String)>> {
    let mut expand = |word| expand(state, lex, word);
    pairs.iter().map(|pair| Ok((expand(&pair.key)?, expand(&pair.value)?))).collect()
}

fn pairs_text(keyword: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(keyword.to_owned(), |text, (key, value)| format!("{text} {key}={value}"))
}

fn env(state: &mut State, lex: &Lex, keyword: &str, written: &[KeyValue]) -> Outcome {
    let pairs = expand_pairs(state, lex, written)?;
    for ((name, value), written) in pairs.iter().zip(written) {
        state.findings.extend(legacy_key_value_format::check(keyword, written));
        state.findings.extend(secrets_used_in_arg_or_env::check("ENV", name, written.key.span));
        state.set_env(name, value);
    }
    state.commit(pairs_text("ENV", &pairs));
    Ok(())
}

fn label(state: &mut State, lex: &Lex, keyword: &str, written: &[KeyValue]) -> Outcome {
    let pairs = expand_pairs(state, lex, written)?;
    state.findings.extend(written.iter().filter_map(|pair| legacy_key_value_format::check(keyword, pair)));
    state.commit(pairs_text("LABEL", &pairs));
    state.config.config.labels.get_or_insert_default().extend(pairs);
    Ok(())
}

/// What a word of EXPOSE needs to be looked at by the checks: BuildKit reads these parts first.
fn has_port_and_proto(spec: &str) -> bool {
    let (address, proto) = spec.split_once('/').unwrap_or((spec, ""));
    !address.ends_with(':')
        && !address.is_empty()
        && matches!(&*proto.to_lowercase(), "" | "tcp" | "udp" | "sctp")
}

/// The ports of an EXPOSE: words are sorted, then expanded and split again.
fn ports(state: &mut State, words: &[Word], lex: &Lex) -> Outcome<Vec<String>> {
    let mut sorted: Vec<&Word> = words.iter().collect();
    sorted.sort_by(|left, right| left.value.cmp(&right.value));
    let mut ports = Vec::new();
    for word in sorted {
        let specs = lex.words(word.as_str(), &state.env).map_err(|error| error.to_string());
        for spec in specs.inspect_err(|_| state.fault = word.span)? {
            state.fault = word.span;
            if has_port_and_proto(&spec) {
                let findings = [expose_proto_casing::check(&spec), expose_invalid_format::check(&spec)];
                state.findings.extend(findings.into_iter().flatten().map(|finding| finding.at(word.span)));
            }
            ports.extend(parse_expose_word(&spec)?);
            if ports.len() > MAX_PORTS {
                return Err(format!("EXPOSE of more than {MAX_PORTS} ports"));
            }
        }
    }
    Ok(ports)
}

fn volume(state: &mut State, lex: &Lex, words: &[Word]) -> Outcome {
    let volumes: Vec<String> =
        words.iter().map(|word| expand(&mut *state, lex, word)).collect::<Outcome<_>>()?;
    if volumes.iter().any(String::is_empty) {
        return Err("VOLUME specified can not be an empty string".into());
    }
    state.commit(format!("VOLUME [{}]", volumes.join(" ")));
    let all = state.config.config.volumes.get_or_insert_default();
    all.extend(volumes.into_iter().map(|volume| (volume, Default::default())));
    Ok(())
}

fn healthcheck(state: &mut State, check: &ast::Healthcheck) {
    let written = |value: i64| Some(value).filter(|value| *value != 0);
    state.commit(format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries,
    ));
    state.config.config.healthcheck = Some(Healthcheck {
        test: non_empty(check.test.clone()),
        interval: written(check.interval),
        timeout: written(check.timeout),
        start_period: written(check.start_period),
        start_interval: written(check.start_interval),
        retries: written(check.retries),
    });
}

/// Nanoseconds as Go prints a duration: `1h2m3.5s`, `100ms`.
pub(super) fn go_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64, suffix: &str| {
        let digits = unit.ilog10() as usize;
        let decimals = format!("{:0digits$}", value % unit);
        let decimals = decimals.trim_end_matches('0');
        let point = if decimals.is_empty() || unit == 1 { "" } else { "." };
        let decimals = if unit == 1 { "" } else { decimals };
        format!("{}{point}{decimals}{suffix}", value / unit)
    };
    let text = match all {
        0 => "0s".into(),
        1..1_000 => fraction(all, 1, "ns"),
        1_000..1_000_000 => fraction(all, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(all, 1_000_000, "ms"),
        _ => {
            let minutes = all / 60_000_000_000;
            let seconds = fraction(all % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

impl Lowering<'_, '_> {
    /// ARG in a stage.
    pub(super) fn arg(
        &mut self,
        node: usize,
        state: &mut State,
        instruction: &Instruction,
        arg: &ArgInstruction,
    ) -> Outcome {
        let mut text = String::from("ARG");
        for pair in &arg.pairs {
            let name = pair.name.as_str();
            state.findings.extend(secrets_used_in_arg_or_env::check("ARG", name, pair.name.span));
            let given = self.plan.build_arg(name);
            let own = given.is_some() || pair.default.is_some();
            let value = match (given, &pair.default) {
                (Some(value), _) => Some(value.into_owned()),
                (None, Some(default)) => Some(expand(state, &self.plan.lex, default)?),
                (None, None) => self.plan.globals.get(name).map(str::to_owned),
            };
            text.push(' ');
            text.push_str(name);
            if let Some(value) = &value {
                text.push('=');
                text.push_str(value);
                if !NOT_IN_ENV.contains(&name) {
                    state.env.set(name, value);
                }
            }
            if own || value.is_none() {
                let shown = OutlineArg {
                    name: name.to_owned(),
                    value: value.clone().unwrap_or_default(),
                    description: outline::description(&instruction.prev_comments, Some(name)),
                    lines: instruction.lines,
                };
                self.parameters(node).args.insert(name.to_owned(), shown);
            }
            self.parameters(node).used.insert(name.to_owned());
            state.declare(name, value);
        }
        state.commit(text);
        Ok(())
    }

    /// WORKDIR: a directory of its own layer, unless it is `/`.
    pub(super) fn workdir(
        &mut self,
        node: usize,
        state: &mut State,
        instruction: &Instruction,
        path: &Word,
    ) -> Outcome {
        let word = path;
        let path = expand(state, &self.plan.lex, path)?;
        if !std::mem::replace(&mut state.workdir_set, true) {
            state.findings.extend(workdir_relative_path::check(word, &path));
        }
        let current = state.config.config.working_dir.clone().unwrap_or_default();
        let dir = paths::workdir(&current, &path);
        state.set_dir(&dir);
        let mut layer = None;
        if dir != "/" {
            let shown = names::shown(&instruction.original, &self.plan.lex, &state.env);
            let name = names::prefixed(&self.plan, node, state, &shown);
            let op = Op::Mkdir(MkdirOp {
                path: paths::clean(&dir),
                user: state.user().to_owned(),
                epoch: self.plan.epoch,
            });
            layer = Some(self.add_layer(node, state, op, &[], name, instruction.lines));
        }
        state.commit_layer(format!("WORKDIR {dir}"), layer);
        Ok(())
    }
}
