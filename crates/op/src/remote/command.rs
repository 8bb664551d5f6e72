//! Running `git` so that nothing but its arguments decides what it does.
//!
//! No system, user or repository configuration of the machine, no hooks, no credential helpers, no prompts, only the
//! protocols that are meant, and credentials neither in arguments nor in files.

use super::{Remote, basic, host_of};
use crate::error::OpFailure;
use crate::ssh::{AgentSocket, SshAgent};
use rbuild_ir::RemoteUrl;
use rbuild_solver::{OpError, StepContext};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// Where programs are looked for when nobody says it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Protocols that a remote or a submodule may be fetched by.
const PROTOCOLS: &str = "http:https:git:ssh";
/// Longest standard output that is read, in bytes: a list of references.
const MAX_OUTPUT: u64 = 64 << 20;
/// Last bytes of the error output that are shown.
const MAX_ERROR: usize = 4 << 10;
/// What git reads instead of any other configuration. It holds for submodules, too.
pub(super) const CONFIG: &str = "[core]
\thooksPath = /dev/null
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tfsmonitor = false
\tsymlinks = true
\tfileMode = true
\tautocrlf = false
\tprotectHFS = true
\tprotectNTFS = true
[credential]
\thelper =
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\tunpackLimit = 1
\trecurseSubmodules = false
[submodule]
\trecurse = false
[uploadpack]
\tallowAnySHA1InWant = true
[http]
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
[safe]
\tdirectory = *
[advice]
\tdetachedHead = false
[init]
\tdefaultBranch = main
";

/// How a git process is started.
pub(super) struct Git {
    program_path: OsString,
    /// [`CONFIG`] in a file.
    config: PathBuf,
    env: Vec<(String, OsString)>,
    /// Protocols that may be used, none when offline.
    protocols: &'static str,
    /// As it may be shown.
    shown: String,
    /// The remote without password, for the command line.
    pub(super) url: String,
    /// Answers for keys that were given as files.
    _agent: Option<AgentSocket>,
}

/// What a git process left.
pub(super) struct Output {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Remote {
    /// Prepares commands about `remote`.
    pub(super) fn git(&self, remote: &RemoteUrl) -> Result<Git, OpError> {
        let (url, userinfo) = split_userinfo(remote.secret());
        let mut env: Vec<(String, OsString)> = Vec::new();
        let proxies = &self.config.proxies;
        for (name, value) in [("http_proxy", &proxies.http), ("https_proxy", &proxies.https)] {
            if let Some(value) = value {
                env.push((name.to_owned(), value.into()));
            }
        }
        let except = proxies.no_proxy.as_deref().map(|hosts| format!(",{hosts}")).unwrap_or_default();
        env.push(("no_proxy".to_owned(), format!("localhost,127.0.0.1,::1{except}").into()));
        if let Some(file) = &self.config.ca_file {
            env.push(("GIT_SSL_CAINFO".to_owned(), file.into()));
        }
        if let Some(dir) = self.config.ca_dirs.first() {
            env.push(("GIT_SSL_CAPATH".to_owned(), dir.into()));
        }
        let mut agent = None;
        match self.confidential.agents.get("default") {
            Some(SshAgent::Socket(path)) => env.push(("SSH_AUTH_SOCK".to_owned(), path.into())),
            Some(keys) => {
                let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                let socket = AgentSocket::open(&self.store, keys, 0o600, own)?;
                env.push(("SSH_AUTH_SOCK".to_owned(), socket.path().into()));
                agent = Some(socket);
            }
            None => {}
        }
        let secret = self.git_authorization(host_of(&url))?.map(|authorization| authorization.header);
        if let Some(header) = userinfo.map(|(user, password)| basic(&user, &password)).or(secret)
            && let Some(origin) = http_origin(&url)
        {
            // By environment: the arguments of a process can be read by everybody.
            env.push(("GIT_CONFIG_COUNT".to_owned(), "1".into()));
            env.push(("GIT_CONFIG_KEY_0".to_owned(), format!("http.{origin}.extraHeader").into()));
            env.push(("GIT_CONFIG_VALUE_0".to_owned(), format!("Authorization: {header}").into()));
        }
        Ok(Git {
            program_path: self.config.helper_path.clone().unwrap_or_else(|| DEFAULT_PATH.into()),
            config: self.write_git_config()?,
            env,
            protocols: if self.resolving.offline { "none" } else { PROTOCOLS },
            shown: remote.redacted(),
            url,
            _agent: agent,
        })
    }

