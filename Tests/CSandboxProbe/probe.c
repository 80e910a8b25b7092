// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CSandboxProbe.h"

#include <errno.h>
#include <unistd.h>

long probe_call(long number, long a, long b, long c, long d, long e, long f) {
  long result = syscall(number, a, b, c, d, e, f);
  return result < 0 ? -errno : result;
}

long probe_path_call(long number, const char *path, long b, long c) {
  return probe_call(number, (long)path, b, c, 0, 0, 0);
}

long probe_at_call(long number, const char *path, long c, long d) {
  return probe_call(number, -100 /* AT_FDCWD */, (long)path, c, d, 0, 0);
}

int probe_32bit_call(int number) {
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number) : "memory");
  return result;
}
