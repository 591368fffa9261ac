#!/bin/bash
# bin/start.sh of the archive for Linux shell.
exec python3 "$(dirname "$0")/../runner.py" "$@"
