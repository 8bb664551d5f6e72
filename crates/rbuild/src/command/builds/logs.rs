//! `rbuild builds logs`.

use super::find;
use crate::args::{BuildsLogsArgs, TextOrJson};
use crate::command::why::matching;
use crate::exit::Usage;
use anyhow::{Context as _, Result};
use rbuild_history::{History, Record, parse_line};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

/// A log and whose it is.
struct Log {
    name: String,
    file: String,
}

pub(super) fn run(history: &History, args: &BuildsLogsArgs) -> Result<ExitCode> {
    let record = find(history, &args.build)?;
    let logs = logs(&record, args.step.as_deref())?;
    let out = std::io::stdout();
    let sanitize = out.is_terminal();
    let mut out = std::io::BufWriter::new(out.lock());
    let several = args.step.is_none();
    for log in &logs {
        let path = history.log_path(&record.begin.id, &log.file);
        let file = match File::open(&path) {
            // It ran and wrote nothing, or is still to write.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file.with_context(|| format!("cannot open `{}`", path.display()))?,
        };
        if several && args.format == TextOrJson::Text {
            done(writeln!(out, "{}", log.name))?;
        }
        if !print(log, BufReader::new(file), args.format, sanitize, &mut out)? {
            break;
        }
    }
    done(out.flush())?;
    Ok(ExitCode::SUCCESS)
}

/// The logs of the steps that are meant, in the order of the steps; of all work if none is named.
fn logs(record: &Record, step: Option<&str>) -> Result<Vec<Log>> {
    let places = match step {
        Some(step) => matching(record, step)?,
        None => (0..record.steps().len()).collect(),
    };
    let of = |name: &str, log: &Option<String>| log.clone().map(|file| Log { name: name.to_owned(), file });
    let mut logs: Vec<Log> = (places.iter())
        .filter_map(|place| of(&record.steps()[*place].name, &record.step_end(*place)?.log))
        .collect();
    if step.is_none() {
        let other = record.end.iter().flat_map(|end| &end.other);
        logs.extend(other.filter_map(|other| of(&other.name, &other.end.log)));
    }
    if logs.is_empty() && step.is_some() && record.running {
        return Err(Usage::new("the step has not ended yet").into());
    }
    Ok(logs)
}

/// Whether there is still a reader.
fn print(
    log: &Log,
    file: impl BufRead,
    format: TextOrJson,
    sanitize: bool,
    out: &mut impl Write,
) -> Result<bool> {
    for line in file.split(b'\n') {
        let line = line.with_context(|| format!("reading the log of {}", log.name))?;
        // A line that was cut off when the builder was killed.
        let Some(parsed) = parse_line(&line) else { continue };
        let written = match format {
            TextOrJson::Json => {
                let stream = if parsed.stderr { "stderr" } else { "stdout" };
                let text = String::from_utf8_lossy(parsed.text);
                writeln!(
                    out,
                    "{}",
                    json!({ "step": log.name, "time": parsed.time, "stream": stream, "text": text })
                )
            }
            // A step must not repaint the terminal; a file gets the very bytes.
            TextOrJson::Text if sanitize => writeln!(out, "{}", rbuild_progress::printable(parsed.text)),
            TextOrJson::Text => out.write_all(parsed.text).and_then(|()| out.write_all(b"\n")),
        };
        if !done(written)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A reader that went away is no error.
fn done(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}
