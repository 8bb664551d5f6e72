//! What a Dockerfile says, with places: the types that parsing produces and lowering reads.
//!
//! Two layers. [`Node`] is the untyped tree (one per instruction, BuildKit's `parser` package): words,
//! flags, heredocs. [`Instruction`] is the typed form (BuildKit's `instructions` package). Values are
//! *unexpanded*: quotes, escapes and `$variables` are still in them, as the shell-word expander wants them.

use std::ops::Range;

/// A byte range of the source text. Where a word runs through a line continuation, the range covers the
/// continuation too. Text that has no place in a source (an ONBUILD trigger of a base image) has `0..0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The range `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Span { start, end }
    }

    /// As a standard range, for slicing.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// True for text without a place in the source.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// Source lines, 1-based, both ends included. `0..=0` is BuildKit's "no line" (empty file, bad directive).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct LineRange {
    /// First line.
    pub start: usize,
    /// Last line.
    pub end: usize,
}

impl LineRange {
    /// The lines `start..=end`.
    pub fn new(start: usize, end: usize) -> Self {
        LineRange { start, end }
    }
}

/// A piece of text with its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Word {
    /// The text, unexpanded, without continuation characters.
    pub value: String,
    /// Where it stands.
    pub span: Span,
}

impl Word {
    /// A word at a place.
    pub fn new(value: impl Into<String>, span: Span) -> Self {
        Word { value: value.into(), span }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.value
    }
}

/// A whole Dockerfile. `nodes` is complete even when an instruction could not be typed; such an
/// instruction is missing from `stages` and has a diagnostic of severity error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dockerfile {
    /// `# syntax=`, `# escape=`, `# check=`.
    pub directives: Directives,
    /// The untyped instructions in file order.
    pub nodes: Vec<Node>,
    /// Global ARGs: those before the first FROM (each is an [`InstructionKind::Arg`]).
    pub meta_args: Vec<Instruction>,
    /// The stages in file order.
    pub stages: Vec<Stage>,
    /// Bytes that are no UTF-8 became U+FFFD.
    pub replaced_bytes: bool,
}

/// Parser directives (features A2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// Value of `# syntax=`: the frontend image and its arguments.
    pub syntax: Option<Word>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// Value of `# check=`, unparsed.
    pub check: Option<Word>,
}

impl Default for Directives {
    fn default() -> Self {
        Directives { syntax: None, escape: '\\', check: None }
    }
}

/// One instruction as the line parser sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// The keyword as written.
    pub keyword: Word,
    /// `--flags` as they were unquoted, in order.
    pub flags: Vec<Word>,
    /// The words after the flags. ENV and LABEL give triples (key, value, `=` or empty separator).
    pub args: Vec<Word>,
    /// True when the words came from a JSON array (exec form).
    pub json: bool,
    /// First to last line, heredoc bodies included.
    pub lines: LineRange,
    /// From the first byte of the keyword to the end of the last line.
    pub span: Span,
    /// The joined logical line, without heredoc bodies.
    pub original: String,
    /// Comment lines directly above, without `#`.
    pub prev_comments: Vec<String>,
    /// Heredocs in the order of their bodies.
    pub heredocs: Vec<Heredoc>,
    /// ONBUILD: the instruction inside (then `args` is empty).
    pub child: Option<Box<Node>>,
    /// Line numbers of blank lines inside a continuation (lint NoEmptyContinuation).
    pub empty_continuations: Vec<usize>,
}

/// A heredoc with its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heredoc {
    /// The delimiter word, unquoted; also the file name for COPY and ADD.
    pub name: String,
    /// Body lines with their line ends, as in the file (tabs are not removed yet, see `chomp`).
    pub content: String,
    /// The bytes of the body; only where they are no UTF-8, which `content` cannot hold.
    pub raw: Option<Vec<u8>>,
    /// False when any part of the delimiter was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs of each body line are to be removed ([`Heredoc::body`] does).
    pub chomp: bool,
    /// The file descriptor before `<<`; 0 when none was written.
    pub fd: u64,
    /// Where the body stands.
    pub span: Span,
}

/// A build stage: a FROM with what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The name after AS, lower-cased.
    pub name: Option<String>,
    /// The FROM line.
    pub from: FromInstruction,
    /// The FROM line's place and comments (its kind is [`InstructionKind::From`] with the same content).
    pub instruction: Instruction,
    /// The instructions of the stage, without FROM.
    pub commands: Vec<Instruction>,
    /// From the FROM line to the last line of the stage.
    pub lines: LineRange,
}

/// A typed instruction with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The keyword as written.
    pub keyword: Word,
    /// What it says.
    pub kind: InstructionKind,
    /// The joined logical line (BuildKit's `Original`): progress names and lints are made of it.
    pub original: String,
    /// Lines, heredoc bodies included.
    pub lines: LineRange,
    /// From the keyword to the end.
    pub span: Span,
    /// Comment lines directly above, without `#`.
    pub prev_comments: Vec<String>,
    /// Index into [`Dockerfile::nodes`]; 0 for a parsed ONBUILD trigger.
    pub node: usize,
}

