// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RESULT(call) ({ __auto_type r_ = (call); r_ < 0 ? -errno : r_; })

int bh_memfd_create(const char *name, unsigned flags) { return RESULT(memfd_create(name, flags)); }
int bh_eventfd(unsigned initial, int flags) { return RESULT(eventfd(initial, flags)); }
int bh_add_seals(int fd, int seals) { return RESULT(fcntl(fd, F_ADD_SEALS, seals)); }
int bh_get_seals(int fd) { return RESULT(fcntl(fd, F_GET_SEALS)); }

int bh_futex_wait(const void *word, uint32_t expected, int64_t timeout_ns) {
  struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
  return RESULT((int)syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &t,
                             NULL, 0));
}

int bh_futex_wake(const void *word, int count) {
  return RESULT((int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0));
}

int bh_pidfd_open(pid_t pid, unsigned flags) {
  return RESULT((int)syscall(SYS_pidfd_open, pid, flags));
}

int bh_pidfd_send_signal(int pidfd, int signal) {
  return RESULT((int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}

int bh_wait_pidfd(int pidfd, int options, int *code, int *status) {
  siginfo_t info = {0};
  int result = RESULT(waitid(P_PIDFD, (id_t)pidfd, &info, options));
  *code = info.si_pid == 0 ? 0 : info.si_code;
  *status = info.si_status;
  return result;
}

int bh_gettid(void) { return (int)syscall(SYS_gettid); }
int bh_tgkill(pid_t process, pid_t thread, int signal) {
  return RESULT((int)syscall(SYS_tgkill, process, thread, signal));
}

int bh_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5) {
  return RESULT(prctl(option, a2, a3, a4, a5));
}

int bh_set_thread_name(const char *name) { return -pthread_setname_np(pthread_self(), name); }

int bh_membarrier(int command) {
  return RESULT((int)syscall(SYS_membarrier, command, 0, 0));
}

int bh_set_affinity(uint64_t mask) {
  return RESULT((int)syscall(SYS_sched_setaffinity, 0, sizeof mask, &mask));
}

int bh_close_range(unsigned first, unsigned last) {
  return RESULT((int)syscall(SYS_close_range, first, last, 0));
}

int bh_use_one_arena(void) { return mallopt(M_ARENA_MAX, 1) == 1 ? 0 : -EINVAL; }

int bh_ignore_signal(int signal) {
  struct sigaction action = {.sa_handler = SIG_IGN};
  return RESULT(sigaction(signal, &action, NULL));
}

static void do_nothing(int signal) { (void)signal; }
int bh_interrupt_signal(int signal) {
  struct sigaction action = {.sa_handler = do_nothing};
  return RESULT(sigaction(signal, &action, NULL));
}

static sigset_t set_of(const int *signals, size_t count) {
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < count; i++) sigaddset(&set, signals[i]);
  return set;
}

int bh_block_signals(const int *signals, size_t count) {
  sigset_t set = set_of(signals, count);
  return -pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int bh_signalfd(const int *signals, size_t count) {
  sigset_t set = set_of(signals, count);
  return RESULT(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int64_t bh_signalfd_read(int fd) {
  struct signalfd_siginfo info;
  int64_t got = RESULT(read(fd, &info, sizeof info));
  return got == sizeof info ? (int64_t)info.ssi_signo : got < 0 ? got : -EIO;
}

int bh_fcntl(int fd, int command, long argument) { return RESULT(fcntl(fd, command, argument)); }
int bh_ioctl(int fd, unsigned long request, unsigned long argument) {
  return RESULT(ioctl(fd, request, argument));
}
int bh_ioctl_pointer(int fd, unsigned long request, void *argument) {
  return RESULT(ioctl(fd, request, argument));
}

int bh_poll(struct pollfd *set, size_t count, int64_t timeout_ns) {
  struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
  return RESULT(ppoll(set, count, timeout_ns < 0 ? NULL : &t, NULL));
}

int bh_punch_hole(int fd, int64_t offset, int64_t count) {
  return RESULT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count));
}

int64_t bh_splice(int from, int to, size_t count, unsigned flags) {
  return RESULT(splice(from, NULL, to, NULL, count, flags));
}

int bh_ofd_lock(int fd, short type, int64_t start, int64_t length) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  return RESULT(fcntl(fd, F_OFD_SETLK, &lock));
}

