//! Builds that use all that a build can use.

use crate::context::{TestContext, noise, run};
use rbuild_testkit::{Options, TestRegistry};
use std::process::Command;

/// In the command line of every RUN, so that its process can be found.
pub const MARK: &str = "rbuild-soak-mark";

const EPOCH: &str = "1700000000";

/// What a process is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// A pulled base, COPY, RUN, stages; the image stays in the store.
    Pull,
    /// Another Dockerfile with a stage of the first and a cache mount; an OCI archive.
    Archive,
    /// Like the first, pushed.
    Push,
    /// COPY without RUN, as a directory.
    Files,
    Prune,
    PruneAll,
    /// Verifies the store beside whatever else goes on.
    Fsck,
    /// The same, and would repair.
    Repair,
    Du,
}

pub const COMMANDS: [(Job, &[&str]); 5] = [
    (Job::Prune, &["prune", "-f"]),
    (Job::PruneAll, &["prune", "-f", "--all"]),
    (Job::Fsck, &["fsck", "--deep"]),
    (Job::Repair, &["fsck", "--repair"]),
    (Job::Du, &["du"]),
];
pub const BUILDS: [Job; 4] = [Job::Pull, Job::Archive, Job::Push, Job::Files];

/// A store, contexts and a registry.
pub struct Site {
    pub test: TestContext,
    registry: TestRegistry,
}

impl Site {
    /// With a base image in the registry.
    pub fn new() -> Self {
        let registry = TestRegistry::start(Options::default());
        let mut test = TestContext::of("FROM base\nCOPY files /base\nRUN seq 1 50000 > /numbers\n");
        test.env("SOURCE_DATE_EPOCH", EPOCH);
        for at in 0..60 {
            test.file(&format!("files/{}/{at}", at % 7), noise(100 + at * at * 13));
        }
        test.file("big", noise(3_000_000)).symlink("files/link", "0/0").mode("files/3/3", 0o755);
        let site = Self { test, registry };
        let base = site.name("base");
        site.test.build(&["-t", &base, "--push"]).ok();
        std::fs::remove_dir_all(site.test.store()).unwrap();
        let shared = format!(
            "FROM {base} AS shared\nRUN : {MARK}; sha256sum /numbers > /sum; for i in $(seq 1 40); do echo $i > /f$i; done\n"
        );
        let files = [
            (
                Job::Pull,
                format!(
                    "{shared}COPY files /files\nFROM {base}\nRUN : {MARK}; head -c 2000000 /dev/zero | sha256sum > /z\n\
                     COPY --from=shared /files /sum /of/\nCOPY big /big\nRUN : {MARK}; cat /big > /big2; ln /big2 /big3\n"
                ),
            ),
            (
                Job::Archive,
                format!(
                    "{shared}FROM base\nRUN --mount=type=cache,target=/c : {MARK}; echo x >> /c/log; rm -rf /bin/ls; mkdir /d\n\
                     COPY --from=shared /sum /f1 /f2 /d/\nADD big /d/\n\
                     RUN --mount=target=/ctx : {MARK}; cp -a /ctx/files /d/; rm /d/f1\n"
                ),
            ),
            (
                Job::Push,
                format!(
                    "{shared}WORKDIR /w\nCOPY --chown=1:2 files ./\nRUN : {MARK}; find . | sort > /list; sleep 0.05\nCMD [\"x\"]\n"
                ),
            ),
            (
                Job::Files,
                format!(
                    "FROM scratch AS a\nCOPY files /a\nFROM {base}\nCOPY --link --from=a /a /b\nCOPY big /\n"
                ),
            ),
        ];
        for (job, text) in files {
            std::fs::write(site.test.path(&format!("{job:?}")), text).unwrap();
        }
        site
    }

    fn name(&self, image: &str) -> String {
        format!("{}/team/{image}:1", self.registry.host())
    }

    /// The command of a job, whose facts go to the file `NAME.json`.
    pub fn command(&self, job: Job, name: &str, flags: &[&str]) -> Command {
        let mut command = self.test.command();
        if let Some((_, args)) = COMMANDS.iter().find(|(other, _)| *other == job) {
            command.args(*args);
            return command;
        }
        let base = format!("base=oci-layout://{}", crate::context::busybox().display());
        command.args(["build", "--progress=plain", "--build-context", &base, "-f"]);
        command.arg(self.test.path(&format!("{job:?}"))).args(flags);
        command.arg("--metadata-file").arg(self.test.path(&format!("{name}.json")));
        command.args(["-t", &self.name(&format!("{job:?}").to_lowercase())]);
        match job {
            // In the context, where a leftover would be found by the next COPY.
            Job::Archive => command.args(["-o", &format!("type=oci,dest=context/{name}.tar")]),
            Job::Push => {
                let cache = format!("type=registry,ref={}", self.name("cache"));
                command.args(["--push", "--cache-from", &cache, "--cache-to", &format!("{cache},mode=max")])
            }
            Job::Pull => {
                command.args(["--cache-to", "type=local,dest=cache", "--cache-from", "type=local,src=cache"])
            }
            // Into a directory of its own.
            Job::Files => command.args(["-o", &format!("type=local,dest={name}.dir")]),
            _ => &mut command,
        };
        command.arg("context");
        command
    }

    /// The digest of an undisturbed build.
    #[track_caller]
    pub fn digest(&self, job: Job) -> String {
        run(self.command(job, "undisturbed", &[]), b"").ok();
        let text = std::fs::read(self.test.path("undisturbed.json")).unwrap();
        let facts: serde_json::Value = serde_json::from_slice(&text).unwrap();
        facts["containerimage.digest"].as_str().unwrap().to_owned()
    }
}
