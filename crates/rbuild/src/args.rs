//! What was typed.

use crate::command::{cache::CacheArgs, du::DuArgs, fsck::FsckArgs, prune::PruneArgs, system::SystemArgs};
use crate::space::BudgetArgs;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// A container image builder without a daemon.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, about, propagate_version = true, subcommand_required = true)]
pub(crate) struct Cli {
    /// Directory of the image store and cache [default: /var/lib/rbuild for root, else $XDG_DATA_HOME/rbuild]
    #[arg(long, global = true, env = "RBUILD_ROOT", value_name = "DIR", hide_env_values = true)]
    pub(crate) root: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile (the default command: `rbuild -t app .`)
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Check a Dockerfile for mistakes, without building
    Check(CheckArgs),
    /// Show what a build would do: its steps, the image's config, and what could be better
    Plan(PlanArgs),
    /// Show a Dockerfile's syntax tree
    Ast(AstArgs),
    /// Write down what tags, URLs and branches of a Dockerfile are now (rbuild.lock), so that builds keep to it
    Lock(LockArgs),
    /// List images
    Images(ImagesArgs),
    /// Show an image's config and layers as JSON
    Inspect(InspectArgs),
    /// Show the instructions that made an image
    History(HistoryArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove names of images, and images that have no other name
    Rmi(RmiArgs),
    /// Remove build cache that nothing uses, or as much of it as exceeds a budget
    Prune(PruneArgs),
    /// List builds, show one, print its logs, remove records
    Builds(BuildsArgs),
    /// Say why a step of a build was executed, or since when it is cached
    Why(WhyArgs),
    /// List cache mounts, remove them, bring them elsewhere and back
    Cache(CacheArgs),
    /// Show what takes how much space
    Du(DuArgs),
    /// Verify the store, and repair it
    Fsck(FsckArgs),
    /// Show what images and build cache take (system df)
    System(SystemArgs),
    /// Show the version
    Version,
}

/// Names and aliases of the commands; anything else as the first argument means `build`.
pub(crate) const COMMANDS: &[&str] = &[
    "build", "b", "check", "plan", "ast", "lock", "images", "inspect", "history", "tag", "rmi", "prune",
    "builds", "why", "cache", "du", "fsck", "system", "version", "help",
];

/// Which Dockerfile is meant, and how it would be built.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Build context: a directory, or `-` for a tar archive or a Dockerfile on standard input
    #[arg(value_name = "PATH | -", default_value = ".")]
    pub(crate) context: OsString,
    /// The Dockerfile [default: PATH/Dockerfile]; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<OsString>,
    /// Set a build-time variable; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Additional build context: a directory, oci-layout://DIR[:TAG|@DIGEST] or docker-image://REFERENCE
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Stage to look at
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Platforms of the result, as os/arch[/variant] or `local`; several with commas, or by repeating it
    #[arg(long, value_name = "PLATFORM", env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Vec<String>,
}

impl SourceArgs {
    /// The build that they describe.
    pub(crate) fn build(&self) -> BuildArgs {
        BuildArgs {
            context: Some(self.context.clone()),
            file: self.file.clone(),
            build_arg: self.build_arg.clone(),
            build_context: self.build_context.clone(),
            target: self.target.clone(),
            platform: self.platform.clone(),
            network: "default".into(),
            ..BuildArgs::default()
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How to report
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How to report
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: TextOrJson,
}

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Look up anew what is locked already: everything, or entries whose names contain one of these
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) update: Vec<String>,
    /// Remove entries that this Dockerfile does not name
    #[arg(long)]
    pub(crate) prune: bool,
    /// Write nothing: exit with 2 if something is missing in the lock
    #[arg(long, conflicts_with_all = ["update", "prune"])]
    pub(crate) check: bool,
    /// The lock file [default: rbuild.lock beside the Dockerfile]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock_file: Option<PathBuf>,
    /// Secret for servers: id=HTTP_AUTH_TOKEN_HOST,… or id=GIT_AUTH_TOKEN,…
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// How to report
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: TextOrJson,
}

#[derive(Debug, Args)]
pub(crate) struct AstArgs {
    /// Build context: a directory, or `-` for a Dockerfile on standard input
    #[arg(value_name = "PATH | -", default_value = ".")]
    pub(crate) context: OsString,
    /// The Dockerfile [default: PATH/Dockerfile]; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<OsString>,
    /// `json`, or `sexp` for BuildKit's S-expressions
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) format: AstFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    Text,
    /// BuildKit's lint result
    Json,
    /// SARIF 2.1.0, for code scanners
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BuildsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BuildsCommand>,
    #[command(flatten)]
    pub(crate) list: BuildsListArgs,
}

