#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gateway.py FOLDER [--quick]: with very many live runs, what the gateway serves, as a ratio to nginx with a page of the same
size; whether the daemon keeps its deadlines all the same; and what it costs the daemon to sample these runs. FOLDER holds
`mover` (mover.c). Its status is 1 when something that is demanded of the gateway does not hold."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

from measuring import check, distribution, say, start_runs

FOLDER = os.path.abspath(sys.argv[1])
QUICK = "--quick" in sys.argv
RUNS = 100 if QUICK else 1000
ROUNDS = 2 if QUICK else 3
SECONDS = 4 if QUICK else 5
DEADLINES = 20 if QUICK else 40
WINDOW = 10 if QUICK else 30  # seconds that the daemon's CPU time is counted
REST = 2 * WINDOW  # … where runs at rest are sampled, once a minute
MOVING = 4  # the memory of every fourth run moves: that of all would take three processors of an emulated machine
MARK = f"web-{os.getpid()}"
STATUS = "/api/quests/status"
GATEWAY = "http://127.0.0.1:8787" + STATUS
NGINX = "http://127.0.0.1:8099/status.json"
SOCKET = "/run/analysis-watchdog-web/http"
SETTINGS = "/run/analysis-watchdog/analysis-watchdog.conf.d/90-bench.conf"

# What is demanded.
WANTED = 1000  # requests a second
# Where nginx itself does not reach that, so much of what it does: both are held up by the same emulated processors.
WANTED_OF_NGINX = 0.5
# Deadlines under that load may be later than those of an idle gateway by this factor or, where that is less than the
# guest's own jitter, by these ms: it has two emulated processors, and the load takes both.
LATER_FACTOR = 5
LATER_MS = 10

# As many at once as wrk has for all that it can.
CONNECTIONS = 32
# wrk has no rate of its own: each connection waits between its requests. So many of them that with answers within 50 ms
# it is more than WANTED.
PACED_CONNECTIONS = 256
PACED_MS = 204
PACED = f"function delay() return {PACED_MS} end\n"

# One process and no log, as the gateway; else as Debian has it.
NGINX_CONF = f"""
daemon off; worker_processes 1; pid {FOLDER}/nginx.pid; error_log {FOLDER}/nginx.log; user root;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000; default_type application/json;
  client_body_temp_path {FOLDER}/b; proxy_temp_path {FOLDER}/p; fastcgi_temp_path {FOLDER}/f;
  uwsgi_temp_path {FOLDER}/u; scgi_temp_path {FOLDER}/s;
  server {{ listen 127.0.0.1:8099; root {FOLDER}/www; }}
}}
"""

failures = []


def demand(holds, what):
    if not holds:
        failures.append(what)
        say(f"  FAILED: {what}")


# --- asking ----------------------------------------------------------------------------------------------------------


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


