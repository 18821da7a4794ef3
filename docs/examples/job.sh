#!/bin/sh
# A long job that tells how far it is: ./job.sh 42
set -eu

tell() {
    curl -sS --fail-with-body -o /dev/null --retry 5 --retry-all-errors -d "{\"percent\": $2, \"step\": \"$3\"}" \
        "${NOTIFIER:-http://127.0.0.1:8080}/v1/topics/jobs/$1"
}

tell "$1" 0 "Reading"
sleep "${PACE:-2}"
tell "$1" 40 "Counting"
sleep "${PACE:-2}"
tell "$1" 90 "Writing"
sleep "${PACE:-2}"
tell "$1" 100 "Done"
