#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures the whole, as root, in the guest machine (./dev bench): launches against systemd-run's, breach to SIGTERM,
# deadline lateness, and what the daemon costs beside idle runs. The guest is emulated and shares its host: ratios within
# one run say something, absolute times little. --quick takes a quarter of the samples.
set -euo pipefail
folder=$(dirname "${BASH_SOURCE[0]}")
work=$(mktemp -d /var/tmp/analysis-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
gcc -O2 -o "$work/breach" "$folder/breach.c"
python3 "$folder/whole.py" "$work/breach" "$@"
