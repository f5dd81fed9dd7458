#!/usr/bin/env bash
# What a server can do, as it tells by reflection: each method with its kinds of request and answer.
#
#   services.sh [HOST:PORT]      default: localhost:7420, an API server; a host agent has 7421
set -euo pipefail

server=${1:-localhost:7420}
services=$(grpcurl -plaintext "$server" list)
for service in $services; do
    grpcurl -plaintext "$server" describe "$service"
done
