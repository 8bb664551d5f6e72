//! Sockets through which steps talk to an SSH agent (A-088, D-012).

mod agent;
mod key;
#[cfg(test)]
mod tests;
mod wire;

pub use key::{MAX_KEY_BYTES, SshKey, SshKeyError};

use rbuild_solver::OpError;
use rbuild_store::{LayerIngest, Store};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Name of the socket in its directory.
const SOCKET: &str = "agent";

/// Who answers for the keys behind an `--ssh`.
#[derive(Debug, Clone)]
pub enum SshAgent {
    /// The agent at this socket.
    Socket(PathBuf),
    /// This process, with these keys.
    Keys(Vec<SshKey>),
}

/// A socket of our own that passes everything on to the agent, so that it can have the owner and mode that the step
/// asks for. Dropping it ends all connections.
pub(crate) struct AgentSocket {
    path: PathBuf,
    _dir: LayerIngest,
    _until: DropGuard,
}

impl AgentSocket {
    /// Listens for `agent`.
    pub(crate) fn open(
        store: &Store,
        agent: &SshAgent,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<Self, OpError> {
        let dir = store.new_layer_dir()?;
        let path = dir.work.join(SOCKET);
        // The store's path may be longer than the address of a socket can be.
        let held = std::fs::File::open(&dir.work)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd()))?;
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode & 0o7777))?;
        let until = CancellationToken::new();
        tokio::spawn(serve(listener, agent.clone(), until.clone()));
        Ok(Self { path, _dir: dir, _until: until.drop_guard() })
    }

    /// The socket on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

async fn serve(listener: UnixListener, agent: SshAgent, until: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = until.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // A connection that cannot be made ends at once, which is what the step's ssh reports.
        let Ok((mut step, _)) = accepted else { return };
        let (agent, until) = (agent.clone(), until.clone());
        tokio::spawn(async move {
            let talk = async {
                match &agent {
                    SshAgent::Keys(keys) => drop(agent::converse(keys, &mut step).await),
                    SshAgent::Socket(path) => {
                        let Ok(mut agent) = UnixStream::connect(path).await else { return };
                        drop(tokio::io::copy_bidirectional(&mut step, &mut agent).await);
                    }
                }
            };
            tokio::select! {
                () = until.cancelled() => {}
                () = talk => {}
            }
        });
    }
}
