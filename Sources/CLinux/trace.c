// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <linux/filter.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define RESULT(call) ({ __auto_type r_ = (call); r_ < 0 ? -errno : r_; })

int bh_trace_stop(pid_t thread) {
  // Not PTRACE_ATTACH: that would send the thread a SIGSTOP.
  int result = RESULT((int)ptrace(PTRACE_SEIZE, thread, NULL, NULL));
  if (result < 0) return result;
  result = RESULT((int)ptrace(PTRACE_INTERRUPT, thread, NULL, NULL));
  int status;
  pid_t got;
  do got = waitpid(thread, &status, __WALL);
  while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  return WIFSTOPPED(status) ? 0 : -ESRCH;
}

int bh_trace_go_on(pid_t thread) {
  return RESULT((int)ptrace(PTRACE_DETACH, thread, NULL, NULL));
}

long bh_trace_filter(pid_t thread, unsigned long index, void *program, size_t size) {
  long count = RESULT(ptrace(PTRACE_SECCOMP_GET_FILTER, thread, index, NULL));
  if (count < 0) return count;
  if ((size_t)count * sizeof(struct sock_filter) > size) return -EMSGSIZE;
  count = RESULT(ptrace(PTRACE_SECCOMP_GET_FILTER, thread, index, program));
  return count < 0 ? count : count * (long)sizeof(struct sock_filter);
}