int bh_ofd_lock_test(int fd, short type, int64_t start, int64_t length) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  int result = RESULT(fcntl(fd, F_OFD_GETLK, &lock));
  return result < 0 ? result : lock.l_type != F_UNLCK;
}

int bh_stream_pair(int pair[2]) {
  return RESULT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
}

int bh_seqpacket_pair(int pair[2]) {
  return RESULT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
}

static int address_of(const char *path, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
  strcpy(address->sun_path, path);
  return 0;
}

static int unix_listen(int type, const char *path, int mode) {
  struct sockaddr_un address;
  int result = address_of(path, &address);
  if (result < 0) return result;
  int fd = RESULT(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  mode_t old = umask(0777 & ~mode);
  result = RESULT(bind(fd, (struct sockaddr *)&address, sizeof address));
  umask(old);
  if (result >= 0) result = RESULT(listen(fd, 16));
  if (result >= 0) return fd;
  close(fd);
  return result;
}

int bh_seqpacket_listen(const char *path, int mode) {
  return unix_listen(SOCK_SEQPACKET, path, mode);
}

int bh_stream_listen(const char *path, int mode) {
  return unix_listen(SOCK_STREAM, path, mode);
}

static int unix_connect(int type, const char *path) {
  struct sockaddr_un address;
  int result = address_of(path, &address);
  if (result < 0) return result;
  int fd = RESULT(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  result = RESULT(connect(fd, (struct sockaddr *)&address, sizeof address));
  if (result >= 0) return fd;
  close(fd);
  return result;
}

int bh_seqpacket_connect(const char *path, int flags) {
  return unix_connect(SOCK_SEQPACKET | flags, path);
}

int bh_stream_connect(const char *path) {
  return unix_connect(SOCK_STREAM | SOCK_NONBLOCK, path);
}

pid_t bh_peer_process(int fd) {
  struct ucred peer = {0};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return -errno;
  return peer.pid > 0 ? peer.pid : -ESRCH;
}

int64_t bh_read_at(int fd, void *bytes, size_t count, int64_t offset, int flags) {
  struct iovec io = {bytes, count};
  return RESULT(preadv2(fd, &io, 1, offset, flags));
}

int bh_accept(int fd) { return RESULT(accept4(fd, NULL, NULL, SOCK_CLOEXEC)); }

int bh_accept_nonblocking(int fd) {
  return RESULT(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

#define MOST_FDS 32

int64_t bh_send(int fd, const void *bytes, size_t count, const int *fds, size_t fd_count,
                int flags) {
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(MOST_FDS * sizeof(int))] = {0};
  struct iovec io = {(void *)bytes, count};
  struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
  if (fd_count > MOST_FDS) return -EINVAL;
  if (fd_count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
  }
  return RESULT(sendmsg(fd, &message, MSG_NOSIGNAL | flags));
}

int64_t bh_receive(int fd, void *bytes, size_t count, int *fds, size_t *fd_count, int *truncated,
                   int flags) {
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(MOST_FDS * sizeof(int))];
  struct iovec io = {bytes, count};
  struct msghdr message = {
      .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  size_t room = *fd_count;
  *fd_count = 0;
  *truncated = 0;
  int64_t got = RESULT(recvmsg(fd, &message, MSG_CMSG_CLOEXEC | flags));
  if (got < 0) return got;
  for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
      int one;
      memcpy(&one, CMSG_DATA(h) + i * sizeof(int), sizeof one);
      if (*fd_count < room) {
        fds[(*fd_count)++] = one;
      } else {
        close(one);
        *truncated = 1;
      }
    }
  }
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) *truncated = 1;
  return got;
}

int64_t bh_monotonic_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

uint64_t bh_checksum(uint64_t seed, const void *bytes, size_t count) {
  // Each step is a bijection of the sum, and of the word that goes in.
  const unsigned char *at = bytes;
  uint64_t sum = seed ^ (uint64_t)count * 0x9E3779B97F4A7C15u;
  while (count > 0) {
    uint64_t word = 0;
    size_t piece = count < 8 ? count : 8;
    memcpy(&word, at, piece);
    sum = (sum ^ word) * 0xD6E8FEB86659FD93u;
    sum = (sum << 29 | sum >> 35) + 0x2545F4914F6CDD1Du;
    at += piece;
    count -= piece;
  }
  return sum ^ sum >> 32;
}