    fn write_git_config(&self) -> Result<PathBuf, OpError> {
        let path = self.store.root().join("git/config");
        if std::fs::read(&path).is_ok_and(|text| text == CONFIG.as_bytes()) {
            return Ok(path);
        }
        let ingest = self.store.new_layer_dir()?;
        let new = ingest.work.join("config");
        std::fs::write(&new, CONFIG)?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    }
}

impl Git {
    /// Runs `git args…` in `dir`. A failure to start is an error, a failing git is not.
    pub(super) async fn run<S: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: &[S],
        step: &StepContext,
    ) -> Result<Output, OpError> {
        self.run_with(dir, args, self.protocols, step).await
    }

    /// [`Git::run`] that may read repositories of this machine: only for our own ones.
    pub(super) async fn run_local<S: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: &[S],
        step: &StepContext,
    ) -> Result<Output, OpError> {
        self.run_with(dir, args, "file", step).await
    }

    async fn run_with<S: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: &[S],
        protocols: &str,
        step: &StepContext,
    ) -> Result<Output, OpError> {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", &self.program_path).env("LC_ALL", "C");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_SYSTEM", "/dev/null");
        command.env("GIT_CONFIG_GLOBAL", &self.config).env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "").env("SSH_ASKPASS", "");
        command.env("GIT_ALLOW_PROTOCOL", protocols).env("GIT_PROTOCOL_FROM_USER", "0");
        command.env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir));
        command.env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes").env("GIT_SSH_VARIANT", "ssh");
        command.env("GIT_LFS_SKIP_SMUDGE", "1").envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(args).current_dir(dir).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Group(command.spawn().map_err(|error| OpFailure::NoGit(error.to_string()))?);
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        let work = async { tokio::join!(child.0.wait(), all_of(stdout), tail_of(stderr)) };
        tokio::select! {
            (status, stdout, stderr) = work => {
                let stderr = rbuild_ir::redacted(String::from_utf8_lossy(&stderr?).trim());
                Ok(Output { success: status?.success(), stdout: stdout?, stderr })
            }
            () = step.cancel.cancelled() => Err(OpFailure::Canceled.into()),
        }
    }

    /// [`Git::run`] that has to succeed.
    pub(super) async fn must<S: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: &[S],
        action: &'static str,
        step: &StepContext,
    ) -> Result<Vec<u8>, OpError> {
        let output = self.run(dir, args, step).await?;
        if output.success { Ok(output.stdout) } else { Err(self.failed(action, &output.stderr)) }
    }

    /// The error of a git that failed.
    pub(super) fn failed(&self, action: &'static str, stderr: &str) -> OpError {
        let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let text: String =
            lines.join("; ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let message = if text.is_empty() { "git gave no reason".to_owned() } else { text };
        OpFailure::Git { action, remote: self.shown.clone(), message }.into()
    }
}

/// A process with all that it starts: they end with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Not waited for yet, so that its number cannot be another's.
        if let Some(pid) =
            self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn all_of(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(&mut out).await?;
    }
    Ok(out)
}

async fn tail_of(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(out) };
    let mut buffer = vec![0; MAX_ERROR];
    loop {
        let n = pipe.read(&mut buffer).await?;
        if n == 0 {
            return Ok(out);
        }
        out.extend_from_slice(&buffer[..n]);
        out.drain(..out.len().saturating_sub(MAX_ERROR));
    }
}

/// An http(s) URL without its user and password, and those. Other URLs keep the user and lose the password.
fn split_userinfo(url: &str) -> (String, Option<(String, String)>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((userinfo, host)) = rest[..end].rsplit_once('@') else { return (url.to_owned(), None) };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    if scheme != "http" && scheme != "https" {
        return (format!("{scheme}://{user}@{host}{}", &rest[end..]), None);
    }
    let decoded = |text: &str| rbuild_ir::percent_decoded(text);
    (format!("{scheme}://{host}{}", &rest[end..]), Some((decoded(user), decoded(password))))
}

/// `https://host:port/` of an http(s) URL.
fn http_origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    matches!(scheme, "http" | "https").then(|| format!("{scheme}://{authority}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (url, plain, userinfo) in [
            ("https://h/a.git", "https://h/a.git", None),
            ("https://u:p%40w@h:1/a.git", "https://h:1/a.git", pair("u", "p@w")),
            ("http://token@h/a.git", "http://h/a.git", pair("token", "")),
            ("ssh://git:pw@h/a", "ssh://git@h/a", None),
            ("git@h:a.git", "git@h:a.git", None),
        ] {
            assert_eq!(split_userinfo(url), (plain.to_owned(), userinfo), "{url}");
        }
        assert_eq!(http_origin("https://h:1/a.git").as_deref(), Some("https://h:1/"));
        assert_eq!(http_origin("git@h:a"), None);
    }
}
