//! RUN of programs that are for another kind of machine.

use crate::context::{TestContext, installed, skip};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const MESSAGE: &[u8] = b"hello from arm64\n";

/// A static 64-bit little-endian ELF file with this code.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const START: u64 = 64 + 56;
    let length = START + code.len() as u64;
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([2, machine].map(u16::to_le_bytes).as_flattened());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([BASE + START, 64, 0].map(u64::to_le_bytes).as_flattened());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
    bytes.extend([1_u32, 5].map(u32::to_le_bytes).as_flattened());
    bytes.extend([0, BASE, BASE, length, length, 0x1_0000].map(u64::to_le_bytes).as_flattened());
    bytes.extend(code);
    bytes
}

/// An aarch64 program that writes [`MESSAGE`] and exits with 0.
fn program() -> Vec<u8> {
    let instructions: [u32; 8] = [
        0xd280_0020,                               // mov x0, #1
        0x1000_0000 | 7 << 5 | 1,                  // adr x1, . + 28: behind the code
        0xd280_0002 | (MESSAGE.len() as u32) << 5, // mov x2, #length
        0xd280_0808,                               // mov x8, #64: write
        0xd400_0001,                               // svc #0
        0xd280_0000,                               // mov x0, #0
        0xd280_0ba8,                               // mov x8, #93: exit
        0xd400_0001,                               // svc #0
    ];
    elf(183, &[instructions.map(u32::to_le_bytes).as_flattened(), MESSAGE].concat())
}

/// An x86-64 program that writes its first argument and exits with 0.
fn false_emulator() -> Vec<u8> {
    let code: &[&[u8]] = &[
        b"\x48\x8b\x74\x24\x10",           // mov rsi, [rsp + 16]
        b"\x31\xd2",                       // xor edx, edx
        b"\x80\x3c\x16\x00\x74\x05",       // more: cmp byte [rsi + rdx], 0; je done
        b"\x48\xff\xc2\xeb\xf5",           // inc rdx; jmp more
        b"\xb8\x01\0\0\0\xbf\x01\0\0\0",   // done: mov eax, 1; mov edi, 1
        b"\x0f\x05",                       // syscall: write
        b"\xb8\x3c\0\0\0\x31\xff\x0f\x05", // mov eax, 60; xor edi, edi; syscall: exit
    ];
    elf(62, &code.concat())
}

/// `/hello` is for arm64.
fn context() -> TestContext {
    let context = TestContext::of("FROM scratch\nCOPY hello /hello\nRUN [\"/hello\"]\n");
    context.file("hello", program()).mode("hello", 0o755);
    context
}

/// Whether this machine executes the program anyway.
fn runs_here(context: &TestContext) -> bool {
    cfg!(target_arch = "aarch64") || Command::new(context.in_context("hello")).output().is_ok()
}

#[test]
fn a_program_for_another_machine_fails_with_a_remedy() {
    let mut context = context();
    if runs_here(&context) {
        return skip(
            "a_program_for_another_machine_fails_with_a_remedy",
            "this machine executes arm64 programs",
        );
    }
    context.env("PATH", "/nowhere");
    let words = [
        ">>> RUN [\"/hello\"]",
        "process \"/hello\" did not run: /hello is no program for this machine, which is linux/",
        "the step is for linux/arm64, and no interpreter for arm64",
        "binfmt_misc",
        "apt install qemu-user-static",
        "FROM --platform=$BUILDPLATFORM",
    ];
    let failed = context.build(&["--platform=linux/arm64"]).fails(1, &words);
    assert!(!failed.stderr.contains("internal error"), "{}", failed.stderr);
    // Of a step for this machine it is another mistake.
    let failed = context.build(&[""; 0]).fails(1, &["exec format error: not a program for this machine"]);
    assert!(!failed.stderr.contains("qemu"), "{}", failed.stderr);
    context.assert_nothing_left();
    // Only what has to run there fails.
    context.dockerfile("FROM scratch\nCOPY hello /hello\nFROM --platform=$BUILDPLATFORM base\nRUN true\n");
    context.build(&["--platform=linux/arm64"]).ok();
}

#[test]
fn an_emulator_is_given_the_program() {
    let mut context = context();
    if runs_here(&context) || !cfg!(target_arch = "x86_64") {
        let reason = "this machine executes arm64 programs, or is none the emulator is for";
        return skip("an_emulator_is_given_the_program", reason);
    }
    std::fs::create_dir(context.path("bin")).unwrap();
    let emulator = context.path("bin/buildkit-qemu-aarch64");
    std::fs::write(&emulator, false_emulator()).unwrap();
    std::fs::set_permissions(&emulator, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = context.path("bin").to_str().unwrap().to_owned();
    context.env("PATH", &path);
    context.dockerfile("FROM scratch\nCOPY hello /bin/hello\nRUN [\"hello\", \"x\"]\n");
    let built = context.build(&["--platform=linux/arm64", "-o", "out"]).ok();
    // Its name is not its path: `-0 hello /bin/hello x`.
    assert!(built.stderr.lines().any(|line| line.ends_with(" -0")), "{}", built.stderr);
    assert!(built.stderr.contains("runs for linux/arm64 with "), "{}", built.stderr);
    assert!(
        !context.path("out/dev/.buildkit_qemu_emulator").exists(),
        "the emulator is not a part of the layer"
    );
    context.assert_nothing_left();
}

#[test]
fn an_emulator_executes_it() {
    const TEST: &str = "an_emulator_executes_it";
    let context = context();
    if runs_here(&context) {
        return skip(TEST, "this machine executes arm64 programs");
    }
    let names = ["buildkit-qemu-aarch64", "qemu-aarch64-static"];
    if !names.into_iter().any(installed) {
        return skip(TEST, "qemu-aarch64-static is not installed");
    }
    let built = context.build(&["--platform=linux/arm64", "-o", "out"]).ok();
    assert!(built.stderr.contains("hello from arm64"), "{}", built.stderr);
    assert!(
        !context.path("out/dev/.buildkit_qemu_emulator").exists(),
        "the emulator is not a part of the layer"
    );
    assert_eq!(context.build(&["--platform=linux/arm64"]).ok().steps().0, 0);
    context.assert_nothing_left();
}
