//! ARCHITECTURE.md's table of arrows against what the crates really depend on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/rbuild lies two levels below the root")
}

/// Rooms in the order of the table, with what each may use.
fn documented() -> (Vec<String>, Arrows) {
    let text = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let table = text.split("## Arrows").nth(1).expect("a section on arrows").split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut order = Vec::new();
    let mut arrows = Arrows::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let room = cells.next().unwrap().to_owned();
        let uses = cells.next().unwrap().split(',').map(str::trim).filter(|name| !name.is_empty());
        arrows.insert(room.clone(), uses.map(str::to_owned).collect());
        order.push(room);
    }
    (order, arrows)
}

/// Normal dependencies between our crates, under the names of their rooms.
fn real() -> Arrows {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let room = |name: &str| name.strip_prefix("rbuild-").unwrap_or(name).to_owned();
    let mut arrows = Arrows::new();
    for package in metadata["packages"].as_array().unwrap() {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours = dependencies
            .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
            .map(|dependency| room(dependency["name"].as_str().unwrap()));
        arrows.insert(room(package["name"].as_str().unwrap()), ours.collect());
    }
    arrows
}

#[test]
fn arrows_are_as_documented() {
    let (_, documented) = documented();
    let real = real();
    assert!(real.len() > 15, "cargo metadata lists the rooms");
    let rooms: BTreeSet<_> = documented.keys().chain(real.keys()).collect();
    let differences: Vec<String> = rooms
        .into_iter()
        .filter(|room| documented.get(*room) != real.get(*room))
        .map(|room| format!("{room}: documented {:?}, real {:?}", documented.get(room), real.get(room)))
        .collect();
    assert!(differences.is_empty(), "change ARCHITECTURE.md or the dependency:\n{}", differences.join("\n"));
}

#[test]
fn no_arrow_points_down() {
    let (order, documented) = documented();
    let place = |room: &str| order.iter().position(|other| other == room).unwrap_or(usize::MAX);
    for (room, uses) in &documented {
        for used in uses {
            assert!(place(used) < place(room), "{room} uses {used}, which stands below it in the table");
        }
    }
}

#[test]
fn every_room_has_a_paragraph_with_an_invariant() {
    let text = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    for room in documented().0 {
        let paragraph = text.split("\n\n").find(|part| part.starts_with(&format!("**{room}** ")));
        let paragraph = paragraph.unwrap_or_else(|| panic!("no paragraph on {room}"));
        assert!(paragraph.contains("*Invariant:*"), "no invariant of {room}");
    }
}
