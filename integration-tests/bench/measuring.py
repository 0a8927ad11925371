# SPDX-License-Identifier: Apache-2.0
"""What the measurements share: running programs, what the record says, and numbers as lines."""

import concurrent.futures
import json
import os
import subprocess
import sys
import time


def run(*words, **more):
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def check(*words):
    done = run(*words)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: status {done.returncode}: {done.stderr}")
    return done.stdout


def events(identity, kind):
    text = check("analysisctl", "events", "--json=short", f"--id={identity}", f"--kind={kind}")
    return [json.loads(line) for line in text.splitlines()]


def distribution(values):
    ordered = sorted(values)

    def at(share):
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000

    return (f"p50 {at(0.5):.2f} ms, p90 {at(0.9):.2f} ms, p99 {at(0.99):.2f} ms, max {ordered[-1] / 1000:.2f} ms "
            f"({len(ordered)} runs)")


def say(text=""):
    print(text, flush=True)


def start_runs(names, command=lambda number: ("sleep", "7200")):
    """All of them detached, as fast as it goes; `command` of their number, which is to be idle."""
    def start(numbered):
        number, name = numbered
        check("analysis-run", "--detach", f"--id={name}", "--wall-clock=2h", "--", *command(number))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(start, enumerate(names)))


def end_runs(names, mark):
    """Returns when systemd has removed the slices of all ids that begin with `mark`."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: check("analysisctl", "kill", name), names))
    slices = "analysis-" + mark.replace("-", "\\x2d")
    while any(name.startswith(slices) for name in os.listdir("/sys/fs/cgroup/analysis.slice")):
        time.sleep(0.2)
