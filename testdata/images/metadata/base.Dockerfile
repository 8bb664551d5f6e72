FROM busybox
MAINTAINER Some One <one@example.test>
LABEL keep=base change=base
ENV KEEP=base CHANGE=base
EXPOSE 1234
VOLUME ["/data", "/b c"]
HEALTHCHECK CMD ["true"]
STOPSIGNAL 9
SHELL ["/bin/sh", "-x", "-c"]
USER daemon:mail
WORKDIR /base
ENTRYPOINT ["entry"]
CMD ["a", "b"]