/// A BUILD is the beginning of an id, `latest` (also `@`), or `~1` for the one before the latest.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// List builds, the newest first
    Ls(BuildsListArgs),
    /// Show a build: its steps, their time, and why each was executed
    Show(BuildsShowArgs),
    /// Print the output of a build's steps, whole
    Logs(BuildsLogsArgs),
    /// Remove records of builds with their logs
    Rm(BuildsRmArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct BuildsListArgs {
    /// Most builds that are listed
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How to report; `json` is one object on each line
    #[arg(long, value_enum)]
    pub(crate) format: Option<TextOrJson>,
}

#[derive(Debug, Args)]
pub(crate) struct BuildsShowArgs {
    /// Which build
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// How to report
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: TextOrJson,
}

#[derive(Debug, Args)]
pub(crate) struct BuildsLogsArgs {
    /// Which build
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// Only this step: its number in `rbuild builds show`, or a part of its name
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// How to report; `json` is one object on each line
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: TextOrJson,
}

#[derive(Debug, Args)]
pub(crate) struct BuildsRmArgs {
    /// Which builds
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    pub(crate) build: Vec<String>,
    /// All that are not running
    #[arg(long, conflicts_with = "build")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The step: its number in `rbuild builds show`, or a part of its name [default: all that were executed]
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Which build: the beginning of an id, `latest`, or `~1` for the one before
    #[arg(long, value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// The build to compare with [default: the one it was compared with then]
    #[arg(long, value_name = "BUILD")]
    pub(crate) against: Option<String>,
    /// How to report
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: TextOrJson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AstFormat {
    Json,
    Sexp,
}

#[derive(Debug, Default, Args)]
#[command(args_override_self = true)]
pub(crate) struct BuildArgs {
    /// Build context: a directory, a git repository or URL, or `-` for a tar archive or a Dockerfile on standard input
    #[arg(value_name = "PATH | URL | -")]
    pub(crate) context: Option<OsString>,
    /// Name and optionally a tag for the result (`name:tag`); may be repeated
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// The Dockerfile [default: PATH/Dockerfile]; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<OsString>,
    /// Set a build-time variable; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Additional build context: a directory, a git repository or URL, oci-layout://DIR[:TAG|@DIGEST] or docker-image://REFERENCE
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Set metadata of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Platforms of the result, as os/arch[/variant] or `local`; several with commas, or by repeating it
    #[arg(long, value_name = "PLATFORM", env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Vec<String>,
    /// Do not read the cache (it is still written)
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) no_cache: bool,
    /// Do not read the cache for these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Cache to read: type=registry,ref=NAME (or just NAME; also an image with an inline cache) or type=local,src=DIR[,tag=…]
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_from: Vec<String>,
    /// Cache to write: type=registry,ref=NAME, type=local,dest=DIR or type=inline [,mode=min|max] [,compression=…] [,ignore-error=false] …
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_to: Vec<String>,
    /// Where new cache mounts are restored from: type=registry,ref=NAME (or just NAME) or type=local,src=DIR[,tag=…] [,max-size=10GB]
    #[arg(long, value_name = "PLACE")]
    pub(crate) cache_mounts_from: Vec<String>,
    /// Where cache mounts that steps have used are kept: type=registry,ref=NAME or type=local,dest=DIR [,max-size=2GB] [,ignore-error=false]
    #[arg(long, value_name = "PLACE")]
    pub(crate) cache_mounts_to: Vec<String>,
    /// Time that writing caches may take when all else is done; `none` for no limit [default: 2m]
    #[arg(long, value_name = "DURATION")]
    pub(crate) cache_export_budget: Option<String>,
    /// Always ask the registry for newer base images
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool, value_name = "BOOL")]
    pub(crate) pull: Option<bool>,
    /// Make no request: base images, URLs and repositories must be in the store
    #[arg(long, conflicts_with_all = ["pull", "push"])]
    pub(crate) offline: bool,
    /// Refuse to build if a tag, URL or branch is not in the lock file (see `rbuild lock`)
    #[arg(long)]
    pub(crate) locked: bool,
    /// The lock file [default: rbuild.lock beside the Dockerfile, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock_file: Option<PathBuf>,
    /// Do not ask again what a tag, URL or branch is for so long (90s, 15m, 24h) [default: ask every time]
    #[arg(long, value_name = "DURATION", env = "RBUILD_MAX_RESOLUTION_AGE", hide_env_values = true)]
    pub(crate) max_resolution_age: Option<String>,
    /// Push the result under all its tags
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) push: bool,
    /// Keep the result in the local store (it is when it has a tag; with --push, layers that only a registry has are then fetched)
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) load: bool,
    /// Where the result goes: DIR, `-` (tar on standard output) or type=oci|docker|local|tar|image|registry|cacheonly[,dest=…]
    #[arg(short, long, value_name = "OUTPUT")]
    pub(crate) output: Vec<String>,
    /// Print only the image's digest
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) quiet: bool,
    /// How to show progress
    #[arg(
        long,
        value_enum,
        env = "BUILDKIT_PROGRESS",
        hide_env = true,
        value_name = "TYPE",
        default_value = "auto"
    )]
    pub(crate) progress: ProgressArg,
    /// Write the image's digest to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write facts about the result to a JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Network of RUN steps: `default` (for now the host's network), `none`, or `host` (needs --allow network.host)
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// Add a line to /etc/hosts of RUN steps
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE | ,env=VARIABLE]
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// SSH agent for RUN --mount=type=ssh: default (the agent of $SSH_AUTH_SOCK), ID=SOCKET, or private keys without passphrase
    #[arg(long, value_name = "default | ID[=SOCKET | =KEY[,KEY]]")]
    pub(crate) ssh: Vec<String>,
    /// Grant a permission: network.host, security.insecure, device (any), device=NAME
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Where specifications of devices for RUN --device are (Container Device Interface); later directories win
    #[arg(long, value_name = "DIR", default_values = ["/etc/cdi", "/var/run/cdi"])]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,
    /// Size of /dev/shm of RUN steps
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Resource limits of RUN steps
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Limits of every RUN step: memory=1g, memory-swap=2g, cpu-shares=512, cpu-period=…, cpu-quota=…, cpuset-cpus=0-3, cpuset-mems=0
    #[arg(long, value_name = "NAME=LIMIT[,…]")]
    pub(crate) resource: Vec<String>,
    /// Cgroup that those of RUN steps are made in: a path from the root, or a systemd slice
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_parent: Option<String>,
    /// Most steps that execute at once [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_parallelism: Option<usize>,
    /// Hash every file of the context, whatever its timestamps say
    #[arg(long)]
    pub(crate) no_stat_cache: bool,
    /// How many builds are remembered: entries=N,age=30d,bytes=512mb; entries=0 records nothing
    #[arg(long, value_name = "LIMITS", env = "RBUILD_HISTORY_LIMITS", hide_env_values = true)]
    pub(crate) history_limits: Option<String>,
    /// Modes of the context's files: as they are on disk, or as git has them (644, 755), whatever the umask
    #[arg(
        long,
        value_enum,
        env = "RBUILD_CONTEXT_MODES",
        hide_env_values = true,
        value_name = "MODES",
        default_value = "keep"
    )]
    pub(crate) context_modes: ContextModes,

    /// Do not build: `check` for mistakes, show the `outline` of parameters, the `targets`, or the `plan` [,format=json]
    #[arg(long, value_name = "METHOD")]
    pub(crate) call: Option<String>,
    /// Check for mistakes instead of building (same as --call=check)
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) budget: BudgetArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) legacy: LegacyArgs,
}

