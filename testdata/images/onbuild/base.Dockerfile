FROM busybox
ENV APP_HOME=/usr/src/app
ONBUILD ARG MODE=release
ONBUILD ENV APP_MODE=$MODE
ONBUILD COPY package.json $APP_HOME/
ONBUILD RUN echo "$APP_MODE" > $APP_HOME/mode
ONBUILD LABEL built.mode=$MODE
ONBUILD USER daemon
ONBUILD COPY --from=busybox /etc/os-release /from-image
LABEL layer=base
WORKDIR /usr/src
CMD [ "npm", "start" ]
