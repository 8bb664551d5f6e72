//! The `rbuild` command: what was typed → what it means → exit code.

mod args;
mod command;
mod exit;
mod output;
mod report;
mod request;
mod space;

use args::{COMMANDS, Cli, Command};
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A RUN step's init is this very program; it must not start a runtime or parse a command line.
    if rbuild_runtime::is_init_invocation() {
        rbuild_runtime::init_main();
    }
    let cli = match Cli::try_parse_from(with_default_command(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // A closed terminal is no reason to fail.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            report::error(&error);
            exit::code(&error)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let root = command::store_root(cli.root)?;
    match cli.command {
        Command::Build(args) => command::build::run(&root, &args),
        Command::Check(args) => command::check::run(&root, &args),
        Command::Plan(args) => command::plan::run(&root, &args),
        Command::Ast(args) => command::ast::run(&args),
        Command::Lock(args) => command::lock::run(&root, &args),
        Command::Images(args) => command::images::run(&root, &args),
        Command::Inspect(args) => command::inspect::run(&root, &args),
        Command::History(args) => command::history::run(&root, &args),
        Command::Tag(args) => command::tag::run(&root, &args),
        Command::Rmi(args) => command::rmi::run(&root, &args),
        Command::Prune(args) => command::prune::run(&root, &args),
        Command::Builds(args) => command::builds::run(&root, args),
        Command::Why(args) => command::why::run(&root, &args),
        Command::Du(args) => command::du::run(&root, &args),
        Command::Fsck(args) => command::fsck::run(&root, &args),
        Command::System(args) => command::system::run(&root, &args),
        Command::Version => command::version(),
    }
}

/// `rbuild -t app .` means `rbuild build -t app .`; `--root` may come before the command.
fn with_default_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        match arg {
            "--root" => at += 2,
            arg if arg.starts_with("--root=") => at += 1,
            "-h" | "--help" | "-V" | "--version" => return args,
            arg if COMMANDS.contains(&arg) => return args,
            _ => break,
        }
    }
    if args.len() > 1 && at <= args.len() {
        args.insert(at.min(args.len()), "build".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_command(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        with_default_command(args).join(&OsString::from(" ")).into_string().unwrap()
    }

    #[test]
    fn build_is_the_default_command() {
        for (typed, meant) in [
            ("rbuild .", "rbuild build ."),
            ("rbuild -t app .", "rbuild build -t app ."),
            ("rbuild --root /r -t app .", "rbuild --root /r build -t app ."),
            ("rbuild --root=/r images", "rbuild --root=/r images"),
            ("rbuild images", "rbuild images"),
            ("rbuild --help", "rbuild --help"),
            ("rbuild", "rbuild"),
        ] {
            assert_eq!(default_command(typed), meant);
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
