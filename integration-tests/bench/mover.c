// SPDX-License-Identifier: Apache-2.0
//
// mover N: rests until SIGUSR1; from then on until SIGUSR2 its memory is 0, 1 and 2 steps of 1.125 MiB in turn, two
// seconds each. A sampler that looks every two seconds finds it moved, and so does one that looks half as often, or a
// quarter. Neighbours in N are at different steps, and they don't all move at once. The memory is that of a file in
// memory, which is charged and not written to: hundreds of these shall cost the machine as little as they can.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

static const off_t kStep = 9 << 17;
static const int kLevels = 3;
static const int64_t kHold = INT64_C(2000000000);
static volatile sig_atomic_t moving = 0;

static void on_signal(int number) { moving = number == SIGUSR1; }

int main(int argc, char** argv) {
  const int64_t n = argc > 1 ? atoi(argv[1]) : 0;
  struct sigaction action = {.sa_handler = on_signal};
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigaddset(&blocked, SIGUSR2);
  const int file = memfd_create("mover", MFD_CLOEXEC);
  if (file < 0 || sigprocmask(SIG_BLOCK, &blocked, &before) != 0 || sigaction(SIGUSR1, &action, NULL) != 0 ||
      sigaction(SIGUSR2, &action, NULL) != 0) {
    perror("mover");
    return 1;
  }
  sigdelset(&before, SIGUSR1);
  sigdelset(&before, SIGUSR2);
  for (;;) {
    if (!moving) {
      if (ftruncate(file, 0) != 0) return 1;
      sigsuspend(&before);
      continue;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    // Each has a moment of its own within its two seconds.
    const int64_t at = now.tv_sec * INT64_C(1000000000) + now.tv_nsec + kHold * (n % kLevels) - kHold * (n % 64) / 64;
    const off_t size = kStep * (at / kHold % kLevels);
    if (ftruncate(file, size) != 0 || (size > 0 && fallocate(file, 0, 0, size) != 0)) return 1;
    const int64_t left = kHold - at % kHold;
    const struct timespec wait = {left / 1000000000, left % 1000000000};
    (void)pselect(0, NULL, NULL, NULL, &wait, &before);  // Signals come only here, so that none is missed.
  }
}
