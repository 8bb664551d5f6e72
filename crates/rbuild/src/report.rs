//! Errors and warnings on standard error.

use rbuild_progress::FailedStep;
use std::io::Write;

/// Writes to standard error; when that is closed there is nobody left to tell.
pub(crate) fn line(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// The error and its causes, the last thing a failing command prints.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many errors already say what their cause says.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    // Diagnostics of a Dockerfile are whole reports that begin with their own `error:`.
    line(&if text.starts_with("error") { text } else { format!("ERROR: {text}") });
}

/// The whole output of the step that failed.
pub(crate) fn failed_step(step: &FailedStep) {
    let mut text = format!("------\n > {}:\n", step.name);
    for (number, (at, line)) in step.output.iter().enumerate() {
        if step.dropped > 0 && number == step.before_dropped {
            text.push_str(&format!("[{} lines left out]\n", step.dropped));
        }
        text.push_str(&format!("{:.3} {line}\n", at.as_secs_f64()));
    }
    text.push_str("------");
    line(&text);
}
