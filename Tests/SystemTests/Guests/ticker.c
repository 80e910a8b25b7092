// SPDX-License-Identifier: Apache-2.0
// A first process that counts every tenth of a second, on the monotonic clock, while a thread keeps
// another vCPU busy with memory whose sum it knows. "TICK 7 ok" says that both are right.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { words = 1 << 20 };
static uint64_t memory[words];
static volatile uint64_t rounds, faults;

// Adds one to each word, and checks that all had the same value.
static void *work(void *unused) {
  for (uint64_t round = 0;; round++) {
    for (int i = 0; i < words; i++) {
      if (memory[i] != round) faults++;
      memory[i]++;
    }
    rounds = round;
  }
  return unused;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

int main(void) {
  pthread_t thread;
  pthread_create(&thread, 0, work, 0);
  double before = now();
  for (int count = 0;; count++) {
    uint64_t old = rounds;
    usleep(100000);
    double time = now();
    // Time neither stands nor jumps, whatever happened meanwhile.
    int is_good = time - before >= 0.1 && time - before < 5 && faults == 0;
    printf("TICK %d %s %d\n", count, is_good ? "ok" : "BAD", rounds != old);
    if (!is_good) printf("time %f after %f, faults %lu\n", time, before, (unsigned long)faults);
    fflush(stdout);
    before = time;
  }
}
