//! RUN: a process in the parent's root; what it wrote is the layer.

mod bind;
mod binfmt;
mod cache_mount;
mod foreign;
mod key;
mod mounts;

pub(crate) use bind::BoundCell;
pub use cache_mount::CacheMountSource;

use crate::bridge::blocking;
use crate::engine::Engine;
use crate::error::OpFailure;
use crate::layer::{Layer, Root};
use crate::logs;
use crate::secret::{Redactor, Secret};
use async_trait::async_trait;
use mounts::{Asking, StepMounts};
use rbuild_event::Stream;
use rbuild_ir::{ExecOp, NetworkMode, SecurityMode};
use rbuild_oci::Digest;
use rbuild_runtime::{ExitStatus, Limits, Network, Outcome, Rlimit, RunningStep, RuntimeError, Spec, StepIo};
use rbuild_solver::{Inputs, Op, OpError, OperationKey, StepContext};
use rbuild_store::LayerIngest;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Host name of a step that was given none.
const HOSTNAME: &str = "buildkitsandbox";

pub(crate) struct ExecStep {
    engine: Arc<Engine>,
    op: ExecOp,
    /// Stage it belongs to, for --no-cache-filter.
    stage: String,
}

impl ExecStep {
    pub(crate) fn new(engine: Arc<Engine>, op: ExecOp, stage: String) -> Self {
        Self { engine, op, stage }
    }

    /// What is not granted or not there yet is refused before anything of the step is done.
    fn check(&self) -> Result<(), OpFailure> {
        if self.op.network == NetworkMode::Host && !self.engine.settings.allow_host_network {
            return Err(OpFailure::NotAllowed { what: "RUN --network=host", entitlement: "network.host" });
        }
        if self.op.security == SecurityMode::Insecure && !self.engine.settings.allow_insecure {
            let (what, entitlement) = ("RUN --security=insecure", "security.insecure");
            return Err(OpFailure::NotAllowed { what, entitlement });
        }
        Ok(())
    }

    fn spec(&self, lower: Vec<PathBuf>, ingest: &LayerIngest) -> Spec {
        let op = &self.op;
        let hostname = op.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned());
        let mut spec = Spec::new(lower, ingest.upper.clone(), ingest.work.clone(), op.args.clone());
        spec.env = op.env.iter().chain(&op.proxy_env).cloned().collect();
        spec.cwd = op.cwd.clone();
        spec.user = op.user.clone();
        spec.network = network_of(op.network);
        spec.privileged = op.security == SecurityMode::Insecure;
        spec.hosts = hosts(&hostname, &op.extra_hosts);
        spec.hostname = hostname;
        let settings = &self.engine.settings;
        spec.resolv_conf = match op.network {
            NetworkMode::Host => settings.resolv_conf_host.clone(),
            NetworkMode::Default | NetworkMode::None => settings.resolv_conf.clone(),
        };
        spec.rlimits = op.ulimits.iter().filter_map(|text| rlimit(text)).collect();
        let open_files = self.engine.settings.open_files;
        if let Some(soft) =
            open_files.filter(|_| !spec.rlimits.iter().any(|limit| limit.resource == "nofile"))
        {
            spec.rlimits.push(Rlimit { resource: "nofile".to_owned(), soft: Some(soft), hard: None });
        }
        if let Some(bytes) = self.engine.settings.shm_size {
            spec.shm_size = bytes;
        }
        spec.cgroup = self.engine.settings.cgroup.clone();
        spec
    }

    /// Runs the process to its end, passing its output on.
    async fn run(&self, spec: Spec, secrets: Vec<Secret>, step: &StepContext) -> Result<Outcome, OpError> {
        let engine = Arc::clone(&self.engine);
        let redactor = Redactor::new(&secrets);
        let mut running = blocking(move || -> Result<RunningStep, OpError> {
            let secrets: Vec<&[u8]> = secrets.iter().map(Secret::bytes).collect();
            Ok(engine.launcher()?.spawn_with_secrets(&spec, &secrets, StepIo::default())?)
        })
        .await?;
        let redactor = &redactor;
        let forward = |fd, stream| async move {
            match fd {
                Some(fd) => logs::forward(fd, stream, step.clone(), redactor).await,
                None => Ok(()),
            }
        };
        let (stdout, stderr) = (running.take_stdout(), running.take_stderr());
        let killer = running.killer();
        let ended = tokio::task::spawn_blocking(move || running.wait());
        let output = async { tokio::join!(forward(stdout, Stream::Stdout), forward(stderr, Stream::Stderr)) };
        let both = async { tokio::join!(ended, output) };
        tokio::pin!(both);
        let (ended, output) = tokio::select! {
            both = &mut both => both,
            () = step.cancel.cancelled() => {
                killer.kill();
                both.await
            }
        };
        output.0.and(output.1)?;
        let outcome = ended??;
        if step.cancel.is_cancelled() {
            return Err(OpFailure::Canceled.into());
        }
        Ok(outcome)
    }

    fn failure(&self, reason: String, code: i32) -> OpError {
        OpFailure::Process { command: self.op.args.join(" "), reason, code }.into()
    }

    fn check_outcome(&self, outcome: &Outcome) -> Result<(), OpError> {
        if outcome.deadline {
            return Err(self.failure("it took too long and was killed".into(), 137));
        }
        let code = outcome.status.code();
        if outcome.oom_kills > 0 && !outcome.status.success() {
            let limits = self.engine.settings.cgroup.as_ref().map(|cgroup| cgroup.limits());
            return Err(self.failure(out_of_memory(outcome, limits), code));
        }
        match failed(outcome) {
            Some(reason) => Err(self.failure(reason, code)),
            None => Ok(()),
        }
    }
}

