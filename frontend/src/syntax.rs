//! Which frontend a file asks for, and whether we are it (features A-019).

use crate::ast::{LineRange, Span, Word};
use crate::diagnostic::{Diagnostic, Phase};
use crate::directive::DirectiveReader;
use crate::source::Line;
use rbuild_oci::Reference;

/// BuildKit's name for the frontend that is built into it.
const BUILT_IN: &str = "dockerfile.v0";

/// Repositories whose images are the Dockerfile frontend.
const REPOSITORIES: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Highest major version of the frontend image that is the language known here.
const MAJOR: u32 = 1;

/// The frontend that a file asks for: `# syntax=` at the top, `// syntax=` at the top, or a JSON object with a `syntax`
/// key; a leading `#!` line is skipped. Gives the whole value; its first word is the image.
pub fn detect_syntax(text: &str) -> Option<String> {
    find(text).map(|word| word.value)
}

/// Refuses a file for another frontend than the Dockerfile's: nothing else can read such a file. `given` is the
/// frontend that was chosen from outside, which wins over what the file says.
pub fn check_syntax(text: &[u8], given: Option<&str>) -> Option<Diagnostic> {
    let text = crate::source::decode(text);
    let (asked, origin) = match given {
        Some(value) => (Word::new(value, Span::default()), ", given with BUILDKIT_SYNTAX,"),
        None => (find(&text)?, ""),
    };
    let name = asked.value.split_whitespace().next().unwrap_or_default();
    let problem = match judge(name) {
        Verdict::BuiltIn => return None,
        Verdict::Newer => {
            format!("frontend `{name}`{origin} is newer than version {MAJOR}, which is built in")
        }
        Verdict::Other => {
            format!("frontend `{name}`{origin} is not supported: only the Dockerfile frontend is built in")
        }
    };
    let help = match given {
        Some(_) => "give docker/dockerfile:1 or dockerfile.v0, or leave the argument out",
        None => {
            "write `docker/dockerfile:1` in its place; if it is a copy of docker/dockerfile under another name, build \
             with --build-arg BUILDKIT_SYNTAX=dockerfile.v0"
        }
    };
    let line = 1 + text[..asked.span.start].matches('\n').count();
    let lines = if given.is_some() { LineRange::default() } else { LineRange::new(line, line) };
    // Options behind the name are not at fault.
    let span = Span::new(asked.span.start, asked.span.end.min(asked.span.start + name.len()));
    Some(Diagnostic::error(problem, lines).in_phase(Phase::Parse).with_span(span).with_help(help))
}

enum Verdict {
    BuiltIn,
    Newer,
    Other,
}

/// A digest is taken for what its name says: the language has only ever been added to.
fn judge(name: &str) -> Verdict {
    if name == BUILT_IN {
        return Verdict::BuiltIn;
    }
    let Ok(reference) = name.parse::<Reference>() else { return Verdict::Other };
    // A registry that mirrors Docker Hub has it under the same path, perhaps below one of its own.
    let path = reference.path();
    let mirrors = |name: &str| path.strip_suffix(name).is_some_and(|before| before.ends_with('/'));
    let elsewhere = reference.domain() != "docker.io" && REPOSITORIES.iter().any(|name| mirrors(name));
    if !REPOSITORIES.contains(&path) && !elsewhere {
        return Verdict::Other;
    }
    // `1`, `1.7-labs`, `latest`, `labs`, `master`, …
    let tag = reference.tag().unwrap_or_default();
    let digits = &tag[..tag.find(|c: char| !c.is_ascii_digit()).unwrap_or(tag.len())];
    match digits.parse::<u32>() {
        Ok(major) if major > MAJOR => Verdict::Newer,
        _ => Verdict::BuiltIn,
    }
}

/// What a file asks for, with its place.
fn find(text: &str) -> Option<Word> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let body = match body.starts_with("#!") {
        true => body.split_once('\n').map_or("", |(_, rest)| rest),
        false => body,
    };
    let start = text.len() - body.len();
    in_comments(body, start, "#").or_else(|| in_comments(body, start, "//")).or_else(|| in_json(body, start))
}

