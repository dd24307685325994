#!/bin/sh
# Make the three Secrets that the manifests refer to; values come from the environment and are never written to a file.
set -eu
: "${TIDEMILL_DATABASE_URL:?PostgreSQL, as the ledger of all}" "${TIDEMILL_S3_ENDPOINT_URL:?the object store}"
: "${TIDEMILL_S3_ACCESS_KEY_ID:?}" "${TIDEMILL_S3_SECRET_ACCESS_KEY:?}" "${TIDEMILL_API_KEY:?what clients have to send}"

secret() {  # name, then the lines of its entries on standard input
    kubectl -n tidemill create secret generic "$1" --from-env-file=/dev/stdin --dry-run=client -o yaml | kubectl apply -f -
}

store() {
    printf 'TIDEMILL_S3_ENDPOINT_URL=%s\n' "$TIDEMILL_S3_ENDPOINT_URL"
    printf 'TIDEMILL_S3_ACCESS_KEY_ID=%s\n' "$TIDEMILL_S3_ACCESS_KEY_ID"
    printf 'TIDEMILL_S3_SECRET_ACCESS_KEY=%s\n' "$TIDEMILL_S3_SECRET_ACCESS_KEY"
    printf 'TIDEMILL_API_KEY=%s\n' "$TIDEMILL_API_KEY"
}

store | secret tidemill-replica
{ store; printf 'TIDEMILL_DATABASE_URL=%s\n' "$TIDEMILL_DATABASE_URL"; } | secret tidemill-controller
printf 'tidemill=%s\n' "$TIDEMILL_API_KEY" | secret tidemill-api-keys
