//! `--secret` and `--ssh` (D-011, D-012): read once, before the build.

use super::environment;
use crate::exit::Usage;
use anyhow::Result;
use rbuild_build::{Confidential, MAX_KEY_BYTES, MAX_SECRET_BYTES, Secret, SshAgent, SshKey, csv_fields};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Id of an agent that was given without one.
const DEFAULT_AGENT: &str = "default";

/// Reads the values; of options with the same id the last one counts.
pub(super) fn confidential(
    secrets: &[String],
    agents: &[String],
    warnings: &mut Vec<String>,
) -> Result<Confidential> {
    let mut found = Confidential::default();
    for text in secrets {
        let option = SecretOption::parse(text)?;
        let secret = option.read(warnings)?;
        found.secrets.insert(option.id, secret);
    }
    for text in agents {
        let (id, agent) = agent(text)?;
        found.agents.insert(id, agent);
    }
    Ok(found)
}

/// Where a secret is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Variable(String),
}

#[derive(Debug, PartialEq, Eq)]
struct SecretOption {
    id: String,
    place: Place,
}

impl SecretOption {
    fn parse(text: &str) -> Result<Self> {
        let problem = |reason: String| Usage::new(format!("invalid --secret `{text}`: {reason}"));
        let (mut id, mut kind) = (String::new(), String::new());
        let (mut file, mut variable) = (None, None);
        for field in csv_fields(text).map_err(&problem)? {
            let pair = field.split_once('=');
            let (key, value) =
                pair.ok_or_else(|| problem(format!("invalid field '{field}' must be a key=value pair")))?;
            match key.to_lowercase().as_str() {
                "type" if matches!(value, "file" | "env") => kind = value.to_owned(),
                "type" => {
                    return Err(
                        problem(format!("unsupported secret type \"{value}\": use file or env")).into()
                    );
                }
                "id" => id = value.to_owned(),
                "source" | "src" => file = Some(value.to_owned()),
                "env" => variable = Some(value.to_owned()),
                _ => {
                    return Err(problem(format!(
                        "unexpected key '{key}' in '{field}': use id, src, env or type"
                    ))
                    .into());
                }
            }
        }
        if id.is_empty() {
            return Err(problem("secret missing ID: write id=NAME".into()).into());
        }
        if kind == "env" && variable.is_none() {
            variable = file.take();
        }
        let place = match (variable, file) {
            (Some(variable), _) => Place::Variable(variable),
            (None, Some(file)) => Place::File(PathBuf::from(file)),
            (None, None) if kind == "env" || (kind.is_empty() && environment(&id).is_some()) => {
                Place::Variable(id.clone())
            }
            (None, None) => Place::File(PathBuf::from(&id)),
        };
        Ok(Self { id, place })
    }

    /// The value. That of a variable which is not set is empty, as with BuildKit.
    fn read(&self, warnings: &mut Vec<String>) -> Result<Secret> {
        let bytes = match &self.place {
            Place::Variable(name) => variable(name).unwrap_or_else(|| {
                warnings.push(format!("secret {}: the variable {name} is not set: it is empty", self.id));
                Vec::new()
            }),
            Place::File(path) => read_file(&self.id, path)?,
        };
        Ok(Secret::new(bytes).ok_or_else(|| too_big(&self.id))?)
    }
}

#[allow(clippy::disallowed_methods, reason = "the binary is where the environment is read")]
fn variable(name: &str) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    std::env::var_os(name).map(OsStringExt::into_vec)
}

fn too_big(id: &str) -> Usage {
    Usage::new(format!("secret {id} too big. max size {}KB", MAX_SECRET_BYTES >> 10))
}

