# syntax=docker/dockerfile:1

# At least the Rust that Cargo.toml asks for (rust-version). .ci/run builds with the same command.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ make cmake libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /satsuma

# The dependencies in a layer of their own: it is built anew only when Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY src/cluster/Cargo.toml src/cluster/
COPY src/sfu/Cargo.toml src/sfu/
COPY src/load/Cargo.toml src/load/
COPY benches benches
RUN echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs src/cluster/lib.rs src/sfu/lib.rs src/load/lib.rs \
    && cargo build --profile dist --locked \
    && rm -rf src target/dist/.fingerprint/satsuma-*

COPY src src
COPY static static
COPY config config
RUN cargo build --profile dist --locked

FROM debian:bookworm-slim
# Platforms that choose another user run it in group 0 (OpenShift); others may mount a directory and only pass through /data.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 8787 satsuma \
    && useradd --system --uid 8787 --gid 8787 --home-dir /data --no-create-home satsuma \
    && install -d -o satsuma -g root -m 0771 /data
COPY --from=build /satsuma/target/dist/satsuma /usr/local/bin/satsuma
COPY config/satsuma.toml /usr/share/doc/satsuma/satsuma.toml

# Inside, everything listens on all addresses. Only 8787 is meant for the world; on 8788 health and
# metrics are open and /admin/ needs the operator token.
ENV SATSUMA_HTTP__LISTEN=0.0.0.0:8787 \
    SATSUMA_ADMIN__LISTEN=0.0.0.0:8788 \
    SATSUMA_DATA_DIR=/data
# By number, so that Kubernetes can see that it is not root.
USER 8787:8787
WORKDIR /data
VOLUME /data
EXPOSE 8787 8789/udp 8789/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["satsuma", "healthcheck"]
ENTRYPOINT ["satsuma"]
CMD ["serve"]
