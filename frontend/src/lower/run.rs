//! RUN (A9 to A11, A-123).

use super::config::expand_text;
use super::state::State;
use super::vertices::Inputs;
use super::{Lowering, Outcome, names};
use crate::args;
use crate::ast::{self, RunInstruction, Word};
use crate::env::{Env, Lookup};
use crate::heredoc::parse_heredoc;
use crate::mount::{MountSpec, MountType};
use crate::outline::OutlineMount;
use crate::shell::Lex;
use crate::stage::Command;
use rbuild_ir::{Device, ExecOp, Mount, MountKind, NetworkMode, Op, SecurityMode, VertexDigest};

/// Where heredoc scripts with a `#!` line are put.
const PIPES: &str = "/dev/pipes";
/// Magic build argument: the host name inside RUN.
const HOSTNAME_ARG: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// What a secret's variable shows in step names.
const MASK: &str = "****";

/// The command of a RUN with its heredocs put in.
struct Script {
    /// The text for the shell, or the words of the exec form.
    args: Vec<String>,
    pipes: Vec<(String, String)>,
    /// What the step's name says about the heredoc.
    summary: String,
}

impl Lowering<'_, '_> {
    pub(super) fn run_instruction(
        &mut self,
        node: usize,
        state: &mut State,
        command: &Command<'_>,
        run: &RunInstruction,
    ) -> Outcome {
        let lines = command.instruction.lines;
        let script = script(run);
        let argv = match run.command.prepend_shell {
            true => state.with_shell(&script.args.join(" ")),
            false => script.args,
        };
        if argv.is_empty() {
            return Err("arguments are required".into());
        }
        let texts = argv.iter().chain(script.pipes.iter().map(|(_, text)| text));
        if self.plan.dockerfile.replaced_bytes && texts.into_iter().any(|text| text.contains('\u{fffd}')) {
            // BuildKit cannot send such a command to its solver ("string field contains invalid UTF-8").
            state.remedy =
                Some("save the file as UTF-8, or have printf write the bytes ('\\351')".to_owned());
            return Err("the command is not UTF-8: a step cannot be given these bytes".into());
        }
        let specs = mount_specs(run, &self.plan.lex, state)?;
        let mut inputs = Inputs::default();
        let mounts = self.mounts(state, &specs, &command.sources, &mut inputs)?;
        self.note_mounts(node, &mounts, lines);

        let lex = Lex { raw_quotes: true, skip_unset_env: true, ..self.plan.lex };
        let text = format!("{}{}", command.instruction.original, script.summary);
        let shown = names::shown(&text, &lex, &Masked::new(&specs, &state.env));
        let name = names::prefixed(&self.plan, node, state, &shown);

        let options = self.plan.options;
        let mut env = state.env.clone();
        let agent = mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
        if let (Some(agent), None) = (agent, env.get("SSH_AUTH_SOCK")) {
            env.set("SSH_AUTH_SOCK", &agent.target);
        }
        let mut ulimits = options.ulimits.clone();
        ulimits.sort();
        let hostname = options.hostname.as_deref().or(options.build_arg(HOSTNAME_ARG));
        let op = Op::Exec(ExecOp {
            args: argv.clone(),
            env: env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: state.cwd.clone(),
            user: state.user().to_owned(),
            hostname: hostname.filter(|name| !name.is_empty()).map(str::to_owned),
            network: match run.network {
                ast::NetworkMode::Default => state.network,
                ast::NetworkMode::None => NetworkMode::None,
                ast::NetworkMode::Host => NetworkMode::Host,
            },
            security: match run.security {
                ast::SecurityMode::Sandbox => SecurityMode::Sandbox,
                ast::SecurityMode::Insecure => SecurityMode::Insecure,
            },
            mounts,
            devices: run.devices.iter().map(device).collect(),
            pipes: script.pipes,
            extra_host_names: options.extra_hosts.iter().map(|(name, _)| name.clone()).collect(),
            ulimits,
            platform: state.platform.clone(),
            proxy_env: args::proxies(options),
            extra_hosts: options.extra_hosts.clone(),
        });
        let layer = self.add_layer(node, state, op, inputs.vertices(), name, lines);
        let created_by = format!("RUN {}{} # buildkit", state.arg_prefix(), argv.join(" "));
        state.commit_layer(created_by, Some(layer));
        Ok(())
    }

