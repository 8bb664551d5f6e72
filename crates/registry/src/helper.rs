//! `docker-credential-<suffix> get` (F-005).

use crate::config::ClientConfig;
use crate::credentials::Credential;
use crate::error::{RegistryError, one_line};
use serde::Deserialize;
use std::process::Stdio;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Largest answer of a helper that is read, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// What a helper prints when it has nothing; that is no error.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks the helper about `server`; `None` when it knows nothing.
pub(crate) async fn get(
    config: &ClientConfig,
    suffix: &str,
    server: &str,
) -> Result<Option<Credential>, RegistryError> {
    let valid = suffix.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
    if !valid {
        return Err(RegistryError::Credentials(format!(
            "credential helper `{}` has a name that is no program name",
            one_line(suffix)
        )));
    }
    let program = format!("docker-credential-{suffix}");
    let problem = |message: String| RegistryError::Credentials(format!("{program}: {message}"));
    let run = run(config, &program, server);
    let (success, output) = match tokio::time::timeout(config.timeouts.helper, run).await {
        Ok(result) => result.map_err(|error| problem(error.to_string()))?,
        Err(_) => return Err(problem(format!("no answer for {server} within {:?}", config.timeouts.helper))),
    };
    if !success {
        // Only a failed helper's text is shown: a successful one prints the secret.
        let text = String::from_utf8_lossy(&output);
        if text.trim() == NOT_FOUND {
            return Ok(None);
        }
        return Err(problem(format!("failed for {server}: {}", one_line(&text))));
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| problem(format!("no JSON answer for {server}")))?;
    Ok(match answer.username.as_str() {
        "<token>" => Some(Credential::Identity(answer.secret)),
        "" if answer.secret.is_empty() => None,
        _ => Some(Credential::Password { username: answer.username, password: answer.secret }),
    })
}

async fn run(config: &ClientConfig, program: &str, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut command = tokio::process::Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    if let Some(path) = &config.helper_path {
        command.env("PATH", path);
    }
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input is judged by its answer.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?.success(), output))
}
