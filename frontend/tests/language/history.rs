//! B2: texts of history entries.

use crate::{build, build_with, with_args};

/// B-007, B-008
#[test]
fn texts() {
    let text = "FROM debian AS other
FROM debian
ARG a=1 b
ENV k=v l=\"x y\"
LABEL \"m n\"=$k
ARG secret
RUN  echo \"$k\"   done
RUN [\"x\", \"y z\"]
RUN <<E
body
E
RUN cat <<E
body
E
COPY s t /d/
COPY --from=other --link --exclude=x --chown=$a:2 --chmod=755 s$k <<one <<two /d$k/
1
one
2
two
COPY --parents a/./b /d
ADD --chmod=600 --link --exclude=y s https://h/$k /d/
WORKDIR /w/$k
WORKDIR x
WORKDIR /
CMD [\"a\", \"b \\\"c\\\"\\n\", \"é\"]
CMD a 'b'
ENTRYPOINT [\"e\"]
ENTRYPOINT e  f
EXPOSE 90/UDP 80-81 $a
VOLUME /b /a
VOLUME [\"/c d\"]
USER me$a
STOPSIGNAL SIGTERM
SHELL [\"/bin/sh\", \"-c\"]
HEALTHCHECK --interval=1m30s --start-interval=1500us --retries=2 CMD a \"b\"
HEALTHCHECK NONE
MAINTAINER me $a
ONBUILD RUN later
";
    let built = build_with(text, &with_args(&[("secret", "s p")]));
    let prefix = "RUN |3 a=1 b= secret=s p ";
    assert_eq!(
        built.history(),
        [
            "- ARG a=1 b",
            "- ENV k=v l=x y",
            "- LABEL m n=v",
            "- ARG secret=s p",
            &format!("{prefix}/bin/sh -c echo \"$k\"   done # buildkit"),
            &format!("{prefix}x y z # buildkit"),
            &format!("{prefix}/bin/sh -c body\n # buildkit"),
            &format!("{prefix}/bin/sh -c cat <<E\nbody\nE # buildkit"),
            "COPY s t /d/ # buildkit",
            "COPY --chown=1:2 --chmod=755 sv <<one <<two /dv/ # buildkit",
            "COPY --parents a/./b /d # buildkit",
            "ADD --chmod=600 s https://h/v /d/ # buildkit",
            "WORKDIR /w/v",
            "WORKDIR /w/v/x",
            "- WORKDIR /",
            "- CMD [\"a\" \"b \\\"c\\\"\\n\" \"é\"]",
            "- CMD [\"/bin/sh\" \"-c\" \"a 'b'\"]",
            "- ENTRYPOINT [\"e\"]",
            "- ENTRYPOINT [\"/bin/sh\" \"-c\" \"e  f\"]",
            "- EXPOSE [1/tcp 80/tcp 81/tcp 90/udp]",
            "- VOLUME [/b /a]",
            "- VOLUME [/c d]",
            "- USER me1",
            "- STOPSIGNAL SIGTERM",
            "- SHELL [/bin/sh -c]",
            "- HEALTHCHECK {Test:[CMD-SHELL a \"b\"] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:1.5ms Retries:2}",
            "- HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "- MAINTAINER me $a",
        ]
    );
    assert!(built.definition.image.history.iter().all(|entry| entry.comment == "buildkit.dockerfile.v0"));
    // Each step has its own entry, in the same order.
    let layers: Vec<_> = built.definition.image.history.iter().filter_map(|entry| entry.vertex).collect();
    assert_eq!(layers.last().copied(), built.definition.image.root);
    assert_eq!(build("FROM debian\nONBUILD RUN x\n").history(), [""; 0]);
}
