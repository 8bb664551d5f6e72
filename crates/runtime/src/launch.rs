//! The builder's side: starting supervisors and hearing from them.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Context, Errno};
use crate::init::INIT_ARG0;
use crate::seccomp::Filter;
use crate::wire::{self, Outcome, Report};
use crate::{RuntimeError, Spec, sys};

/// Where one output stream of the step goes.
#[derive(Debug, Default)]
pub enum StepOutput {
    /// Into a new pipe whose other end [`RunningStep`] holds.
    #[default]
    Piped,
    /// Nowhere.
    Null,
    /// Into this descriptor.
    Fd(OwnedFd),
}

impl From<StepOutput> for Stdio {
    fn from(output: StepOutput) -> Stdio {
        match output {
            StepOutput::Piped => Stdio::piped(),
            StepOutput::Null => Stdio::null(),
            StepOutput::Fd(fd) => fd.into(),
        }
    }
}

/// Where the step's output goes; its input is empty.
#[derive(Debug, Default)]
pub struct StepIo {
    /// Standard output.
    pub stdout: StepOutput,
    /// Standard error.
    pub stderr: StepOutput,
}

/// Starts steps. Cheap to make, but made once a build: it holds the executable that supervisors run.
#[derive(Debug)]
pub struct Launcher {
    /// The executable as a read-only mount of its own, attached nowhere: a step that gets hold of
    /// `/proc/PID/exe` of its supervisor cannot write to the builder's file through it (CVE-2019-5736).
    executable: OwnedFd,
}

impl Launcher {
    /// Supervisors run the executable of this process, whose `main` calls [`init_main`](crate::init_main).
    ///
    /// # Errors
    /// [`RuntimeError::Setup`] without the right to mount.
    pub fn new() -> Result<Self, RuntimeError> {
        Self::with_executable(Path::new("/proc/self/exe"))
    }

    /// Supervisors run `executable`, whose `main` calls [`init_main`](crate::init_main).
    ///
    /// # Errors
    /// [`RuntimeError::Setup`] if it is missing, or without the right to mount.
    pub fn with_executable(executable: &Path) -> Result<Self, RuntimeError> {
        let shown = executable.to_string_lossy();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let executable = open_tree(CWD, executable, flags).context("mount", &shown)?;
        let attributes = sys::attr::RDONLY | sys::attr::NOSUID | sys::attr::NODEV;
        sys::set_mount_attributes(executable.as_fd(), attributes, false).context("make read-only", &shown)?;
        Ok(Launcher { executable })
    }

    /// Starts a step. Returns as soon as its supervisor has been told what to do; that the sandbox could not be
    /// set up or the program not be found is what [`RunningStep::wait`] answers.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidSpec`], [`RuntimeError::Spawn`].
    pub fn spawn(&self, spec: &Spec, io: StepIo) -> Result<RunningStep, RuntimeError> {
        self.spawn_with_secrets(spec, &[], io)
    }

    /// [`spawn`](Self::spawn) with values that `spec` refers to by their place in `secrets`.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidSpec`], [`RuntimeError::Spawn`].
    pub fn spawn_with_secrets(
        &self,
        spec: &Spec,
        secrets: &[&[u8]],
        io: StepIo,
    ) -> Result<RunningStep, RuntimeError> {
        spec.validate()?;
        let (control, theirs) = UnixStream::pair().map_err(|e| spawn_error("create a socket", e))?;
        // The path is resolved in the child just before descriptors that close on exec are closed.
        let program = format!("/proc/self/fd/{}", self.executable.as_raw_fd());
        let mut command = Command::new(program);
        command.arg0(INIT_ARG0).env_clear();
        command.stdin(OwnedFd::from(theirs)).stdout(io.stdout).stderr(io.stderr);
        let child = command.spawn().map_err(|e| spawn_error("execute", e))?;
        // Our copy of its end of the socket goes with `command`.
        drop(command);
        let mut step = RunningStep { child, control: Arc::new(control), reaped: false };
        match tell(&step.control, spec, secrets) {
            Ok(()) => Ok(step),
            Err(e) => Err(step.lost(e)),
        }
    }
}

/// Tells a supervisor what to do.
fn tell(mut control: &UnixStream, spec: &Spec, secrets: &[&[u8]]) -> io::Result<()> {
    wire::send(&mut control, spec)?;
    wire::send_secrets(&mut control, secrets)?;
    let filter = Filter::of_step(spec).map(|filter| filter.to_bytes()).unwrap_or_default();
    wire::send_bytes(&mut control, &filter)
}

fn spawn_error(operation: &str, error: io::Error) -> RuntimeError {
    let remedy = RuntimeError::setup(operation, "", Errno::from(error));
    match remedy {
        RuntimeError::Setup { operation, errno, .. } => RuntimeError::Spawn { operation, errno },
        other => other,
    }
}

/// A step under way. Dropping it kills the step and waits for its end.
#[derive(Debug)]
pub struct RunningStep {
    child: Child,
    control: Arc<UnixStream>,
    reaped: bool,
}

/// Kills a step from elsewhere, also after the step has ended.
#[derive(Clone, Debug)]
pub struct Killer(Arc<UnixStream>);

impl Killer {
    /// Kills every process of the step with SIGKILL. [`RunningStep::wait`] then returns soon, after the mount
    /// targets are cleaned up, with [`Outcome::killed`] set unless the step had already ended.
    pub fn kill(&self) {
        // Fails only when the supervisor is gone, and then so is the step.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

impl RunningStep {
    /// The reading end of the step's output, once, if it is [`StepOutput::Piped`]. It ends when the last process
    /// of the step does.
    pub fn take_stdout(&mut self) -> Option<OwnedFd> {
        self.child.stdout.take().map(OwnedFd::from)
    }

    /// As [`take_stdout`](Self::take_stdout), for standard error.
    pub fn take_stderr(&mut self) -> Option<OwnedFd> {
        self.child.stderr.take().map(OwnedFd::from)
    }

    /// Process id of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A handle that kills this step.
    pub fn killer(&self) -> Killer {
        Killer(Arc::clone(&self.control))
    }

    /// Kills every process of the step.
    pub fn kill(&self) {
        self.killer().kill();
    }

    /// Waits until the step has ended and its mounts are gone. Blocks: from asynchronous code call it in
    /// `spawn_blocking`. Output should be read meanwhile, or a full pipe stops the step.
    ///
    /// # Errors
    /// Why the program could not be run. A program that failed is an [`Outcome`].
    pub fn wait(mut self) -> Result<Outcome, RuntimeError> {
        let report = wire::receive::<Report>(&mut &*self.control);
        match report {
            Ok(report) => {
                self.reap().map_err(|e| spawn_error("wait", e))?;
                report
            }
            Err(e) => Err(self.lost(e)),
        }
    }

    fn reap(&mut self) -> io::Result<std::process::ExitStatus> {
        self.reaped = true;
        self.child.wait()
    }

    /// The supervisor is gone without a word.
    fn lost(&mut self, why: io::Error) -> RuntimeError {
        self.kill();
        let status = self.reap().map_or_else(|e| e.to_string(), |status| format!("{status}; {why}"));
        RuntimeError::SupervisorLost { status }
    }
}

impl Drop for RunningStep {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // Nobody will read the rest: the step must not be stopped by a full pipe on its way out.
            drop((self.child.stdout.take(), self.child.stderr.take()));
            let _ = self.reap();
        }
    }
}
