//! Records on disk.

use super::*;
use crate::limits::Limits;
use proptest::prelude::*;
use rbuild_event::{Event, Stream};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn history(&self) -> History {
        History::new(self.dir.path())
    }

    fn begin_at(&self, started: Millis) -> Recorder {
        let begin = Begin { started, ..begin() };
        Recorder::begin(self.history(), begin, mask::Secrets::default(), Box::new(|_| Fate::Unknown)).unwrap()
    }

    fn begin(&self) -> Recorder {
        self.begin_at(begin().started)
    }
}

fn done() -> Finished {
    Finished { status: Status::Done, exit: 0, error: None, image: ImageFacts::default() }
}

fn hits(keys: &Keys, hit: bool) -> Vec<Hits> {
    (0..keys.steps.len()).map(|step| Hits { vertex: step as u32, hit, needed: !hit }).collect()
}

fn detail(name: &str, entries: Vec<KeyEntry>) -> Detail {
    let write = move |out: &mut dyn std::io::Write| rbuild_copy::write_entries(entries.iter().cloned(), out);
    Detail { digest: Digest::of(name), write: Arc::new(write) }
}

/// No trimming.
fn endless() -> Limits {
    Limits { entries: usize::MAX, age: Duration::from_secs(u64::MAX / 1000), bytes: u64::MAX }
}

fn execute(recorder: &Recorder, step: u32) {
    recorder.event(&Event::Declared { vertex: step, name: format!("step {step}") });
    recorder.event(&Event::Started { vertex: step, at: UNIX_EPOCH + Duration::from_secs(1) });
    drop(recorder.missed(step as usize).and_then(|explain| explain()));
    let at = UNIX_EPOCH + Duration::from_millis(1250);
    for (stream, line) in [(Stream::Stdout, b"out".to_vec()), (Stream::Stderr, vec![0xff, b' ', 0x1b])] {
        recorder.event(&Event::Log { vertex: step, stream, line, at });
    }
    recorder.event(&Event::Completed { vertex: step, at });
}

#[test]
fn a_build_is_read_back() {
    let place = Place::new();
    let recorder = place.begin();
    let id = recorder.id().to_owned();
    assert!(place.history().read(&id).unwrap().running);
    let built = keys(vec![copy("COPY . /", "files"), exec("RUN make")]);
    recorder.keys(
        built.clone(),
        hits(&built, false),
        vec![detail("files", vec![entry("a", "1", 0o644)])],
        false,
    );
    execute(&recorder, 0);
    execute(&recorder, 1);
    recorder.event(&Event::Warning { text: "careful".into() });
    recorder.event(&Event::Declared { vertex: 9, name: "exporting".into() });
    assert_eq!(recorder.finish(done(), &endless()), None);
    let record = place.history().read(&id).unwrap();
    assert_eq!((record.state(), record.running, record.keys.as_ref()), ("done", false, Some(&built)));
    let end = record.end.as_ref().unwrap();
    assert_eq!(end.warnings, ["careful"]);
    assert_eq!(end.other[0].name, "exporting");
    let step = &end.steps[1];
    assert_eq!((step.outcome, step.took), (Outcome::Executed, Some(250)));
    let miss = step.miss.as_ref().unwrap();
    assert_eq!((miss.follows, miss.text.as_str()), (Some(0), "follows from COPY . /: never built here"));
    let log = fs::read(place.history().log_path(&id, step.log.as_ref().unwrap())).unwrap();
    assert_eq!(log, b"0.250 1 out\n0.250 2 \xff \x1b\n");
    let line = parse_line(b"0.250 2 \xff \x1b").unwrap();
    assert_eq!((line.time, line.stderr, line.text), ("0.250", true, &b"\xff \x1b"[..]));
    assert_eq!(place.history().listing(&Digest::of("files")).unwrap(), [entry("a", "1", 0o644)]);
}

#[test]
fn a_second_build_is_explained_by_the_first() {
    let place = Place::new();
    for (content, expected) in [("1", "never built here"), ("2", "a changed")] {
        let recorder = place.begin_at(begin().started + content.parse::<u64>().unwrap());
        let built = keys(vec![copy("COPY . /", content)]);
        let files = vec![entry("a", content, 0o644), entry("b", "same", 0o644)];
        recorder.keys(built.clone(), hits(&built, false), vec![detail(content, files)], false);
        let miss = recorder.missed(0).unwrap()().unwrap();
        assert_eq!(miss.text, expected);
        recorder.finish(done(), &endless());
    }
}

