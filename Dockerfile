# The image of loteria: one static binary, a folder for the bets, time zones, and the configuration of name lookup.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /loteria

ENV CARGO_PROFILE_RELEASE_STRIP=symbols
# Link-time optimisation would make the build take 30 s instead of 9 s; no gain in speed could be measured.
ENV CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16

# The dependencies have a layer of their own, so that a change of the source does not build them again.
# .cargo/config.toml makes the binary static.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
# The tests' helpers are not built here, but cargo reads their manifest.
COPY tests/common/Cargo.toml tests/common/
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs \
 && cargo build --locked --release

COPY src src
# Cargo compares times: the files may be older than the empty ones that were built above.
RUN touch src/lib.rs src/main.rs \
 && cargo build --locked --release \
 && mkdir -p /image/etc /image/usr/share/zoneinfo \
 && cp target/*/release/loteria /image/ \
 && echo 'hosts: files dns' > /image/etc/nsswitch.conf
# The names that TZ may have.
RUN cd /usr/share/zoneinfo && rm -rf posix right localtime posixrules && cp -a . /image/usr/share/zoneinfo/ \
# A new volume on /data gets the mode of this folder: any user may write, as the user can be chosen with `--user`.
 && mkdir -m 1777 /image/data

FROM scratch
COPY --from=build /image /
ENV STORAGE_FILEPATH=/data/bets.csv
# A number, because there is no /etc/passwd.
USER 10001:10001
ENTRYPOINT ["/loteria"]