/// how a step failed: its exit code, and the signal by number.
fn failed(outcome: &Outcome) -> Option<String> {
    let code = outcome.status.code();
    let signal = match outcome.status {
        ExitStatus::Exited(0) => return None,
        ExitStatus::Exited(_) => String::new(),
        ExitStatus::Signaled { signal } => format!(" (killed by signal {signal})"),
    };
    let memory = if outcome.oom_hint { " (the machine ran out of memory meanwhile)" } else { "" };
    Some(format!("exit code: {code}{signal}{memory}"))
}

/// BuildKit's words for a step some process of which was killed for want of memory, and what helps.
fn out_of_memory(outcome: &Outcome, limits: Option<&Limits>) -> String {
    let killed = match outcome.oom_kills {
        1 => "a process was".to_owned(),
        count => format!("{count} processes were"),
    };
    let remedy = match limits.and_then(|limits| limits.memory) {
        Some(bytes) => {
            let mib = bytes >> 20;
            let limit = if mib << 20 == bytes { format!("{mib}m") } else { bytes.to_string() };
            format!("the limit is memory={limit}: raise it with --resource, or let the step use less")
        }
        None => "raise the limit of --cgroup-parent, or let the step use less".to_owned(),
    };
    let code = outcome.status.code();
    format!("cannot allocate memory (exit code: {code}; {killed} killed when memory ran out; {remedy})")
}

/// The one place that decides what network a step sees: until steps get networks of their own, `default` is the
/// machine's.
fn network_of(mode: NetworkMode) -> Network {
    match mode {
        NetworkMode::None => Network::None,
        NetworkMode::Default | NetworkMode::Host => Network::Host,
    }
}

/// /etc/hosts of a step.
fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        writeln!(text, "{address}\t{name}").expect("writing to a string cannot fail");
    }
    text
}

