//! One store, two contexts, several Dockerfiles, and what must come out.

use crate::context::{Run, TestContext, run};
use crate::edit::{Editor, create};
use crate::mapper::Mapper;
use crate::random::Random;
use crate::seen;
use crate::source::{self, Node, Tree};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// A Dockerfile, and what it makes of a context.
#[derive(Clone, Copy)]
pub struct Recipe {
    pub name: &'static str,
    dockerfile: &'static str,
    /// Layers of the base.
    base_layers: usize,
    make: fn(&Tree) -> Tree,
}

pub const RECIPES: [Recipe; 5] = [
    Recipe {
        name: "all",
        dockerfile: "FROM scratch\nCOPY . /all/\n",
        base_layers: 0,
        make: |tree| below(tree, "all"),
    },
    Recipe {
        name: "parts",
        dockerfile: "FROM scratch\nCOPY src /src/\nCOPY w* /wild/\nADD --chown=7:8 src/sub /added/\n\
                     COPY --chmod=600 solo /solo\nCOPY --chmod=g=o,o+x solo /symbolic\n",
        base_layers: 0,
        make: parts,
    },
    Recipe {
        name: "bind",
        dockerfile: "FROM base\nRUN --mount=target=/ctx cp -a /ctx /copied\n",
        base_layers: 1,
        make: |tree| below(tree, "copied"),
    },
    Recipe {
        name: "stages",
        dockerfile: "FROM scratch AS a\nCOPY . /x/\nFROM scratch\nCOPY --from=a /x /y/\n",
        base_layers: 0,
        make: |tree| below(tree, "y"),
    },
    Recipe {
        name: "mixed",
        dockerfile: "FROM scratch AS a\nCOPY . /x/\nFROM base\nCOPY --from=a /x /x\n\
                     RUN --mount=from=a,target=/m cp -a /m/x /y\n",
        base_layers: 1,
        make: |tree| {
            let mut made = below(tree, "x");
            made.extend(below(tree, "y"));
            made
        },
    },
];

fn directory() -> Node {
    Node { kind: 'd', mode: 0o755, owner: (0, 0), data: Vec::new(), capability: None, first: None }
}

/// The tree as the content of a directory.
fn below(tree: &Tree, dir: &str) -> Tree {
    let moved = tree.iter().map(|(path, node)| {
        let first = node.first.as_ref().map(|first| format!("{dir}/{first}"));
        (format!("{dir}/{path}"), Node { first, ..node.clone() })
    });
    let mut moved: Tree = moved.collect();
    moved.insert(dir.to_owned(), directory());
    moved
}

/// files of a context that is a directory here have none in the image.
fn without_capabilities(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|node| node.capability = None);
    tree
}

/// Part of a tree, with its own groups of hard links.
fn subtree(tree: &Tree, dir: &str) -> Tree {
    let prefix = format!("{dir}/");
    let parts =
        tree.iter().filter_map(|(path, node)| Some((path.strip_prefix(&prefix)?.to_owned(), node.clone())));
    let mut parts: Tree = parts.collect();
    source::regroup(&mut parts);
    parts
}

fn parts(tree: &Tree) -> Tree {
    let mut made = below(&subtree(tree, "src"), "src");
    let mut added = below(&subtree(tree, "src/sub"), "added");
    added.values_mut().for_each(|node| node.owner = (7, 8));
    made.extend(added);
    let wild = |(path, _): &(&String, &Node)| path.starts_with('w') && !path.contains('/');
    // Each match is a source of its own: hard links between them are not kept.
    let alone = |(path, node): (&String, &Node)| (path.clone(), Node { first: None, ..node.clone() });
    let wild: Tree = tree.iter().filter(wild).map(alone).collect();
    made.extend(below(&wild, "wild"));
    let solo = &tree["solo"];
    let symbolic = (solo.mode & !0o70) | ((solo.mode & 0o7) << 3) | 0o1;
    made.insert("solo".into(), Node { mode: 0o600, first: None, ..solo.clone() });
    made.insert("symbolic".into(), Node { mode: symbolic, first: None, ..solo.clone() });
    made
}