class OverUnixSocket(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(SOCKET)


def ask(target):
    """What the gateway tells root, who sees all. Under load it may have to say that it knows of nothing just now."""
    end = time.monotonic() + 60
    while True:
        status, body = ask_once(target)
        if status == 200:
            return json.loads(body)
        if status != 503 or time.monotonic() > end:
            sys.exit(f"{target}: {status}: {body.decode(errors='replace')}")
        time.sleep(1)


def ask_once(target):
    connection = OverUnixSocket("localhost")
    with contextlib.closing(connection):
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read()


def await_true(what, holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"not after {seconds} s: {what}")
        time.sleep(0.2)


def answers(url):
    try:
        get(url)
        return True
    except OSError:
        return False


def wrk(url, seconds, paced=False):
    """Requests a second, and the latency of 99 in 100 in ms. All of them have to be answered with 2xx."""
    pace = ("-s", f"{FOLDER}/paced.lua") if paced else ()
    text = check("wrk", "-t1", f"-c{PACED_CONNECTIONS if paced else CONNECTIONS}", f"-d{seconds}s", "--latency", "--timeout", "30s",
                 *pace, url)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", text)
    if bad:
        sys.exit(f"{url}: {bad[0]}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text).groups()
    return rate, float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


# --- what the gateway serves -------------------------------------------------------------------------------------------


def in_turns(paced):
    """[(ours, nginx's)], in turns, so that whatever slows the machine slows both."""
    return [(wrk(GATEWAY, SECONDS, paced), wrk(NGINX, SECONDS, paced)) for _ in range(ROUNDS)]


def throughput():
    say(f"{STATUS} with {RUNS} live runs, medians of {ROUNDS} rounds of {SECONDS} s")
    for paced in (False, True):
        rounds = in_turns(paced)
        if paced:
            say(f"  {PACED_CONNECTIONS} connections, each of them asks {PACED_MS} ms after its last answer:")
        else:
            say(f"  {CONNECTIONS} connections, all that it can:")
        rates = []
        for which, name in enumerate(("analysis-watchdog-web", "nginx, a static page")):
            rates.append(statistics.median(both[which][0] for both in rounds))
            of_wanted = f" of {WANTED} requests/s wanted" if paced else " requests/s"
            say(f"    {name:<22} {rates[-1]:9.0f}{of_wanted}, "
                f"99 in 100 within {statistics.median(both[which][1] for both in rounds):.1f} ms")
        say(f"    ratio                  {statistics.median(ours[0] / theirs[0] for ours, theirs in rounds):9.2f}")
        if not paced:
            continue
        if rates[1] < WANTED:
            say(f"    nginx itself does not reach {WANTED} here; the gateway has to reach {WANTED_OF_NGINX:.0%} of what it does")
            demand(rates[0] >= WANTED_OF_NGINX * rates[1],
                   f"the gateway answers {rates[0]:.0f} requests/s where nginx answers {rates[1]:.0f}")
        else:
            demand(rates[0] >= WANTED, f"the gateway answers {rates[0]:.0f} of {WANTED} requests/s, and nginx {rates[1]:.0f}")


# --- deadlines meanwhile -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_dashboard():
    """A reader of the stream, as an open page of somebody who has signed in is; it has to be told something."""
    told = f"{FOLDER}/stream"
    with open(told, "wb") as file:
        with subprocess.Popen(["curl", "--silent", "--no-buffer", "--fail", "--unix-socket", SOCKET,
                               "http://localhost/api/events/stream"], stdin=subprocess.DEVNULL, stdout=file) as reader:
            try:
                await_true("the stream tells of the runs", lambda: os.path.getsize(told) > RUNS * 100)
                before = os.path.getsize(told)
                yield
                if reader.poll() is not None:
                    sys.exit("the stream has ended")
                if os.path.getsize(told) == before:
                    sys.exit("the stream has told nothing")
            finally:
                reader.terminate()


def lateness(kind, during):
    """How late deadlines are, median in ms, while during(seconds) goes on; that says what it did."""
    names = [f"{MARK}-{kind}-{i}" for i in range(DEADLINES)]
    first = time.monotonic() + DEADLINES * 0.7 + 8

    def start(i):
        left = first + i * 0.1 - time.monotonic()
        if left < 1:
            sys.exit("launches take too long here for their deadlines")
        check("analysis-run", "--detach", f"--id={names[i]}", f"--wall-clock={left:.6f}s", "--", "sleep", "3600")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(DEADLINES)))
    time.sleep(max(0.0, first - 2 - time.monotonic()))
    said = during(int(DEADLINES * 0.1) + 4)
    late = {}

    def all_on_record():
        for event in ask("/api/events?kind=ending&limit=1000"):
            if event["registered_as"] in names:
                late[event["registered_as"]] = event["duration_usec"] - event["wall_clock_limit_usec"]
        return len(late) == DEADLINES

    await_true(f"{DEADLINES} deadlines are on record", all_on_record)
    say(f"  {said + ':':<58} {distribution(list(late.values()))}")
    return statistics.median(late.values()) / 1000


def nobody_asks(seconds):
    time.sleep(seconds)
    return "nobody asks"


def requests(paced):
    def during(seconds):
        rate = wrk(GATEWAY, seconds, paced)[0]
        return f"a dashboard is open, and {rate:.0f} requests/s" + (f" of {WANTED} wanted" if paced else ", all that it can")

    return during


def deadlines():
    say(f"Lateness of a deadline with {RUNS} live runs, from the limit to the decision, while of the gateway")
    idle = lateness("idle", nobody_asks)
    with open_dashboard():
        wanted = lateness("wanted", requests(paced=True))
        most = lateness("most", requests(paced=False))
    say(f"  ratios of the medians to that of the idle gateway: {wanted / idle:.2f} and {most / idle:.2f}")
    bound = max(LATER_FACTOR * idle, idle + LATER_MS)
    demand(wanted <= bound, f"half of the deadlines are more than {wanted:.2f} ms late under load; {bound:.2f} ms are allowed "
           f"({idle:.2f} ms without load, {LATER_FACTOR} times that or {LATER_MS} ms more)")


# --- what sampling costs ---------------------------------------------------------------------------------------------


def daemon_cpu():
    """CPU seconds that the daemon has used."""
    group = check("systemctl", "show", "--value", "-p", "ControlGroup", "analysis-watchdogd.service").strip()
    with open(f"/sys/fs/cgroup{group}/cpu.stat", encoding="utf-8") as file:
        return int(dict(line.split() for line in file)["usage_usec"]) / 1e6


def set_interval(interval, idle="1min"):
    os.makedirs(os.path.dirname(SETTINGS), exist_ok=True)
    with open(SETTINGS, "w", encoding="utf-8") as file:
        file.write(f"[Series]\nInterval={interval}\nIdleInterval={idle}\n")
    check("systemctl", "reload", "analysis-watchdogd.service")


def move(runs, number):
    for run in runs:
        os.kill(run["leader_pid"], number)


def watch_cpu(label, seconds):
    """(label, when it began and ended in µs, the seconds between, the daemon's CPU seconds in them)"""
    began, before = time.time() * 1e6, daemon_cpu()
    time.sleep(seconds)
    ended, after = time.time() * 1e6, daemon_cpu()
    return label, began, ended, (ended - began) / 1e6, after - before


