//! Finding and executing the program, with the words of runc and the exit codes of a shell.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::CString;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use crate::{DEFAULT_PATH, RuntimeError, Spec, sys};

/// The environment of the step: of each name the last value, in its place; `PATH` before secrets when
/// absent, and `HOME` at the end when absent or empty.
pub(crate) fn environment(
    spec: &Spec,
    secrets: &[Vec<u8>],
    home: &str,
) -> Result<Vec<(String, String)>, RuntimeError> {
    let secret = |(name, place): &(String, usize)| {
        let value = secrets.get(*place).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
        let problem = || {
            let message =
                format!("the secret for the variable {name} is not UTF-8 without NUL; use it as a file");
            RuntimeError::invalid("env", message)
        };
        let value = value.filter(|text| !text.contains('\0')).ok_or_else(problem)?;
        Ok((name.clone(), value))
    };
    let secrets = spec.secret_env.iter().map(secret).collect::<Result<Vec<_>, RuntimeError>>()?;
    let mut all = spec.env.clone();
    let default = |all: &mut Vec<(String, String)>, name: &str, value: &str| {
        if !all.iter().any(|(known, _)| known == name) {
            all.push((name.to_owned(), value.to_owned()));
        }
    };
    default(&mut all, "PATH", DEFAULT_PATH);
    all.extend(secrets);
    let mut seen = HashSet::with_capacity(all.len());
    let mut env: Vec<_> = all.into_iter().rev().filter(|(name, _)| seen.insert(name.clone())).collect();
    env.reverse();
    env.retain(|(name, value)| name != "HOME" || !value.is_empty());
    default(&mut env, "HOME", home);
    Ok(env)
}

fn error(name: &str, why: &str, code: i32) -> RuntimeError {
    RuntimeError::Exec { message: format!("exec: \"{name}\": {why}"), code }
}

/// Whether `path` can be executed by who we are now.
fn probe(path: &str) -> Result<(), Errno> {
    let stat = stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Looks `name` up in `path` as `execvp` would; a name with a slash stands for itself.
fn look_up(name: &str, path: &str) -> Result<String, RuntimeError> {
    if name.contains('/') {
        return match probe(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::ISDIR) => Err(error(name, "is a directory", 126)),
            Err(Errno::ACCESS) => Err(error(name, "permission denied", 126)),
            Err(e) => Err(error(name, &format!("stat {name}: {}", text(e)), 127)),
        };
    }
    let mut denied = false;
    for dir in path.split(':') {
        let candidate = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
        match probe(&candidate) {
            // Go's rule, and runc's: a program of the working directory must be asked for as such.
            Ok(()) if !dir.starts_with('/') => {
                return Err(error(name, "cannot run executable found relative to current directory", 127));
            }
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    // A file that is there without permission is what a shell tells apart with 126.
    Err(error(name, "executable file not found in $PATH", if denied { 126 } else { 127 }))
}

fn text(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "no such file or directory",
        Errno::NOTDIR => "not a directory",
        Errno::ACCESS => "permission denied",
        Errno::LOOP => "too many levels of symbolic links",
        Errno::NAMETOOLONG => "file name too long",
        _ => "cannot be looked at",
    }
}

/// What an emulator of QEMU's is told: the name the program sees itself by, if it is not its path, and the program.
fn emulated(emulator: &str, program: &str, args: &[String]) -> Vec<String> {
    let mut argv = vec![emulator.to_owned()];
    if args.first().is_some_and(|name| name != program) {
        argv.extend(["-0".to_owned(), args[0].clone()]);
    }
    argv.push(program.to_owned());
    argv.extend(args.iter().skip(1).cloned());
    argv
}

/// Executes the step's program in the current root and directory; returns only on failure. `ready` is set when nothing
/// but the system call is left to do.
pub(crate) fn run(spec: &Spec, env: &[(String, String)], ready: &Cell<bool>) -> RuntimeError {
    let Some(name) = spec.args.first() else {
        return RuntimeError::invalid("args", "arguments are required");
    };
    let path = env.iter().find(|(k, _)| k == "PATH").map_or(DEFAULT_PATH, |(_, v)| v);
    let program = match look_up(name, path) {
        Ok(program) => program,
        Err(e) => return e,
    };
    let strings = |list: Vec<String>| list.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let env = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let (file, argv) = match &spec.emulator {
        None => (program.clone(), spec.args.clone()),
        Some(emulator) => (emulator.clone(), emulated(emulator, &program, &spec.args)),
    };
    let (Ok(argv), Ok(envp), Ok(file)) = (strings(argv), strings(env), CString::new(file)) else {
        return RuntimeError::invalid("args", "arguments and environment must not contain NUL");
    };
    ready.set(true);
    let failure = sys::execve(&file, &argv, &envp);
    match failure.raw_os_error() {
        // The file was there a moment ago: what is missing is what it names in turn.
        Some(libc::ENOENT) => RuntimeError::NoInterpreter { program },
        Some(libc::ENOEXEC) => RuntimeError::ExecFormat { program },
        Some(libc::EACCES) => error(&program, "permission denied", 126),
        Some(libc::E2BIG) => error(&program, "argument list too long", 126),
        _ => error(&program, &failure.to_string(), 126),
    }
}

#[cfg(test)]
mod tests;