#[test]
fn a_remote_cache_that_could_not_be_read_is_named_first() {
    let place = Place::new();
    let recorder = place.begin();
    recorder.remote_cache_failed("registry/cache");
    let built = keys(vec![exec("RUN a")]);
    recorder.keys(built.clone(), hits(&built, false), Vec::new(), false);
    let miss = recorder.missed(0).unwrap()().unwrap();
    assert_eq!(miss.text, "remote cache unreachable: registry/cache; never built here");
    recorder.finish(done(), &endless());
}

#[test]
fn one_change_that_many_steps_meet_has_one_root() {
    let place = Place::new();
    let built = |value: &str| {
        let run = |stage: &str| in_stage(stage, exec_with("RUN x", json!({"env": [["A", value]]})));
        keys(vec![run("one"), run("two")])
    };
    for (value, expected) in [
        ("1", ["never built here", "same as RUN x: never built here"]),
        ("2", ["ENV A changed: 1 → 2", "same as RUN x: ENV A changed: 1 → 2"]),
    ] {
        let recorder = place.begin_at(begin().started + value.parse::<u64>().unwrap());
        let built = built(value);
        recorder.keys(built.clone(), hits(&built, false), Vec::new(), false);
        let texts = [0, 1].map(|step| recorder.missed(step).unwrap()().unwrap().text);
        assert_eq!(texts, expected);
        recorder.finish(done(), &endless());
    }
}

#[test]
fn long_keys_are_packed() {
    let place = Place::new();
    let recorder = place.begin();
    let id = recorder.id().to_owned();
    let built = keys((0..500).map(|n| exec(&format!("RUN step {n}"))).collect());
    recorder.keys(built.clone(), hits(&built, true), Vec::new(), false);
    recorder.finish(done(), &endless());
    assert_eq!(place.history().read(&id).unwrap().keys.unwrap(), built);
    let written = fs::metadata(place.dir.path().join(format!("{id}.build"))).unwrap().len();
    let long = serde_json::to_vec(&built).unwrap().len() as u64;
    assert!(written * 4 < long, "{written} of {long}");
}

#[test]
fn a_killed_build_leaves_what_it_knew() {
    let place = Place::new();
    let recorder = place.begin();
    let id = recorder.id().to_owned();
    let built = keys(vec![exec("RUN a"), exec("RUN b")]);
    recorder.keys(built.clone(), hits(&built, false), Vec::new(), false);
    execute(&recorder, 0);
    drop(recorder);
    let record = place.history().read(&id).unwrap();
    assert_eq!((record.state(), record.running), ("did not end", false));
    assert_eq!(record.step_end(0).unwrap().outcome, Outcome::Executed);
    assert_eq!(record.step_end(1), None);
    // Wherever it is cut off.
    let path = place.dir.path().join(format!("{id}.build"));
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        match place.history().read(&id) {
            Ok(record) => assert!(record.end.is_none()),
            Err(error) => assert!(error.to_string().contains("cannot be read"), "{error}"),
        }
    }
}

#[test]
fn what_nobody_needed_was_skipped() {
    let place = Place::new();
    let recorder = place.begin();
    let id = recorder.id().to_owned();
    let built = keys(vec![image("FROM a", "a", "1"), exec("RUN a"), exec("RUN b")]);
    let hit = |vertex, hit, needed| Hits { vertex, hit, needed };
    recorder.keys(
        built,
        vec![hit(0, false, false), hit(1, false, false), hit(2, true, true)],
        Vec::new(),
        false,
    );
    recorder.event(&Event::Cached { vertex: 1, from: None });
    recorder.event(&Event::Cached { vertex: 2, from: Some("far".into()) });
    recorder.finish(done(), &endless());
    let record = place.history().read(&id).unwrap();
    let steps = record.end.unwrap().steps;
    assert_eq!(steps[2].cached_from.as_deref(), Some("far"));
    let outcomes: Vec<Outcome> = steps.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [Outcome::Skipped, Outcome::Skipped, Outcome::Cached]);
    assert!(
        !place.dir.path().join(format!("{id}.logs")).exists() && !place.dir.path().join("listings").exists()
    );
}

