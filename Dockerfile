# The whole of it is one static binary. `docker build .` compiles it; `make image` wraps one from this machine.
# The digest is that of the tag's index for all architectures: change both together, by `docker buildx imagetools inspect TAG`.
FROM rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bin trainspot
RUN mkdir -p /image/etc/ssl/certs \
    && mkdir -m 1777 /image/tmp \
    && cp "target/$(rustc -vV | sed -n 's/^host: //p')/release/trainspot" pipe.yml README.md LICENSE /image/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
LABEL org.opencontainers.image.title="trainspot" \
      org.opencontainers.image.description="Bitbucket Pipe that trains a model on a rented machine and commits it back" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ENTRYPOINT ["/trainspot"]
