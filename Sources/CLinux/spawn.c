// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESULT(call) ({ __auto_type r_ = (call); r_ < 0 ? -errno : r_; })

// From here to the exec only this C runs in the child, and only system calls: the parent may
// have had threads that held any lock of the C library or of Swift's runtime.

static _Noreturn void give_up(int report, int stage) {
  int words[2] = {stage, errno};
  if (write(report, words, sizeof words) < 0) _exit(126);
  _exit(127);
}

// Moves a descriptor above all targets; close-on-exec.
static int raise_above(int fd, int floor) { return fcntl(fd, F_DUPFD_CLOEXEC, floor); }

static int is_target(const struct bh_spawn_request *r, int fd) {
  for (size_t i = 0; i < r->count; i++)
    if (r->targets[i] == fd) return 1;
  return 0;
}

// Closes everything from `floor` on but three descriptors.
static int close_others(int floor, const int keep[3]) {
  unsigned from = (unsigned)floor;
  while (1) {
    unsigned next = ~0u;
    for (int i = 0; i < 3; i++)
      if ((unsigned)keep[i] >= from && (unsigned)keep[i] < next) next = (unsigned)keep[i];
    if (next == ~0u) return (int)syscall(SYS_close_range, from, ~0u, 0);
    if (next > from && syscall(SYS_close_range, from, next - 1, 0) < 0) return -1;
    from = next + 1;
  }
}

static _Noreturn void child(const struct bh_spawn_request *r, int release, int report) {
  // Descriptors first, so that this process holds no other child's pipe while it waits. All go
  // above the targets, so that no target overwrites a source.
  int floor = 3;
  for (size_t i = 0; i < r->count; i++)
    if (r->targets[i] >= floor) floor = r->targets[i] + 1;
  int raised = raise_above(report, floor);
  if (raised < 0) give_up(report, BH_SPAWN_DESCRIPTORS);
  report = raised;
  int executable = raise_above(r->executable, floor);
  int waiting = raise_above(release, floor);
  if (executable < 0 || waiting < 0) give_up(report, BH_SPAWN_DESCRIPTORS);
  for (size_t i = 0; i < r->count; i++) {
    int copy = raise_above(r->sources[i], floor);
    if (copy < 0) give_up(report, BH_SPAWN_DESCRIPTORS);
    ((int *)r->sources)[i] = copy;  // in this process's own copy of the parent's memory
  }
  for (size_t i = 0; i < r->count; i++)
    if (dup2(r->sources[i], r->targets[i]) < 0) give_up(report, BH_SPAWN_DESCRIPTORS);
  for (int fd = 0; fd < floor; fd++)
    if (!is_target(r, fd)) close(fd);
  int keep[3] = {report, executable, waiting};
  if (close_others(floor, keep) < 0) give_up(report, BH_SPAWN_DESCRIPTORS);

  char go;
  ssize_t got;
  do got = read(waiting, &go, 1);
  while (got < 0 && errno == EINTR);
  if (got != 1) {
    if (got == 0) errno = ECANCELED;
    give_up(report, BH_SPAWN_RELEASE);
  }

  if (r->unshare_flags && syscall(SYS_unshare, r->unshare_flags) < 0)
    give_up(report, BH_SPAWN_UNSHARE);

  if (r->becomes_zero) {
    if (r->drops_groups && syscall(SYS_setgroups, 0, NULL) < 0)
      give_up(report, BH_SPAWN_IDENTITY);
    if (syscall(SYS_setresgid, 0, 0, 0) < 0) give_up(report, BH_SPAWN_IDENTITY);
    if (syscall(SYS_setresuid, 0, 0, 0) < 0) give_up(report, BH_SPAWN_IDENTITY);
  }
  setsid();  // a terminal's signals go to the launcher, which ends the machine in order
  umask(077);

  // Signals as a new program expects them. The parent blocked all around the clone, so none
  // of its handlers has run here.
  for (int signal = 1; signal < 65; signal++) {
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    struct {
      void *handler;
      unsigned long flags;
      void *restorer;
      unsigned long mask;
    } usual = {0};
    syscall(SYS_rt_sigaction, signal, &usual, NULL, sizeof usual.mask);
  }

  // After the last change of identity, which clears it. If the parent went before this line,
  // its end of the pipe is closed: nobody else holds one.
  if (!r->outlives_parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) give_up(report, BH_SPAWN_DEATH_SIGNAL);
    struct pollfd parent = {.fd = waiting};
    if (poll(&parent, 1, 0) > 0 && (parent.revents & POLLHUP)) _exit(126);
  }

  unsigned long none = 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
  syscall(SYS_execveat, executable, "", r->arguments, r->environment, AT_EMPTY_PATH);
  give_up(report, BH_SPAWN_EXECUTE);
}

pid_t bh_spawn(const struct bh_spawn_request *request, int *pidfd, int *release, int *report) {
  int go[2], news[2];
  if (pipe2(go, O_CLOEXEC) < 0) return -errno;
  if (pipe2(news, O_CLOEXEC) < 0) {
    int error = errno;
    close(go[0]);
    close(go[1]);
    return -error;
  }
  int process = -1;
  struct clone_args arguments = {
      .flags = request->clone_flags | CLONE_PIDFD,
      .pidfd = (uint64_t)(uintptr_t)&process,
      .exit_signal = SIGCHLD,
  };
  unsigned long all = ~0ul, before;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof before);
  long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid == 0) {
    close(go[1]);
    child(request, go[0], news[1]);
  }
  int error = errno;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
  close(go[0]);
  close(news[1]);
  if (pid < 0) {
    close(go[1]);
    close(news[0]);
    return -error;
  }
  *pidfd = process;
  *release = go[1];
  *report = news[0];
  return (pid_t)pid;
}

int bh_mount(const char *source, const char *target, const char *type, unsigned long flags,
             const char *options) {
  return RESULT(mount(source, target, type, flags, options));
}

int bh_pivot_here(void) {
  int result = RESULT((int)syscall(SYS_pivot_root, ".", "."));
  if (result >= 0) result = RESULT(umount2(".", MNT_DETACH));
  return result < 0 ? result : RESULT(chdir("/"));
}

int bh_set_host_name(const char *name) {
  size_t length = 0;
  while (name[length]) length++;
  return RESULT(sethostname(name, length));
}

int bh_set_limit(int resource, uint64_t value) {
  struct rlimit limit = {value, value};
  return RESULT(setrlimit((__rlimit_resource_t)resource, &limit));
}

int bh_get_limit(int resource, uint64_t *soft, uint64_t *hard) {
  struct rlimit limit = {0, 0};
  int result = RESULT(getrlimit((__rlimit_resource_t)resource, &limit));
  *soft = limit.rlim_cur;
  *hard = limit.rlim_max;
  return result;
}

// The header of the build host may be older than the kernel: the whole structure, by its layout.
struct landlock_attributes {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;  // ABI 4
  uint64_t scoped;              // ABI 6
};

int bh_landlock_abi(void) {
  return RESULT((int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* VERSION */));
}

int bh_landlock_restrict(uint64_t files, uint64_t network, uint64_t scopes) {
  struct landlock_attributes attributes = {files, network, scopes};
  size_t size = scopes ? 24 : network ? 16 : 8;
  int rules = RESULT((int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0));
  if (rules < 0) return rules;
  int result = RESULT((int)syscall(SYS_landlock_restrict_self, rules, 0));
  close(rules);
  return result;
}