#[test]
fn builds_are_named_by_their_beginning_and_from_the_newest() {
    let place = Place::new();
    let ids: Vec<String> = (0..3u64)
        .map(|n| {
            let recorder = place.begin_at(n << 20);
            let id = recorder.id().to_owned();
            recorder.finish(done(), &endless());
            id
        })
        .collect();
    let history = place.history();
    for (text, expected) in [
        ("latest", Some(2)),
        ("@", Some(2)),
        ("~1", Some(1)),
        ("@~2", Some(0)),
        ("latest~", Some(1)),
        ("~3", None),
        ("~x", None),
        ("zzz", None),
        ("../x", None),
    ] {
        assert_eq!(history.find(text).ok().as_ref(), expected.map(|place: usize| &ids[place]), "{text}");
    }
    assert_eq!(history.find(&ids[1]).unwrap(), ids[1]);
    assert_eq!(history.find(&ids[1][..10]).unwrap(), ids[1]);
    let ambiguous = history.find("0").unwrap_err().to_string();
    assert!(ambiguous.contains("may be any of"), "{ambiguous}");
    history.remove(&ids[1]).unwrap();
    assert_eq!(history.ids().unwrap(), [ids[2].clone(), ids[0].clone()]);
    let running = place.begin();
    assert!(history.remove(running.id()).unwrap_err().to_string().contains("is running"));
}

#[test]
fn c_024_the_oldest_go_when_there_are_too_many_too_old_or_too_large_ones() {
    const NOW: Millis = 1_700_000_000_000;
    let hour = 3_600_000;
    let fill = |place: &Place| {
        for age in (1..=5).rev() {
            let recorder = place.begin_at(NOW - age * hour);
            let built = keys(vec![exec(&format!("RUN {age}"))]);
            recorder.keys(built.clone(), hits(&built, false), Vec::new(), false);
            execute(&recorder, 0);
            recorder.finish(done(), &endless());
        }
        place.history().ids().unwrap()
    };
    let kept = |limits: &Limits| {
        let place = Place::new();
        let ids = fill(&place);
        let removed = place.history().trim(limits, NOW).unwrap();
        let left = place.history().ids().unwrap();
        assert_eq!(ids, [left.clone(), removed].concat(), "the newest are kept");
        let logs = fs::read_dir(place.dir.path()).unwrap().flatten();
        let logs = logs.filter(|entry| entry.file_name().to_string_lossy().ends_with(".logs")).count();
        assert_eq!(logs, left.len());
        left.len()
    };
    assert_eq!(kept(&endless()), 5);
    assert_eq!(kept(&Limits { entries: 2, ..endless() }), 2);
    assert_eq!(kept(&Limits { entries: 0, ..endless() }), 0);
    assert_eq!(kept(&Limits { age: Duration::from_secs(3 * 3600 + 1800), ..endless() }), 3);
    let place = Place::new();
    fill(&place);
    let bytes = place.history().bytes().unwrap();
    assert_eq!(kept(&Limits { bytes: bytes / 2, ..endless() }), 2);
    let running = place.begin_at(NOW - 100 * hour);
    place.history().trim(&Limits { entries: 1, ..endless() }, NOW).unwrap();
    assert!(place.history().ids().unwrap().contains(&running.id().to_owned()), "a running build stays");
}

#[test]
fn lists_of_files_go_with_the_last_build_that_used_them() {
    let place = Place::new();
    let now = millis(SystemTime::now());
    let recorder = place.begin_at(now);
    let built = keys(vec![copy("COPY . /", "new")]);
    recorder.keys(
        built.clone(),
        hits(&built, true),
        vec![detail("new", Vec::new()), detail("old", Vec::new())],
        false,
    );
    recorder.finish(done(), &endless());
    let old = place.dir.path().join("listings").join(Digest::of("old").hex());
    let file = fs::File::options().append(true).open(&old).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(10 * 86_400)).unwrap();
    place.history().trim(&endless(), now).unwrap();
    assert!(!old.exists() && place.history().listing(&Digest::of("new")).is_some());
}

#[test]
fn what_cannot_be_written_costs_the_record_only() {
    let place = Place::new();
    assert!(
        Recorder::begin(
            History::new(place.dir.path().join("none")),
            begin(),
            mask::Secrets::default(),
            Box::new(|_| Fate::Unknown)
        )
        .is_err()
    );
    let recorder = place.begin();
    fs::write(place.dir.path().join(format!("{}.logs", recorder.id())), "in the way").unwrap();
    let built = keys(vec![exec("RUN a")]);
    recorder.keys(built.clone(), hits(&built, false), Vec::new(), false);
    execute(&recorder, 0);
    let problem = recorder.finish(done(), &endless()).unwrap();
    assert!(problem.contains("incomplete"), "{problem}");
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let place = Place::new();
        let recorder = place.begin();
        let id = recorder.id().to_owned();
        drop(recorder);
        let path = place.dir.path().join(format!("{id}.build"));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [whole.as_slice(), &bytes].concat()).unwrap();
        prop_assert!(place.history().read(&id).is_ok());
        fs::write(&path, &bytes).unwrap();
        drop(place.history().read(&id));
        let _ = parse_line(&bytes);
    }
}