/// The directive behind a comment mark. The grammar is that of `#`, whatever the mark.
fn in_comments(body: &str, start: usize, mark: &str) -> Option<Word> {
    let mut reader = DirectiveReader::default();
    let mut offset = start;
    for line in body.split_inclusive('\n') {
        let rest = line.strip_prefix(mark)?;
        let text = format!("#{}", rest.trim_end_matches(['\r', '\n']));
        // Offsets count in a line whose mark is one byte.
        let found = reader.line(Line { text: &text, offset: offset + mark.len() - 1 });
        // Anything but a repetition of a key is still a directive here: only `syntax` matters.
        let more = found.unwrap_or_else(|(message, _)| !message.starts_with("only one"));
        if reader.directives.syntax.is_some() || !more {
            break;
        }
        offset += line.len();
    }
    reader.directives.syntax
}

fn in_json(body: &str, start: usize) -> Option<Word> {
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    let value = value.get("syntax")?.as_str()?;
    let key = body.find("\"syntax\"").map_or(0, |at| at + "\"syntax\"".len());
    // A value with escapes is not found as it stands; then the file's first line is shown.
    let at = body[key..].find(&format!("\"{value}\"")).map(|at| start + key + at + 1);
    let span = at.map_or(Span::new(start, start), |at| Span::new(at, at + value.len()));
    Some(Word::new(value, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, given: Option<&str>) -> Option<(String, usize, String)> {
        let found = check_syntax(text.as_bytes(), given)?;
        let marked = found.spans.first().map(|span| text[span.start..span.end].to_owned());
        Some((found.message, found.lines.start, marked.unwrap_or_default()))
    }

    #[test]
    fn a_019_the_dockerfile_frontend_is_built_in() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker/dockerfile:labs",
            "docker/dockerfile:1.0-experimental",
            "docker.io/docker/dockerfile:1.4",
            "index.docker.io/docker/dockerfile:1",
            "docker/dockerfile-upstream:master",
            "mirror.example/docker/dockerfile:1.4",
            "registry.example:5000/hub/docker/dockerfile:1",
            "docker/dockerfile:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "docker/dockerfile@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "dockerfile.v0",
            "docker/dockerfile:1 with options",
        ] {
            assert_eq!(refused(&format!("# syntax={name}\nFROM x\n"), None), None, "{name}");
            assert_eq!(refused("# syntax=r2d4/mockerfile\n", Some(name)), None, "{name}");
        }
        assert_eq!(refused("FROM x\n# syntax=other\n", None), None);
    }

    #[test]
    fn a_019_other_frontends_are_refused_where_they_are_named() {
        for (text, line, marked) in [
            ("# syntax=r2d4/mocker:1 x\n", 1, "r2d4/mocker:1"),
            (
                "#!/usr/bin/env x\n# escape=`\n#  Syntax =  example.org/my-docker/dockerfile:1\r\n",
                3,
                "example.org/my-docker/dockerfile:1",
            ),
            ("\u{feff}//  syntax = mopy/é\nx", 1, "mopy/é"),
            ("// escape=`\n// syntax=mopy\nx", 2, "mopy"),
            ("{\n \"a\": 1, \"syntax\": \"j/k:2\"}", 2, "j/k:2"),
            ("{\"syntax\": \"j\\/k\"}", 1, ""),
            ("# syntax=Not A Reference\n", 1, "Not"),
            ("# syntax=docker/dockerfile:2\n", 1, "docker/dockerfile:2"),
        ] {
            let (message, at, found) = refused(text, None).unwrap();
            assert_eq!((at, found.as_str()), (line, marked), "{text}: {message}");
        }
        let (message, line, _) = refused("FROM x\n", Some(" gcr.io/x/y:1  a=b ")).unwrap();
        assert_eq!(
            (line, message.contains("frontend `gcr.io/x/y:1`, given with BUILDKIT_SYNTAX, is")),
            (0, true)
        );
    }
}
