//! What binfmt_misc has for an architecture (Linux, Documentation/admin-guide/binfmt-misc.rst).

use std::fs;
use std::path::Path;

/// Where the kernel tells what is registered.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// An architecture: GOARCH, QEMU's name, and the beginning of its ELF files: class, byte order, machine.
struct Architecture(&'static str, &'static str, u8, u8, u16);

const ARCHITECTURES: [Architecture; 13] = [
    Architecture("386", "i386", 1, 1, 3),
    Architecture("amd64", "x86_64", 2, 1, 62),
    Architecture("arm", "arm", 1, 1, 40),
    Architecture("arm64", "aarch64", 2, 1, 183),
    Architecture("loong64", "loongarch64", 2, 1, 258),
    Architecture("mips", "mips", 1, 2, 8),
    Architecture("mips64", "mips64", 2, 2, 8),
    Architecture("mips64le", "mips64el", 2, 1, 8),
    Architecture("mipsle", "mipsel", 1, 1, 8),
    Architecture("ppc64", "ppc64", 2, 2, 21),
    Architecture("ppc64le", "ppc64le", 2, 1, 21),
    Architecture("riscv64", "riscv64", 2, 1, 243),
    Architecture("s390x", "s390x", 2, 2, 22),
];

impl Architecture {
    fn of(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|known| known.0 == name)
    }

    /// The first bytes of its programs, as far as handlers look at them.
    fn header(&self) -> [u8; 20] {
        let mut header = [0; 20];
        header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', self.2, self.3, 1]);
        let number = |value: u16| if self.3 == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
        // ET_EXEC
        header[16..18].copy_from_slice(&number(2));
        header[18..].copy_from_slice(&number(self.4));
        header
    }
}

/// What QEMU calls an architecture.
pub(super) fn qemu_name(architecture: &str) -> Option<&'static str> {
    Architecture::of(architecture).map(|known| known.1)
}

/// Whether the interpreter for an architecture is looked for in a step's root.
pub(super) fn looks_in_the_root(architecture: &str) -> bool {
    handler_for(architecture).is_some_and(|(_, handler)| handler.enabled && !handler.flags.contains('F'))
}

/// Why the kernel does not execute programs for an architecture.
pub(super) fn lacks(architecture: &str) -> String {
    if !Path::new(BINFMT).join("register").exists() {
        return format!(
            "no interpreter for {architecture} can be registered: binfmt_misc is not mounted at {BINFMT}"
        );
    }
    match handler_for(architecture) {
        None => format!("no interpreter for {architecture} is registered in {BINFMT}"),
        Some((entry, handler)) => handler.lacks(&entry),
    }
}

/// What is registered for an architecture, with its name.
fn handler_for(architecture: &str) -> Option<(String, Handler)> {
    let header = Architecture::of(architecture)?.header();
    let entries = fs::read_dir(BINFMT).into_iter().flatten().flatten();
    let mut handlers = entries.filter_map(|entry| {
        let handler = Handler::parse(&fs::read_to_string(entry.path()).ok()?)?;
        handler.matches(&header).then(|| (entry.file_name().to_string_lossy().into_owned(), handler))
    });
    handlers.next()
}

/// An entry.
#[derive(Debug, Default, PartialEq, Eq)]
struct Handler {
    enabled: bool,
    interpreter: String,
    flags: String,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Handler {
    /// `None` if it goes by file names, or is no entry.
    fn parse(text: &str) -> Option<Self> {
        let mut handler = Self { enabled: text.starts_with("enabled\n"), ..Self::default() };
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "interpreter" => value.clone_into(&mut handler.interpreter),
                "flags:" => value.clone_into(&mut handler.flags),
                "offset" if value != "0" => return None,
                "magic" => handler.magic = bytes(value)?,
                "mask" => handler.mask = bytes(value)?,
                _ => {}
            }
        }
        (!handler.magic.is_empty()).then_some(handler)
    }

    fn matches(&self, header: &[u8]) -> bool {
        let mask = |place: usize| self.mask.get(place).copied().unwrap_or(0xff);
        let same = |(place, magic): (usize, &u8)| {
            header.get(place).is_none_or(|byte| byte & mask(place) == magic & mask(place))
        };
        self.magic.iter().enumerate().all(same)
    }

    fn lacks(&self, name: &str) -> String {
        let Self { enabled, interpreter, flags, .. } = self;
        if !enabled {
            return format!("the handler {name} in {BINFMT} is disabled (`echo 1 > {BINFMT}/{name}`)");
        }
        if !flags.contains('F') {
            return format!(
                "the handler {name} in {BINFMT} has no flag F, so that {interpreter} would have to be in the image"
            );
        }
        format!("the handler {name} in {BINFMT} did not accept it")
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs =
        hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    //
    #[test]
    fn handlers_are_told_by_the_programs_they_are_for() {
        let handler = Handler::parse(AARCH64).unwrap();
        assert!(
            handler.enabled && handler.flags == "POCF" && handler.interpreter.ends_with("aarch64-binfmt-P")
        );
        let matching: Vec<&str> =
            ARCHITECTURES.iter().filter(|arch| handler.matches(&arch.header())).map(|arch| arch.0).collect();
        assert_eq!(matching, ["arm64"]);
        assert_eq!(Handler::parse("enabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n"), None);
        let disabled = Handler::parse(&AARCH64.replace("enabled", "disabled")).unwrap();
        assert!(disabled.lacks("qemu-aarch64").contains("is disabled"));
        let unfixed = Handler::parse(&AARCH64.replace("POCF", "OC")).unwrap();
        assert!(unfixed.lacks("qemu-aarch64").contains("has no flag F"));
    }
}
