#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""whole.py BREACH [--quick]: the measurements of bench.sh."""

import concurrent.futures
import os
import statistics
import sys
import time

from measuring import check, distribution, end_runs, events, run, say, start_runs

BREACH = sys.argv[1]
QUICK = "--quick" in sys.argv
PAIRS = 10 if QUICK else 40
DEADLINES = 20 if QUICK else 100
BREACHES = 8 if QUICK else 40
IDLE = 50 if QUICK else 300
MARK = f"bench-{os.getpid()}"


def launches():
    """analysis-run against systemd-run, in pairs, so that whatever slows the machine slows both."""
    ours, theirs = [], []
    for pair in range(PAIRS + 2):
        for times, words in ((ours, ("analysis-run", "true")), (theirs, ("systemd-run", "--scope", "-q", "true"))):
            began = time.monotonic()
            check(*words)
            if pair >= 2:  # The first warm the caches.
                times.append((time.monotonic() - began) * 1000)
    say("Launching `true`, median of interleaved pairs")
    say(f"  analysis-run               {statistics.median(ours):8.1f} ms   (a slice of its own, and a complete record)")
    say(f"  systemd-run --scope -q     {statistics.median(theirs):8.1f} ms")
    say(f"  ratio                      {statistics.median(a / b for a, b in zip(ours, theirs)):8.2f}      (aim: at most 1.3)")


def deadlines():
    """How late SIGTERM leaves: the decision's age less the limit."""
    names = [f"{MARK}-deadline-{i}" for i in range(DEADLINES)]
    first = time.monotonic() + DEADLINES * 0.6 + 5

    def start(i):
        left = first + i * 0.1 - time.monotonic()
        check("analysis-run", "--detach", f"--id={names[i]}", f"--wall-clock={max(left, 1):.6f}s", "--", "sleep", "3600")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(DEADLINES)))
    time.sleep(max(0.0, first + DEADLINES * 0.1 + 3 - time.monotonic()))
    late = []
    for name in names:
        ending = events(name, "ending")
        late += [e["duration_usec"] - e["wall_clock_limit_usec"] for e in ending]
    say("Lateness of a deadline (the decision, after the limit)")
    say(f"  {distribution(late)}")


def breaches():
    """From the page that passes the limit to the first instruction of the handler."""
    late, over = [], []
    limit = 64 << 20
    for i in range(BREACHES):
        done = run("analysis-run", "--quiet", f"--id={MARK}-breach-{i}", f"--memory={limit}", "--", BREACH, str(limit))
        if done.returncode != 0:
            sys.exit(f"breach: status {done.returncode}: {done.stderr}")
        usec, have = done.stdout.split()
        late.append(int(usec))
        over.append((int(have) - limit) / (1 << 20))
    say("From passing the memory limit to SIGTERM's handler (one thread, allocating as fast as it can)")
    say(f"  {distribution(late)}")
    say(f"  by then over the limit by: median {statistics.median(over):.1f} MiB, most {max(over):.1f} MiB")


def idle():
    """What the daemon costs when nothing happens."""
    pid = int(check("systemctl", "show", "--value", "-p", "MainPID", "analysis-watchdogd.service"))

    def status():
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            ticks = file.read().rsplit(")", 1)[1].split()
        cpu = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["RssAnon"].split()[0]) / 1024, cpu

    before = status()
    names = [f"{MARK}-idle-{i}" for i in range(IDLE)]
    began = time.monotonic()
    start_runs(names)
    started = time.monotonic() - began
    time.sleep(10)
    window = 10 if QUICK else 30
    first = status()
    time.sleep(window)
    last = status()
    say(f"{IDLE} idle runs at once (started in {started:.0f} s)")
    say(f"  daemon's memory            {last[0]:8.1f} MiB   ({before[0]:.1f} MiB before; anonymous {last[1]:.1f} MiB)")
    say(f"  daemon's CPU time          {(last[2] - first[2]) / window * 100:8.2f} %     of one CPU, over {window} s")
    began = time.monotonic()
    end_runs(names, MARK)
    say(f"  all of them ended in       {time.monotonic() - began:8.1f} s")


for measure in (launches, breaches, deadlines, idle):
    measure()
    say()