/// The limits of `--resource` as docker's first builder has them (D-016).
#[derive(Debug, Default, Args)]
pub(crate) struct LimitArgs {
    #[arg(short, long, hide = true, allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    #[arg(short, long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_shares: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_period: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpuset_mems: Option<String>,
}

/// Flags of older builders that have no meaning any more (D-021).
#[derive(Debug, Default, Args)]
pub(crate) struct LegacyArgs {
    #[arg(long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) compress: bool,
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) security_opt: Vec<String>,
    #[arg(long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) squash: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) force_rm: Option<bool>,
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
    #[arg(short = 'D', long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) debug: bool,
}

/// A switch's value as docker's flags take it: `--no-cache`, `--no-cache=true`, `--rm=0`.
fn go_bool(text: &str) -> Result<bool, String> {
    rbuild_frontend::number::parse_bool(text)
        .ok_or_else(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextModes {
    /// As they are on disk
    #[default]
    Keep,
    /// 644, or 755 if the owner may execute it; directories 755
    Git,
}

impl From<ContextModes> for rbuild_build::ContextModes {
    fn from(modes: ContextModes) -> Self {
        match modes {
            ContextModes::Keep => Self::Keep,
            ContextModes::Git => Self::Git,
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressArg {
    /// tty on a terminal, else plain
    #[default]
    // An empty $BUILDKIT_PROGRESS is none.
    #[value(alias = "")]
    Auto,
    /// Live view
    Tty,
    /// Lines for a log
    Plain,
    /// Only the image's id at the end (as --quiet), and errors
    Quiet,
    /// BuildKit's status messages as JSON lines
    Rawjson,
    /// Only errors
    None,
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only this repository or name
    pub(crate) repository: Option<String>,
    /// Print only the images' ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print digests of manifests
    #[arg(long)]
    pub(crate) digests: bool,
    /// `table` or `json` (one object on each line)
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Which image of an index [default: this machine's platform]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Names, ids or digests
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Which image of an index [default: this machine's platform]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Name, id or digest
    pub(crate) image: String,
    /// Print whole instructions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `table` or `json`
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name, id or digest
    pub(crate) source: String,
    /// New name
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names, ids or digests
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
    /// Remove an image that has several names, and do not complain about missing ones
    #[arg(short, long)]
    pub(crate) force: bool,
}
