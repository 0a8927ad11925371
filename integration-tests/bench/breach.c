// SPDX-License-Identifier: Apache-2.0
//
// breach LIMIT-BYTES: allocates page by page, notes when its memory that can't be reclaimed passes the limit, and when
// its handler of SIGTERM is entered; prints the µs between the two and what it had by then. What it has is what its
// slice had when it began, and each page since: reading memory.stat for each would slow it down.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t passed_at;
static volatile uint64_t have;

static int64_t now_usec(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

static void on_term(int signal) {
  (void)signal;
  const int64_t entered_at = now_usec();
  char line[64];
  // 0: it was told before it had passed.
  const int length = snprintf(line, sizeof line, "%lld %llu\n",
                              passed_at == 0 ? 0LL : (long long)(entered_at - passed_at), (unsigned long long)have);
  if (write(STDOUT_FILENO, line, (size_t)length) != length) _exit(1);
  _exit(0);
}

static uint64_t value_of(const char* text, const char* key) {
  const size_t length = strlen(key);
  for (const char* line = text; line != NULL; line = strchr(line, '\n') == NULL ? NULL : strchr(line, '\n') + 1) {
    if (strncmp(line, key, length) == 0 && line[length] == ' ') return strtoull(line + length, NULL, 10);
  }
  return 0;
}

static uint64_t unreclaimable_of_our_slice(void) {
  static char text[65536];
  char path[4200] = "/sys/fs/cgroup";
  FILE* file = fopen("/proc/self/cgroup", "r");
  if (file == NULL || fgets(text, 4096, file) == NULL || strncmp(text, "0::", 3) != 0) exit(2);
  fclose(file);
  *strrchr(text, '/') = '\0';
  strcat(path, text + 3);
  strcat(path, "/memory.stat");
  const int fd = open(path, O_RDONLY);
  const ssize_t got = read(fd, text, sizeof text - 1);
  if (got <= 0) exit(3);
  text[got] = '\0';
  close(fd);
  return value_of(text, "anon") + value_of(text, "shmem") + value_of(text, "kernel") + value_of(text, "sock") -
         value_of(text, "slab_reclaimable");
}

int main(int argc, char** argv) {
  const uint64_t limit = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
  const uint64_t page = 4096;
  const uint64_t room = 4 * limit;
  signal(SIGTERM, on_term);
  char* memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return 4;
  madvise(memory, room, MADV_NOHUGEPAGE);
  have = unreclaimable_of_our_slice();
  for (uint64_t at = 0; at < room; at += page) {
    memory[at] = 1;
    have += page;
    if (passed_at == 0 && have > limit) passed_at = now_usec();
  }
  return 5;  // Nobody has ended it.
}