/// How the result is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    Image,
    Tar,
    Local,
    /// Nothing is written but the cache.
    CacheOnly,
}

/// Everything.
pub struct World {
    test: TestContext,
    pub seed: u64,
    random: Random,
    pub contexts: [PathBuf; 2],
    pub mapper: Option<Mapper>,
    /// What was built: Dockerfile and source.
    built: HashSet<(&'static str, u64)>,
    log: Vec<String>,
    pub edits: u64,
    builds: u64,
    pub hits: u64,
    pub misses: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let test = TestContext::new();
        let mut random = Random::new(seed);
        let contexts = [test.path("context/same"), test.path("other/same")];
        for dir in &contexts {
            create(dir, &mut random);
        }
        for recipe in RECIPES {
            std::fs::write(test.path(recipe.name), recipe.dockerfile).unwrap();
        }
        let mapper = Mapper::start();
        if mapper.is_none() {
            println!("skipped: writes through mappings: no python3");
        }
        let (built, log) = (HashSet::new(), Vec::new());
        Self { test, seed, random, contexts, mapper, built, log, edits: 0, builds: 0, hits: 0, misses: 0 }
    }

    pub fn summary(&self) -> String {
        let Self { edits, builds, hits, misses, .. } = self;
        format!("{edits} edits, {builds} builds, {hits} of known and {misses} of new trees")
    }

    /// One edit that applies.
    pub fn edit(&mut self, context: usize) {
        loop {
            let mut editor = Editor {
                dir: &self.contexts[context],
                other: &self.contexts[1 - context],
                random: &mut self.random,
                mapper: self.mapper.as_mut(),
                number: self.edits,
            };
            if let Some(what) = editor.edit() {
                self.log.push(what);
                self.edits += 1;
                return;
            }
        }
    }

    /// An edit that must not matter.
    fn touch(&mut self, context: usize) {
        let mut editor = Editor {
            dir: &self.contexts[context],
            other: &self.contexts[1 - context],
            random: &mut self.random,
            mapper: None,
            number: 0,
        };
        self.log.push(editor.neutral_edit());
    }

    /// A few edits, then builds.
    pub fn edit_and_build(&mut self) {
        let context = self.random.below(2) as usize;
        for _ in 0..1 + self.random.below(3) {
            self.edit(context);
        }
        let recipe = *self.random.pick(&RECIPES);
        let mut flags = Vec::new();
        if self.random.one_in(6) {
            flags.push("--no-stat-cache");
        }
        if self.random.one_in(6) {
            flags.push("--context-modes=git");
        }
        self.build_and_compare(context, recipe, &flags);
        match self.random.below(4) {
            0 => self.build_and_compare(context, recipe, &flags),
            1 => {
                self.touch(context);
                self.build_and_compare(context, recipe, &flags);
            }
            2 => self.build_and_compare(1 - context, recipe, &flags),
            _ => {}
        }
    }

    /// Builds, and compares what came out with what is on disk.
    pub fn build_and_compare(&mut self, context: usize, recipe: Recipe, flags: &[&str]) {
        let look = *self.random.pick(&[
            Look::Image,
            Look::Image,
            Look::Image,
            Look::Tar,
            Look::Local,
            Look::CacheOnly,
        ]);
        let source = source::read(&self.contexts[context], flags.contains(&"--context-modes=git"));
        self.log.push(format!("build {} of {context} {flags:?} as {look:?}", recipe.name));
        let run = run(self.command(context, recipe, look, "app", flags), b"").ok();
        self.check(recipe, look, "app", &source, &run);
    }

    fn check(&mut self, recipe: Recipe, look: Look, name: &str, source: &Tree, run: &Run) {
        self.builds += 1;
        if let Some(found) = self.look(recipe, look, name) {
            let mut expected = without_capabilities((recipe.make)(source));
            if look == Look::Local {
                // Exported files are the caller's.
                expected.values_mut().for_each(|node| node.owner = (0, 0));
            }
            compare(&expected, &found);
        }
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let key = (recipe.name, hasher.finish());
        if self.built.contains(&key) {
            self.hits += 1;
            assert_eq!(run.steps().0, 0, "the same tree was built before:\n{}", run.stderr);
        } else {
            self.misses += 1;
        }
        self.built.insert(key);
    }