def sampling(names):
    """Whether memory moves costs the daemon something without samples too; what is more with them is what they cost."""
    wanted = set(names)
    runs = [row for row in ask("/api/analyses") if row["registered_as"] in wanted]
    if len(runs) != RUNS:
        sys.exit(f"{len(runs)} of {RUNS} runs are listed")
    movers = runs[::MOVING]
    seen = movers[:: max(1, len(movers) // 20)]

    set_interval("2s")
    time.sleep(3)
    results = [watch_cpu("Interval=2s, memory at rest", REST)]
    set_interval("never")
    time.sleep(3)
    results.append(watch_cpu("Interval=never, memory at rest", WINDOW))
    move(movers, signal.SIGUSR1)
    time.sleep(5)
    results.append(watch_cpu("Interval=never, memory moves", WINDOW))
    # At rest they were looked at once a minute, and may be at that for a minute more. That none is left at rest lets them
    # all be found moving.
    time.sleep(max(0, 65 - 2 * WINDOW - 8))
    set_interval("2s", idle="2s")
    time.sleep(8)
    set_interval("2s")
    time.sleep(3)
    results.append(watch_cpu("Interval=2s, memory moves", WINDOW))
    move(movers, signal.SIGUSR2)

    # How often the runs were sampled in each, by the curves themselves.
    series = [ask(f"/api/analyses/{run['registered_as']}/series") for run in seen]
    say(f"CPU time of the daemon with {RUNS} live runs; where memory moves, it is that of {len(movers)}")
    taken, share = {}, {}
    for label, began, ended, seconds, cpu in results:
        counts = []
        for one in series:
            at = one["columns"].index("at_usec")
            counts.append(sum(began <= row[at] <= ended for row in one["rows"]))
        taken[label] = statistics.mean(counts) / seconds
        share[label] = cpu / seconds
        say(f"  {label + ':':<32} {cpu:7.2f} s in {seconds:.0f} s = {share[label] * 100:6.2f} % of one CPU, "
            f"{statistics.mean(counts):.1f} samples of each run")
    for state in ("at rest", "moves"):
        more = share[f"Interval=2s, memory {state}"] - share[f"Interval=never, memory {state}"]
        samples = taken[f"Interval=2s, memory {state}"] * (RUNS if state == "at rest" else len(movers))
        each = f", {more / samples * 1e6:.0f} µs for each of {samples:.0f} samples a second" if samples > 0 else ""
        say(f"  so sampling costs, memory {state + ':':<9} {more * 100:6.2f} % of one CPU{each}")
    # What was not sampled was not measured.
    demand(taken["Interval=2s, memory moves"] >= 0.6 / 2, "runs whose memory moves are not sampled every two seconds, or nearly")
    for state in ("at rest", "moves"):
        demand(taken[f"Interval=never, memory {state}"] == 0, f"runs are sampled at Interval=never, memory {state}")
    return runs


# --- all of it -------------------------------------------------------------------------------------------------------


def end(names):
    wanted = set(names)
    for row in ask("/api/analyses"):
        if row["registered_as"] in wanted:
            with contextlib.suppress(ProcessLookupError):
                os.kill(row["leader_pid"], signal.SIGKILL)
    await_true("the runs have ended", lambda: not any(row["registered_as"] in wanted for row in ask("/api/analyses")), 300)


def main():
    check("systemctl", "start", "analysis-watchdog-web.socket")
    os.makedirs(f"{FOLDER}/www", exist_ok=True)
    os.chmod(FOLDER, 0o755)
    names = [f"{MARK}-live-{i}" for i in range(RUNS)]
    began = time.monotonic()
    start_runs(names, lambda number: (f"{FOLDER}/mover", str(number)))
    say(f"{RUNS} runs started in {time.monotonic() - began:.0f} s")
    say()
    await_true("the gateway answers", lambda: answers(GATEWAY))
    await_true(f"the gateway counts {RUNS} runs",
               lambda: json.loads(get(GATEWAY))["watchdog"]["monitored_count"] >= RUNS)
    for path, text in ((f"{FOLDER}/www/status.json", get(GATEWAY).decode()), (f"{FOLDER}/nginx.conf", NGINX_CONF),
                       (f"{FOLDER}/paced.lua", PACED)):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with subprocess.Popen(["nginx", "-c", f"{FOLDER}/nginx.conf"]) as nginx:
        try:
            await_true("nginx answers", lambda: answers(NGINX))
            throughput()
        finally:
            nginx.terminate()
    say()
    deadlines()
    say()
    try:
        sampling(names)
    finally:
        if os.path.exists(SETTINGS):
            os.unlink(SETTINGS)
            check("systemctl", "reload", "analysis-watchdogd.service")
    began = time.monotonic()
    end(names)
    say(f"all of them ended in {time.monotonic() - began:.0f} s")
    if failures:
        sys.exit("\n".join(f"FAILED: {what}" for what in failures))


if __name__ == "__main__":
    main()
