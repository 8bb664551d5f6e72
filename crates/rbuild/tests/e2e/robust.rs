//! Several builds at once, builds that are killed or stopped, and what they leave.

use crate::context::{TestContext, assert_no_process, noise};
use crate::image::Image;
use std::net::TcpListener;
use std::path::Path;

/// A step that hangs as long as the test listens on the port, and ends when it does not.
fn hanging(port: u16) -> String {
    format!(
        "FROM base\nRUN echo first-$((1+1)) > /first\n\
         RUN echo half > /half; echo started-$((1+1)); nc 127.0.0.1 {port} </dev/null; echo whole > /half\n\
         RUN cat /half > /last\n"
    )
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

const EPOCH: &str = "1700000000";

/// The digest that the context's files give in a store of their own.
fn undisturbed(context: &TestContext) -> String {
    let mut command = context.build_command(&["-t", "app"]);
    command.env("RBUILD_ROOT", context.path("store2"));
    crate::context::run(command, b"").ok();
    Image::only(&context.path("store2")).digest
}

#[test]
fn kill_9_in_the_middle_of_a_run() {
    let (listener, port) = listen();
    let mut context = TestContext::of(&hanging(port));
    context.env("SOURCE_DATE_EPOCH", EPOCH);
    let mut first = context.start("first", &["-t", "app"]);
    first.wait_for("started-2");
    first.kill();
    assert_no_process(&format!("127.0.0.1 {port}"));
    context.assert_no_mounts();
    drop(listener);
    let second = context.build(&["-t", "app"]).ok();
    assert_eq!(second.count("started-2"), 1, "{}", second.stderr);
    context.assert_nothing_left();
    let image = Image::of(&context, "app:latest");
    assert_eq!(image.last().get("last").unwrap().data, b"whole\n");
    assert_eq!(image.digest, undisturbed(&context));
}

fn size_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[test]
fn kill_9_while_a_layer_is_written() {
    let mut context = TestContext::of("FROM base\nCOPY big /big\nRUN sha256sum /big > /sum\n");
    context.env("SOURCE_DATE_EPOCH", EPOCH);
    context.file("big", noise(40_000_000));
    let mut first = context.start("first", &["-t", "app"]);
    let ingest = context.store().join("ingest");
    first.wait_until("a layer being written", |_| size_below(&ingest) > 1_000_000);
    first.kill();
    context.assert_no_mounts();
    context.build(&["-t", "app"]).ok();
    context.assert_nothing_left();
    let image = Image::of(&context, "app:latest");
    assert_eq!(image.digest, undisturbed(&context));
}

#[test]
fn ctrl_c_leaves_nothing() {
    for signal in ["INT", "TERM"] {
        let (_listener, port) = listen();
        let context = TestContext::of(&hanging(port));
        let mut running = context.start("log", &["-t", "app"]);
        running.wait_for("started-2");
        running.signal(signal);
        let (code, log) = running.end();
        assert_eq!(code, 130, "{log}");
        assert!(log.contains("canceled") && !log.contains("panicked"), "{log}");
        assert_no_process(&format!("127.0.0.1 {port}"));
        context.assert_nothing_left();
        assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "");
    }
}

#[test]
fn ctrl_c_while_a_layer_is_written() {
    let context = TestContext::of("FROM base\nCOPY big /big\n");
    context.file("big", noise(40_000_000));
    let mut running = context.start("log", &["-t", "app"]);
    let ingest = context.store().join("ingest");
    running.wait_until("a layer being written", |_| size_below(&ingest) > 1_000_000);
    running.signal("INT");
    let (code, log) = running.end();
    assert!(code == 130 || code == 0, "{log}");
    context.assert_nothing_left();
}

#[test]
fn two_builds_at_once_do_each_step_once() {
    let context = TestContext::of(
        "FROM base AS a\nRUN sleep 0.4; echo a-$((1+1)) > /a; cat /a\nFROM base AS b\n\
         RUN sleep 0.4; echo b-$((1+1)) > /b; cat /b\nFROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n\
         COPY file /\nRUN sleep 0.2; echo c-$((1+1)); date +%N > /random\n",
    );
    context.file("file", noise(300_000));
    let builds: Vec<_> = (0..3).map(|n| context.start(&format!("log{n}"), &["-t", "app"])).collect();
    let logs: Vec<String> = builds
        .into_iter()
        .map(|build| {
            let (code, log) = build.end();
            assert_eq!(code, 0, "{log}");
            log
        })
        .collect();
    for step in ["a-2", "b-2", "c-2"] {
        let times: usize =
            logs.iter().map(|log| log.lines().filter(|line| line.ends_with(step)).count()).sum();
        assert_eq!(times, 1, "{step} in {logs:#?}");
    }
    let image = |log: &String| log.split("image sha256:").nth(1).map(|rest| rest[..64].to_owned());
    assert!(image(&logs[0]).is_some() && logs.iter().all(|log| image(log) == image(&logs[0])), "{logs:#?}");
    context.assert_nothing_left();
}

#[test]
fn a_build_takes_over_from_one_that_was_killed_while_it_waited() {
    let (listener, port) = listen();
    let context = TestContext::of(&hanging(port));
    let mut first = context.start("first", &["-t", "app"]);
    first.wait_for("started-2");
    let second = context.start("second", &["-t", "app"]);
    // Whether the second already waits for the first or comes later, it must get through.
    drop(listener);
    first.kill();
    let (code, log) = second.end();
    assert_eq!(code, 0, "{log}");
    // What the killed one was writing goes when a store is opened that it does not hold any more.
    context.build(&["-t", "app"]).ok();
    context.assert_nothing_left();
}

#[test]
fn prune_beside_a_running_build_takes_nothing_from_it() {
    let (listener, port) = listen();
    let context = TestContext::of(&hanging(port));
    let mut running = context.start("log", &["-t", "app"]);
    running.wait_for("started-2");
    context.rbuild(&["prune", "-f", "--all"]).ok();
    drop(listener);
    // The step reads until its peer closes: the listener's end resets it.
    let (code, log) = running.end();
    assert_eq!(code, 0, "{log}");
    assert_eq!(Image::of(&context, "app:latest").layers.len(), 4);
}

#[test]
fn a_damaged_index_is_made_again() {
    let context = TestContext::of("FROM base\nRUN echo x > /x\n");
    context.build(&["-t", "app"]).ok();
    let digest = Image::of(&context, "app:latest").digest;
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let path = context.store().join(name);
        if path.exists() {
            std::fs::write(path, b"this is no database, and it is long enough to be looked at").unwrap();
        }
    }
    let run = context.build(&["-t", "again"]).ok();
    assert!(run.stderr.contains("WARN"), "{}", run.stderr);
    assert_eq!(Image::of(&context, "app:latest").digest, digest);
    context.build(&["-t", "again"]).ok();
}

#[test]
fn a_damaged_blob_is_not_used() {
    let context = TestContext::of("FROM base\nRUN echo content > /x\n");
    context.build(&["-t", "app"]).ok();
    let manifest = Image::of(&context, "app:latest").manifest;
    let layer = manifest["layers"][1]["digest"].as_str().unwrap().replace(':', "/");
    let blob = context.store().join("blobs").join(layer);
    std::fs::write(&blob, b"short").unwrap();
    context.build(&["-t", "app"]).ok();
    // Reading the image back checks every digest.
    Image::of(&context, "app:latest");
}