    /// Remembers secrets, agents and caches for the outline.
    fn note_mounts(&mut self, node: usize, mounts: &[Mount], lines: ast::LineRange) {
        for mount in mounts {
            let stage = self.parameters(node);
            let (list, id, required) = match &mount.kind {
                MountKind::Secret { id, required, .. } => (&mut stage.secrets, id, *required),
                MountKind::Ssh { id, required, .. } => (&mut stage.ssh, id, *required),
                MountKind::Cache { id, .. } => (&mut stage.cache, id, false),
                MountKind::Bind { .. } | MountKind::Tmpfs { .. } => continue,
            };
            list.push(OutlineMount { id: id.clone(), required, lines });
        }
    }

    /// Puts an operation on top of the stage's root.
    pub(super) fn add_layer(
        &mut self,
        node: usize,
        state: &mut State,
        op: Op,
        inputs: &[usize],
        name: String,
        lines: ast::LineRange,
    ) -> VertexDigest {
        let stage = self.plan.stage_key(node);
        self.spent += name.len();
        let parent = self.vertices.root(&state.root, &stage);
        let made = self.vertices.add(op, parent, inputs, name, stage, lines);
        state.root = super::state::Root::Vertex(made);
        self.vertices.digest(made)
    }
}

/// Reads the `--mount`s with the variables of this point.
fn mount_specs(run: &RunInstruction, lex: &Lex, state: &mut State) -> Outcome<Vec<MountSpec>> {
    let parse = |word: &Word| {
        let spec = MountSpec::parse(word.as_str(), |text| expand_text(state, lex, text, word.span));
        spec.map_err(|error| {
            state.fault = word.span;
            state.remedy = error.remedy();
            error.to_string()
        })
    };
    run.mounts.iter().map(parse).collect()
}

fn device(device: &ast::Device) -> Device {
    Device { name: device.name.clone(), required: device.required }
}

fn script(run: &RunInstruction) -> Script {
    let args: Vec<String> = run.command.args.iter().map(|word| word.value.clone()).collect();
    let (Some(first), Some(heredoc)) = (args.first(), run.heredocs.first()) else {
        return Script { args, pipes: Vec::new(), summary: String::new() };
    };
    if parse_heredoc(first).is_none() {
        // The shell reads the heredocs: they are put behind the command again.
        let text = run
            .heredocs
            .iter()
            .fold(first.clone(), |text, heredoc| format!("{text}\n{}{}", heredoc.content, heredoc.name));
        return Script { args: vec![text], pipes: Vec::new(), summary: String::new() };
    }
    let body = heredoc.body();
    let summary = format!(" ({})", summarize(&heredoc.content));
    if !body.starts_with("#!") {
        return Script { args: vec![body], pipes: Vec::new(), summary };
    }
    let path = crate::paths::join(PIPES, &heredoc.name);
    Script { args: vec![path], pipes: vec![(heredoc.name.clone(), body)], summary }
}

/// The first line of a heredoc, with dots when there are more.
fn summarize(body: &str) -> String {
    let mut lines = body.trim().split('\n');
    let first = lines.next().unwrap_or_default();
    match lines.next() {
        Some(_) => format!("{}...", first.strip_suffix('\r').unwrap_or(first)),
        None => first.to_owned(),
    }
}

/// The environment for a step's name: variables that secrets fill are masked.
struct Masked<'a> {
    secrets: Vec<&'a str>,
    env: &'a Env,
}

impl<'a> Masked<'a> {
    fn new(specs: &'a [MountSpec], env: &'a Env) -> Self {
        let secrets = specs.iter().filter(|spec| spec.kind == MountType::Secret);
        Self { secrets: secrets.filter_map(|spec| spec.env.as_deref()).collect(), env }
    }
}

impl Lookup for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.secrets.contains(&name) { Some(MASK) } else { self.env.get(name) }
    }
}