fn read_file(id: &str, path: &Path) -> Result<Vec<u8>> {
    let problem =
        |error: std::io::Error| Usage::new(format!("secret {id}: cannot read `{}`: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(problem)?;
    file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(problem)?;
    if bytes.len() > MAX_SECRET_BYTES {
        return Err(too_big(id).into());
    }
    Ok(bytes)
}

/// `default`, `ID`, `ID=SOCKET` or `ID=KEY,KEY…`.
fn agent(text: &str) -> Result<(String, SshAgent)> {
    let problem = |reason: String| Usage::new(format!("invalid --ssh `{text}`: {reason}"));
    let (id, value) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT_AGENT } else { id };
    let paths: Vec<String> = match value {
        "" => match environment("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) {
            Some(path) => vec![path],
            None => {
                let reason = "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or write ID=SOCKET or \
                              ID=KEYFILE";
                return Err(problem(reason.into()).into());
            }
        },
        value => value.split(',').map(str::to_owned).collect(),
    };
    let (mut sockets, mut keys) = (Vec::new(), Vec::new());
    for path in &paths {
        let unusable = |error: std::io::Error| problem(format!("cannot use `{path}`: {error}"));
        if std::fs::metadata(path).map_err(unusable)?.file_type().is_socket() {
            sockets.push(std::path::absolute(path).map_err(unusable)?);
        } else {
            keys.push(read_key(Path::new(path)).map_err(|reason| problem(format!("`{path}`: {reason}")))?);
        }
    }
    let agent = match (sockets.len(), keys.len()) {
        (1, 0) => SshAgent::Socket(sockets.remove(0)),
        (0, _) => SshAgent::Keys(keys),
        (_, 0) => return Err(problem("only one socket can be given for an id".into()).into()),
        _ => {
            return Err(
                problem("invalid combination of keys and sockets: give them different ids".into()).into()
            );
        }
    };
    Ok((id.to_owned(), agent))
}

fn read_key(path: &Path) -> std::result::Result<SshKey, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err("it is neither a socket nor a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > MAX_KEY_BYTES {
        return Err(format!("it is larger than {MAX_KEY_BYTES} bytes: that is no key"));
    }
    let key = SshKey::parse(&bytes).map_err(|error| error.to_string());
    bytes.fill(0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d_011_where_a_secret_is() {
        let file = |path: &str| Place::File(path.into());
        let variable = |name: &str| Place::Variable(name.into());
        for (text, id, place) in [
            ("id=x,src=a/b", "x", file("a/b")),
            ("id=x,source=a", "x", file("a")),
            ("ID=x,env=VAR", "x", variable("VAR")),
            ("type=env,id=x", "x", variable("x")),
            ("type=env,id=x,src=VAR", "x", variable("VAR")),
            ("type=file,id=PATH", "PATH", file("PATH")),
            ("id=PATH", "PATH", variable("PATH")),
            ("id=no_such_variable_42", "no_such_variable_42", file("no_such_variable_42")),
            ("id=x,\"src=a,b\"", "x", file("a,b")),
        ] {
            assert_eq!(SecretOption::parse(text).unwrap(), SecretOption { id: id.into(), place }, "{text}");
        }
        for (text, reason) in [
            ("", "must be a key=value pair"),
            ("x", "invalid field 'x' must be a key=value pair"),
            ("id=x,frob=1", "unexpected key 'frob' in 'frob=1'"),
            ("id=x,type=vault", "unsupported secret type \"vault\""),
            ("src=a", "secret missing ID"),
        ] {
            let error = SecretOption::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_read_and_limited() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, bytes: usize| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![b'x'; bytes]).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (fits, big) = (path("fits", MAX_SECRET_BYTES), path("big", MAX_SECRET_BYTES + 1));
        let read = |options: &[String]| confidential(options, &[], &mut Vec::new());
        assert_eq!(read(&[format!("id=a,src={fits}")]).unwrap().secrets["a"].bytes().len(), MAX_SECRET_BYTES);
        let error = read(&[format!("id=a,src={big}")]).unwrap_err().to_string();
        assert_eq!(error, "secret a too big. max size 500KB");
        assert!(
            read(&["id=a,src=/no/such".into()]).unwrap_err().to_string().starts_with("secret a: cannot read")
        );
        let small = path("small", 3);
        let both = read(&[format!("id=a,src={fits}"), format!("id=a,src={small}")]).unwrap();
        assert_eq!(both.secrets["a"].bytes(), b"xxx");
        let mut warnings = Vec::new();
        let none = confidential(&["id=a,env=NO_SUCH_VARIABLE_42".into()], &[], &mut warnings).unwrap();
        assert!(none.secrets["a"].bytes().is_empty() && warnings[0].contains("NO_SUCH_VARIABLE_42"));
    }

    #[test]
    fn d_012_agents_are_sockets_or_keys() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let key = dir.path().join("id_ed25519");
        std::fs::write(&key, "key").unwrap();
        let (id, found) = agent(&format!("x={}", socket.display())).unwrap();
        assert!(id == "x" && matches!(&found, SshAgent::Socket(path) if *path == socket), "{found:?}");
        assert_eq!(agent(&format!("={}", socket.display())).unwrap().0, "default");
        let (socket, key) = (socket.display(), key.display());
        for (value, words) in [
            (format!("{key}"), "id_ed25519`: it is neither the socket of an agent nor a private key"),
            (format!("{socket},{socket}"), "only one socket"),
            ("/dev/null".to_owned(), "neither a socket nor a file"),
        ] {
            let error = agent(&format!("default={value}")).unwrap_err().to_string();
            assert!(error.contains(words), "{value}: {error}");
        }
        assert!(agent("default=/no/such").unwrap_err().to_string().contains("cannot use"));
    }
}
