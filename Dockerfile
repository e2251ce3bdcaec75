# An image of one binary, for those who build with Docker:
#
#	docker build --build-arg BINARY=aggregate --build-arg VERSION=0.1.0 -t oona/aggregate .
#
# It has the same user, paths and environment as the images that `make image` builds with
# the same bits each time (deploy/image/README.md). The digests differ.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG BINARY VERSION= REVISION= TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/cache \
    test -n "$BINARY" || { echo "give --build-arg BINARY=ingest, aggregate, exporter or oona" >&2; exit 1; }; \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOCACHE=/cache \
    go build -trimpath -buildvcs=false -o /out/ko-app/binary -ldflags "-s -w \
      -X github.com/morphogenetic/oona/internal/worker.stampedVersion=$VERSION \
      -X github.com/morphogenetic/oona/internal/worker.stampedRevision=$REVISION" "./cmd/$BINARY" && \
    mv /out/ko-app/binary "/out/ko-app/$BINARY" && \
    ln -s "/ko-app/$BINARY" /out/entrypoint

# The user is 65532, and there are root certificates and /tmp.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/ /
ENV PATH=/ko-app SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/entrypoint"]
