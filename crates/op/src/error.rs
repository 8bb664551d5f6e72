//! How operations fail, beyond the errors of the rooms they use.

use rbuild_oci::Platform;

/// A failure that the caller may want to tell from others: it decides the exit code and the words.
#[derive(Debug, thiserror::Error)]
pub enum OpFailure {
    /// The process of a RUN ended badly.
    #[error("process {command:?} did not complete successfully: {reason}")]
    Process {
        /// argv joined by blanks.
        command: String,
        /// `exit code: 7`, or what killed it.
        reason: String,
        /// Exit code, or 128 + signal.
        code: i32,
    },
    /// A RUN is for another kind of machine, and nothing here executes its program.
    #[error(transparent)]
    Foreign(Box<ForeignProgram>),
    /// The process of a RUN ended badly, and there is no room on the store's file system.
    #[error(
        "no space left on the file system of {}: {source}; free some with `rbuild prune`, or move the store with \
         $RBUILD_ROOT",
        store.display()
    )]
    DiskFull {
        /// The root of the store.
        store: std::path::PathBuf,
        /// How the process ended.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The build was stopped while this operation ran.
    #[error("canceled")]
    Canceled,
    /// A step wants a permission that was not granted.
    #[error("{entitlement} is not allowed: {what} needs --allow {entitlement}")]
    NotAllowed {
        /// What the step wants.
        what: &'static str,
        /// The entitlement's name.
        entitlement: &'static str,
    },
    /// `--link --chown` with a name.
    #[error(
        "--chown={0} with --link: a linked copy does not read the stage's /etc/passwd and /etc/group: give numbers, or leave \
         out --link"
    )]
    LinkedName(String),
    /// The name of a user in a stage that has no files yet.
    #[error("{0}: there is no /etc/passwd yet to look up the name in: give numbers")]
    NameInEmptyRoot(String),
    /// A RUN needs a secret that the build was not given.
    #[error("secret {0}: not found: give it with --secret id={0},src=FILE or --secret id={0},env=VARIABLE")]
    NoSecret(String),
    /// A RUN needs an SSH agent that the build was not given.
    #[error(
        "ssh agent {0}: not found: give it with --ssh {0} (the agent of $SSH_AUTH_SOCK) or --ssh {0}=SOCKET or --ssh {0}=KEYFILE"
    )]
    NoAgent(String),
    /// What a RUN wants to mount is not there.
    #[error("cannot mount {0}")]
    MountSource(String),
    /// An archive that ADD was to unpack is broken or asks for something impossible.
    #[error("{name}: {source}")]
    Archive {
        /// The archive's file name.
        name: String,
        /// What is wrong.
        #[source]
        source: rbuild_layer::UnpackError,
    },
    /// The blob of a layer is neither here nor known to any source.
    #[error(
        "layer {0} is not in the store and no source has it: remove the image that refers to it and build again"
    )]
    LayerLost(rbuild_oci::Digest),
    /// A blob does not unpack to what its image says.
    #[error("layer {blob} unpacks to {found}, but the image config says {expected}: the image is damaged")]
    WrongDiffId {
        /// The layer's blob.
        blob: rbuild_oci::Digest,
        /// Diff ID in the image config.
        expected: rbuild_oci::Digest,
        /// Diff ID of what was unpacked.
        found: rbuild_oci::Digest,
    },
    /// A fetched file is not the one that was meant.
    #[error("{url}: digest mismatch: the file has {found}, --checksum says {expected}")]
    WrongChecksum {
        /// Where it came from.
        url: String,
        /// What --checksum says.
        expected: rbuild_oci::Digest,
        /// What was fetched.
        found: rbuild_oci::Digest,
    },
    /// A reference leads to another commit than was meant.
    #[error("{remote}: expected checksum to match {expected}, got {found}")]
    WrongCommit {
        /// The repository.
        remote: String,
        /// What the checksum says.
        expected: String,
        /// Where the reference leads.
        found: String,
    },
    /// Git cannot be given this.
    #[error(
        "{remote}: `{reference}` or its checksum is not something git could look up: name a branch, a tag or a commit"
    )]
    BadGitReference {
        /// The repository.
        remote: String,
        /// The reference.
        reference: String,
    },
    /// The repository has no such thing.
    #[error(
        "{remote}: repository does not contain ref {reference}: check the name of the branch, tag or commit"
    )]
    NoGitReference {
        /// The repository.
        remote: String,
        /// The reference.
        reference: String,
    },
    /// The checkout has no such directory.
    #[error("{remote}: there is no directory `{subdir}` in the repository")]
    NoGitDirectory {
        /// The repository.
        remote: String,
        /// The directory.
        subdir: String,
    },
    /// Git failed.
    #[error("cannot {action} {remote}: {message}")]
    Git {
        /// What it was to do.
        action: &'static str,
        /// The repository.
        remote: String,
        /// What it wrote last.
        message: String,
    },
    /// There is no git.
    #[error("cannot start git: {0}: install it, or put the files into the build context")]
    NoGit(String),
    /// The lock does not say what this is.
    #[error("`{0}` is not in the lock file: run `rbuild lock` to add it, or build without --locked")]
    NotLocked(String),
    /// Something is not here, and nobody may be asked for it.
    #[error("{0} is not in the store, and --offline forbids fetching it: build once without --offline")]
    Offline(String),
    /// A fetched file is not the one that was locked.
    #[error(
        "{url}: the file has {found}, but the lock file says {expected}: if that is right, run `rbuild lock --update`"
    )]
    NotAsLocked {
        /// Where it came from.
        url: String,
        /// What the lock says.
        expected: rbuild_oci::Digest,
        /// What was fetched.
        found: rbuild_oci::Digest,
    },
    /// A secret cannot be used for authentication.
    #[error("the secret {0} is empty or no text of one line")]
    BadSecret(String),
}

/// A program of a RUN that is for another kind of machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "process \"{command}\" did not run: {program} is no program for this machine, which is {host}: the step is for \
     {platform}, and {lacks}. Install an emulator that registers itself (Debian: `apt install qemu-user-static`; elsewhere: \
     `docker run --privileged --rm tonistiigi/binfmt --install {}`); or, to cross-compile, let the stage run here with \
     `FROM --platform=$BUILDPLATFORM` and compile for $TARGETARCH",
    platform.architecture
)]
pub struct ForeignProgram {
    /// argv joined by blanks.
    pub command: String,
    /// The program that the kernel refused.
    pub program: String,
    /// The step's platform.
    pub platform: Platform,
    /// This machine's platform.
    pub host: Platform,
    /// Why the kernel does not know what to do with it.
    pub lacks: String,
}
