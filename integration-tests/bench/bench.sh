#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures the whole, as root, in the guest machine (./dev bench): launches against systemd-run's, breach to SIGTERM,
# deadline lateness, what the daemon costs beside idle runs, what the gateway serves beside what nginx does, and what
# sampling very many runs costs. The guest is emulated and shares its host: ratios within one run say something, absolute
# times little. --quick takes a part of the samples, --gateway does only what is in gateway.py. Fails when that says so.
set -euo pipefail
folder=$(dirname "${BASH_SOURCE[0]}")
work=$(mktemp -d /var/tmp/analysis-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
if [[ " $* " != *" --gateway "* ]]; then
  gcc -O2 -o "$work/breach" "$folder/breach.c"
  python3 "$folder/whole.py" "$work/breach" "$@"
fi
gcc -O2 -static -o "$work/mover" "$folder/mover.c"
python3 "$folder/gateway.py" "$work" "$@"