    fn command(
        &self,
        context: usize,
        recipe: Recipe,
        look: Look,
        name: &str,
        flags: &[&str],
    ) -> std::process::Command {
        let (file, dir) = (self.test.path(recipe.name), &self.contexts[context]);
        let output = match look {
            Look::Image => vec!["-t".to_owned(), name.to_owned()],
            Look::Tar => vec!["-o".to_owned(), format!("type=tar,dest={name}.tar")],
            Look::Local => {
                drop(std::fs::remove_dir_all(self.test.path(&format!("{name}.dir"))));
                vec!["-o".to_owned(), format!("type=local,dest={name}.dir")]
            }
            Look::CacheOnly => vec!["-o".to_owned(), "type=cacheonly".to_owned()],
        };
        let mut command = self.test.command();
        let base = format!("base=oci-layout://{}", crate::context::busybox().display());
        command.args(["build", "--progress=plain", "--build-context", &base, "-f"]).arg(file);
        command.args(output).args(flags).arg(dir);
        command
    }

    fn look(&self, recipe: Recipe, look: Look, name: &str) -> Option<Tree> {
        let mut found = match look {
            Look::CacheOnly => return None,
            Look::Image => return Some(seen::image(&self.test.store(), name, recipe.base_layers)),
            Look::Tar => seen::archive(&self.test.path(&format!("{name}.tar"))),
            Look::Local => source::read_all(&self.test.path(&format!("{name}.dir"))),
        };
        let made = ["all", "src", "wild", "added", "solo", "symbolic", "copied", "x", "y"];
        found.retain(|path, _| made.contains(&path.split('/').next().unwrap()));
        source::regroup(&mut found);
        Some(found)
    }

    /// Edits a context for as long as a build of it runs, then builds again. Whether the first build passed.
    pub fn build_while_edited(&mut self) -> bool {
        let (context, recipe) = (self.random.below(2) as usize, *self.random.pick(&RECIPES));
        self.log.push(format!("build {} of {context} beside edits", recipe.name));
        let mut command = self.command(context, recipe, Look::Image, "app", &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            self.edit(context);
            let pause = self.random.below(12_000);
            std::thread::sleep(Duration::from_micros(pause));
        }
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        let said =
            ["changed", "not found", "No such file", "Not a directory", "not a directory", "Is a directory"];
        assert!(!text.contains("panicked"), "{text}");
        assert!(
            out.status.success() || said.iter().any(|words| text.contains(words)),
            "{:?} {text}",
            out.status
        );
        self.log.push(format!("which gave {:?}", out.status.code()));
        self.build_and_compare(context, recipe, &[]);
        out.status.success()
    }

    /// Both contexts at the same time, under different names.
    pub fn build_both_at_once(&mut self, recipe: Recipe) {
        self.log.push(format!("build {} of both", recipe.name));
        let names = ["one", "two"];
        let start = |context: usize| {
            let mut command = self.command(context, recipe, Look::Image, names[context], &[]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        for (context, child) in [0, 1].map(start).into_iter().enumerate() {
            let out = child.wait_with_output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let source = source::read(&self.contexts[context], false);
            compare(
                &without_capabilities((recipe.make)(&source)),
                &seen::image(&self.test.store(), names[context], recipe.base_layers),
            );
            self.builds += 1;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}, {}; what was done last:", self.seed, self.summary());
            for line in self.log.iter().rev().take(12).rev() {
                println!("  {line}");
            }
        }
    }
}

/// Fails with the first differences.
#[track_caller]
fn compare(source: &Tree, found: &Tree) {
    let paths: std::collections::BTreeSet<&String> = source.keys().chain(found.keys()).collect();
    let differs = |path: &&&String| source.get(**path) != found.get(**path);
    let wrong: Vec<String> = (paths.iter().filter(differs).take(8))
        .map(|path| format!("{path}\n    source {:?}\n    result {:?}", source.get(*path), found.get(*path)))
        .collect();
    assert!(wrong.is_empty(), "the result is not the source:\n  {}", wrong.join("\n  "));
}
