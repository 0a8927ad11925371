#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Real programs run away and are ended, others live happily beside them. Run by ./dev demo, as root, in the guest machine
# or (--here) on this host. Each is started with analysis-run, all at once; what is said of them comes as it falls. At the
# end stands the table of what ended, why, when and at what cost, and every verdict is compared with what it should be.
set -euo pipefail

if [[ -t 1 ]]; then bold=$'\e[1m' red=$'\e[1;31m' green=$'\e[32m' dim=$'\e[2m' plain=$'\e[0m'
else bold='' red='' green='' dim='' plain=''; fi

folder=$(mktemp -d /var/tmp/analysis-demo.XXXXXX)
suffix=${folder##*.}
since=@$(date +%s)
declare -A expected pids
order=()

cleanup() {
  local name
  for name in "${order[@]}"; do analysisctl kill "$name-$suffix" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap cleanup EXIT

say() { printf '%s\n' "$*"; }

# start NAME EXPECTED WHAT [OPTION…] -- COMMAND…: one analysis, in the background. EXPECTED is its reason, with
# "+escalated" where SIGTERM is not to be enough ("*" where it may not be: stress-ng looks for it between its passes) and "+orphan" where an orphan is to be found beside it.
start() {
  local name=$1 what=$3
  expected[$name]=$2
  order+=("$name")
  shift 3
  printf '%s%-14s%s %s\n' "$bold" "$name" "$plain" "$what"
  (
    status=0
    analysis-run --id="$name-$suffix" "$@" >"$folder/$name.out" 2>"$folder/$name.err" </dev/null || status=$?
    # What the command itself wrote is in the file as well; the launcher's own line is the verdict.
    verdict=$(grep '^analysis-run: .* was ended: ' "$folder/$name.err" | sed 's/^analysis-run: [^ ]* was ended: //; s/ See: .*//' || true)
    if [[ -n $verdict ]]; then
      printf '%s%-14s%s %s\n' "$red" "$name" "$plain" "$verdict"
    else
      printf '%s%-14s%s ended by itself, status %s\n' "$green" "$name" "$plain" "$status"
    fi
  ) &
  pids[$name]=$!
}

# --- what the happy ones work on -------------------------------------------------------------------------------------

say "${dim}Making a file of 100 MB to sort and 24 C files to compile ...$plain"
padding=$(printf 'x%.0s' $(seq 92))
seq 1000001 2000000 | rev | sed "s/\$/ $padding/" >"$folder/numbers"
mkdir "$folder/project"
for i in $(seq 24); do
  {
    echo '#include <stdio.h>'
    for f in $(seq 40); do echo "int part_${i}_$f(int n) { int s = $f; while (n-- > 0) s = s * 31 + n; return s; }"; done
  } >"$folder/project/part$i.c"
done
printf 'OBJECTS := $(patsubst %%.c,%%.o,$(wildcard *.c))\nall: $(OBJECTS)\n%%.o: %%.c\n\t$(CC) -O1 -c -o $@ $<\n' \
  >"$folder/project/Makefile"

cat >"$folder/leak.py" <<'PYTHON'
import time
hoard = []
while True:
    hoard.append(bytearray(1 << 20))
    time.sleep(0.02)
PYTHON
cat >"$folder/daemonize.py" <<'PYTHON'
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "600"])
    os._exit(0)
os.wait()
time.sleep(12)
PYTHON

# --- the programs ----------------------------------------------------------------------------------------------------

say
start sort exited "sorts 100 MB through its page cache, limit 32 MB" \
  --memory=32M --wall-clock=5min -- env LC_ALL=C sort -S 8M -T "$folder" -o "$folder/sorted" "$folder/numbers"
start build exited "make -j4, limit 256 MB" \
  --memory=256M --wall-clock=5min -- make -s -j4 -C "$folder/project"
start leak memory "a Python list that grows past 100 MB" --memory=100M -- python3 "$folder/leak.py"
start stress "memory*" "stress-ng, which wants 400 MB and may have 120 MB" \
  --memory=120M -- stress-ng --quiet --vm 2 --vm-bytes 400M --vm-keep --timeout 300
start late wall-clock "sleeps ten minutes, may run six seconds" --wall-clock=6s -- sleep 600
# A shell, because it is up and deaf long before its time is over, however busy the machine.
start stubborn wall-clock+escalated "ignores SIGTERM" --wall-clock=9s --grace=5s -- sh -c 'trap "" TERM; sleep 600'
start forkbomb wall-clock+escalated "a fork bomb, at most 150 tasks" \
  --tasks=150 --wall-clock=5s --grace=5s -- bash -c 'bomb() { bomb | bomb & }; bomb; trap "" TERM; sleep 600'
start worker orphaned "a worker that dies and leaves its children" -- sh -c 'sleep 600 & sleep 600 & exit 1'
start daemonizer exited+orphan "puts a grandchild into the background, and works on" -- python3 "$folder/daemonize.py"
say
wait "${pids[@]}"

# --- what ended, why, when, at what cost -----------------------------------------------------------------------------

say
say "${bold}What ended, why, when and at what cost$plain"
analysisctl events --since="$since" --kind=ended --no-pager
say
failures=0
for name in "${order[@]}"; do
  events=$(analysisctl events --since="$since" --id="$name-$suffix" --json=short)
  seen=$(python3 -c '
import json, sys
events = [json.loads(line) for line in sys.stdin]
ended = [e for e in events if e["kind"] == "ended"]
text = ended[0]["reason"] if len(ended) == 1 else f"{len(ended)} ends"
if ended and ended[0]["escalated"]: text += "+escalated"
if any(e["kind"] == "orphan-found" for e in events): text += "+orphan"
print(text)' <<<"$events")
  # shellcheck disable=SC2053  # A pattern.
  if [[ $seen != ${expected[$name]} ]]; then
    say "${red}$name: expected ${expected[$name]}, got $seen$plain"
    sed 's/^/    /' "$folder/$name.err" | tail -5
    failures=$((failures + 1))
  fi
done
if [[ ! -s $folder/sorted || $(stat -c %s "$folder/sorted") != $(stat -c %s "$folder/numbers") ]]; then
  say "${red}the sorted file is not whole$plain"
  failures=$((failures + 1))
fi
left=$(systemctl list-units --all --no-legend --plain "analysis-*$suffix*" | wc -l)
((left == 0)) || { say "${red}$left units are left behind$plain"; failures=$((failures + 1)); }
((failures == 0)) || exit 1
say "${green}Every verdict is the right one, and nothing is left behind.$plain"