/// Every instruction of the language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// `FROM [--platform=p] image [AS name]`
    From(FromInstruction),
    /// `ARG name[=default] …`
    Arg(ArgInstruction),
    /// `ENV k=v …` or `ENV k rest`
    Env(Vec<KeyValue>),
    /// `LABEL k=v …`
    Label(Vec<KeyValue>),
    /// `MAINTAINER rest of line`
    Maintainer(Word),
    /// `RUN`
    Run(RunInstruction),
    /// `COPY`
    Copy(CopyInstruction),
    /// `ADD`
    Add(AddInstruction),
    /// `CMD`
    Cmd(CommandLine),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `SHELL ["…"]`
    Shell(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `WORKDIR path`, the rest of the line
    Workdir(Word),
    /// `USER user[:group]`, the rest of the line
    User(Word),
    /// `VOLUME path …`
    Volume(Vec<Word>),
    /// `EXPOSE port[-end][/proto] …`, as written
    Expose(Vec<Word>),
    /// `STOPSIGNAL signal`
    StopSignal(Word),
    /// `ONBUILD instruction`
    OnBuild(OnBuild),
}

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FromInstruction {
    /// `--platform`, unexpanded.
    pub platform: Option<Word>,
    /// Image or stage name, unexpanded.
    pub image: Word,
    /// The word `AS` as written.
    pub as_keyword: Option<Word>,
    /// The stage name as written.
    pub name: Option<Word>,
}

/// `ARG`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArgInstruction {
    /// One entry per declared name.
    pub pairs: Vec<ArgPair>,
}

/// One declared build argument.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArgPair {
    /// The name, unexpanded.
    pub name: Word,
    /// The default, unexpanded; `None` when no `=` was written.
    pub default: Option<Word>,
}

/// One pair of ENV or LABEL, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// The key.
    pub key: Word,
    /// The value.
    pub value: Word,
    /// Written in the legacy form `KEY rest of line`.
    pub no_delim: bool,
}

/// Shell or exec form of RUN, CMD, ENTRYPOINT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// The words of the JSON array, or in shell form the whole text as one word (none when nothing was
    /// written).
    pub args: Vec<Word>,
    /// True in shell form: SHELL is to be prepended.
    pub prepend_shell: bool,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunInstruction {
    /// The command.
    pub command: CommandLine,
    /// Heredocs, in order of their bodies.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values, in order. [`crate::mount::MountSpec::parse`] reads them when variables are known.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: NetworkMode,
    /// `--security`.
    pub security: SecurityMode,
    /// `--device`.
    pub devices: Vec<Device>,
    /// Names of the flags that were given, in order and without `--`.
    pub flags_used: Vec<String>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NetworkMode {
    /// Not written, or `default`.
    #[default]
    Default,
    /// Only the loopback interface.
    None,
    /// The host's network.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SecurityMode {
    /// Not written, or `sandbox`.
    #[default]
    Sandbox,
    /// Privileged.
    Insecure,
}

/// `RUN --device=name[,required]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// CDI device name.
    pub name: String,
    /// Fail when it is missing.
    pub required: bool,
}

/// What COPY and ADD copy, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourcesAndDest {
    /// Source paths (or URLs), unexpanded.
    pub sources: Vec<Word>,
    /// Heredoc sources, copied after the paths.
    pub contents: Vec<SourceContent>,
    /// Destination, unexpanded.
    pub dest: Word,
}

/// A heredoc used as a source file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceContent {
    /// File name: the delimiter.
    pub path: Word,
    /// File content, tabs of `<<-` already removed, unexpanded.
    pub data: String,
    /// The bytes of `data`; only where they are no UTF-8.
    pub raw: Option<Vec<u8>>,
    /// Variables are to be expanded.
    pub expand: bool,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyInstruction {
    /// Sources and destination.
    pub paths: SourcesAndDest,
    /// `--from` as written. BuildKit never expands it; lowering puts in ARGs (see `scope.rs`).
    pub from: Option<Word>,
    /// `--chown`, unexpanded.
    pub chown: Option<Word>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub excludes: Vec<Word>,
    /// Names of the flags that were given, in order and without `--`.
    pub flags_used: Vec<String>,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddInstruction {
    /// Sources and destination.
    pub paths: SourcesAndDest,
    /// `--chown`, unexpanded.
    pub chown: Option<Word>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--keep-git-dir`; `None` when not written.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, unexpanded.
    pub checksum: Option<Word>,
    /// `--unpack`; `None` when not written.
    pub unpack: Option<bool>,
    /// `--exclude`, in order.
    pub excludes: Vec<Word>,
    /// Names of the flags that were given, in order and without `--`.
    pub flags_used: Vec<String>,
}

/// `HEALTHCHECK`. Durations are nanoseconds; 0 means not written (inherit).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", arg…]` or `["CMD-SHELL", text]`: the config's `Test`.
    pub test: Vec<String>,
    /// `--interval`
    pub interval: i64,
    /// `--timeout`
    pub timeout: i64,
    /// `--start-period`
    pub start_period: i64,
    /// `--start-interval`
    pub start_interval: i64,
    /// `--retries`
    pub retries: i64,
}

/// `ONBUILD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OnBuild {
    /// The text for the config's `OnBuild`: continuations joined, heredoc bodies appended.
    /// [`crate::parse_onbuild`] reads it.
    pub expression: String,
    /// Keyword of the trigger, upper-cased.
    pub trigger: String,
}