/// `name=soft:hard` as lowering writes it; -1 is unlimited.
fn rlimit(text: &str) -> Option<Rlimit> {
    let (resource, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = |text: &str| text.parse::<u64>().ok();
    Some(Rlimit { resource: resource.to_owned(), soft: limit(soft), hard: limit(hard) })
}

#[async_trait]
impl Op for ExecStep {
    type Output = Root;

    async fn operation_key(&self, _: &StepContext) -> Result<OperationKey, OpError> {
        self.check()?;
        let contexts = self.engine.bound_contexts(&self.op).await?;
        let digests: Vec<_> =
            contexts.iter().map(|bound| bound.as_ref().map(|bound| bound.digest())).collect();
        let details = contexts.iter().flatten().map(bind::detail);
        Ok(OperationKey::of(key::preimage(&self.op, &digests)).with_details(details))
    }

    async fn inputs_digest(&self, inputs: &Inputs<Root>) -> Result<Option<Digest>, OpError> {
        let step = self.engine.quiet_step();
        Ok(Some(self.engine.input_digests(&self.op, inputs, &step).await?))
    }

    async fn execute(&self, step: &StepContext, inputs: &Inputs<Root>) -> Result<Root, OpError> {
        let ran = match self.attempt(step, inputs, None).await {
            Err(error) => match foreign::Refused::of(&error, &self.op.platform) {
                Some(refused) => self.emulate(step, inputs, &refused).await,
                None => Err(self.not_run(error)),
            },
            ran => ran,
        };
        let Err(error) = &ran else { return ran };
        if !matches!(error.downcast_ref(), Some(OpFailure::DiskFull { .. })) {
            return ran;
        }
        let store = self.engine.store.clone();
        if !blocking(move || Ok::<_, OpError>(store.makes_room_for_step())).await? {
            return ran;
        }
        let text = format!("{error}; unused cache was removed, the step runs once more");
        step.reporter.report(rbuild_event::Event::Warning { text });
        self.attempt(step, inputs, None).await.map_err(|error| self.not_run(error))
    }
}

impl ExecStep {
    /// Runs the step once.
    async fn attempt(
        &self,
        step: &StepContext,
        inputs: &Inputs<Root>,
        emulator: Option<&Path>,
    ) -> Result<Root, OpError> {
        let parent = inputs.parent.clone().unwrap_or_default();
        let lower = self.engine.dirs_of(&parent, step).await?;
        let ingest = self.engine.store.new_layer_dir()?;
        let mut spec = self.spec(lower, &ingest);
        let fresh = self.engine.settings.no_cache.covers(&self.stage);
        let asking = Asking { engine: &self.engine, op: &self.op, inputs, step, fresh };
        let mut mounts = StepMounts::prepare(&asking).await?;
        mounts.apply(&mut spec);
        let devices = self.engine.settings.devices.for_step(&self.op.devices)?;
        for name in &devices.missing {
            let text = format!("optional device {name} is not registered: the step runs without it");
            step.reporter.report(rbuild_event::Event::Warning { text });
        }
        devices.apply(&mut spec);
        if let Some(emulator) = emulator {
            foreign::apply(emulator, &mut spec);
        }
        let ran = self.run(spec, mounts.secrets.clone(), step).await;
        let secrets = std::mem::take(&mut mounts.secrets);
        drop(mounts);
        let outcome = ran?;
        self.warn_of_missing_filter(&outcome, step);
        self.check_outcome(&outcome).map_err(|source| self.blame_disk(source))?;
        self.warn_of_leaks(&ingest, secrets, step).await?;
        let id = self.engine.new_layer_id();
        let dir = self.engine.store.commit_layer_dir(ingest, &id)?;
        let layer = self.engine.intern(Layer::executed(id, SystemTime::now(), dir));
        Ok(parent.with(layer))
    }

    /// Once a build: the reason is the machine's, and the same for every step.
    fn warn_of_missing_filter(&self, outcome: &Outcome, step: &StepContext) {
        let Some(errno) = outcome.unfiltered else { return };
        if !self.engine.unfiltered_said.swap(true, Ordering::Relaxed) {
            let reason = std::io::Error::from_raw_os_error(errno);
            let text =
                format!("RUN steps run without a system call filter, which the kernel refused: {reason}");
            step.reporter.report(rbuild_event::Event::Warning { text });
        }
    }

    /// A program that failed on a full disk most likely failed because of it. To be asked before what it wrote is removed.
    fn blame_disk(&self, source: OpError) -> OpError {
        let store = &self.engine.store;
        if store.is_disk_full() {
            return OpFailure::DiskFull { store: store.root().to_owned(), source }.into();
        }
        source
    }

    /// What a step does with a secret is its own business, but a secret in the image is hardly ever meant.
    async fn warn_of_leaks(
        &self,
        ingest: &LayerIngest,
        secrets: Vec<Secret>,
        step: &StepContext,
    ) -> Result<(), OpError> {
        if secrets.is_empty() {
            return Ok(());
        }
        let upper = ingest.upper.clone();
        let found = blocking(move || crate::secret::leaks(&upper, &secrets)).await?;
        for path in found {
            let text =
                format!("this step wrote the value of a secret to {path}: it is now a part of the image");
            step.reporter.report(rbuild_event::Event::Warning { text });
        }
        Ok(())
    }

    /// A program that is missing is the step's fault, not the sandbox's.
    fn not_run(&self, error: OpError) -> OpError {
        match error.downcast_ref::<RuntimeError>().and_then(RuntimeError::exit_code) {
            Some(code) => self.failure(format!("exit code: {code}: {error}"), code),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_runtime::Usage;

    #[test]
    fn hosts_name_the_step_and_what_was_added() {
        let text = hosts("box", &[("db".into(), "10.0.0.2".into())]);
        assert_eq!(
            text,
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n"
        );
    }

    ///
    #[test]
    fn failures_begin_with_the_exit_code() {
        let outcome = |status, oom_hint| Outcome {
            status,
            killed: false,
            deadline: false,
            oom_hint,
            oom_kills: 0,
            unfiltered: None,
            usage: Usage::default(),
        };
        let killed = ExitStatus::Signaled { signal: 9 };
        for (status, oom, want) in [
            (ExitStatus::Exited(0), true, None),
            (ExitStatus::Exited(7), false, Some("exit code: 7")),
            (ExitStatus::Exited(137), true, Some("exit code: 137 (the machine ran out of memory meanwhile)")),
            (killed, false, Some("exit code: 137 (killed by signal 9)")),
        ] {
            assert_eq!(failed(&outcome(status, oom)).as_deref(), want);
        }
    }

    #[test]
    fn limits_are_read_back() {
        let limit = rlimit("nofile=1024:-1").unwrap();
        assert_eq!((limit.resource.as_str(), limit.soft, limit.hard), ("nofile", Some(1024), None));
    }

    /// BuildKit's words first.
    #[test]
    fn a_step_without_memory_says_what_to_raise() {
        let outcome = Outcome {
            status: ExitStatus::Exited(1),
            killed: false,
            deadline: false,
            oom_hint: false,
            oom_kills: 2,
            unfiltered: None,
            usage: rbuild_runtime::Usage::default(),
        };
        let limits = |memory| Limits { memory: Some(memory), ..Limits::default() };
        assert_eq!(
            out_of_memory(&outcome, Some(&limits(64 << 20))),
            "cannot allocate memory (exit code: 1; 2 processes were killed when memory ran out; the limit is memory=64m: \
             raise it with --resource, or let the step use less)"
        );
        assert!(out_of_memory(&outcome, Some(&limits(7_000_001))).contains("memory=7000001:"));
        assert!(out_of_memory(&outcome, Some(&Limits::default())).contains("--cgroup-parent"));
    }

    #[test]
    fn only_none_is_a_network_of_its_own() {
        let modes = [NetworkMode::Default, NetworkMode::Host, NetworkMode::None].map(network_of);
        assert_eq!(modes, [Network::Host, Network::Host, Network::None]);
    }
}
