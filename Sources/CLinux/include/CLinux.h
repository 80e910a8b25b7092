// SPDX-License-Identifier: Apache-2.0
//
// What Swift's Glibc module hides or cannot import: calls without a prototype there,
// variadic calls, macros over control messages, and the kernel's own headers.
// Each function is one call; it returns what the kernel returns, with -errno for an error.
#pragma once

#include <linux/futex.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

#include "CLinuxKVM.h"
#include "CLinuxSandbox.h"

// Memory and events.
int bh_memfd_create(const char *_Nonnull name, unsigned flags);
int bh_eventfd(unsigned initial, int flags);
int bh_add_seals(int fd, int seals);
int bh_get_seals(int fd);
int bh_futex_wait(const void *_Nonnull word, uint32_t expected, int64_t timeout_ns);
int bh_futex_wake(const void *_Nonnull word, int count);

// Files: preadv2 with one piece.
int64_t bh_read_at(int fd, void *_Nullable bytes, size_t count, int64_t offset, int flags);

// A checksum: any change of one word changes it.
uint64_t bh_checksum(uint64_t seed, const void *_Nullable bytes, size_t count);

// Processes and threads.
int bh_pidfd_open(pid_t pid, unsigned flags);
int bh_pidfd_send_signal(int pidfd, int signal);
int bh_wait_pidfd(int pidfd, int options, int *_Nonnull code, int *_Nonnull status);
int bh_gettid(void);
int bh_tgkill(pid_t process, pid_t thread, int signal);
int bh_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5);
int bh_set_thread_name(const char *_Nonnull name);
int bh_set_affinity(uint64_t mask);
int bh_membarrier(int command);
int bh_close_range(unsigned first, unsigned last);
int bh_ignore_signal(int signal);
int bh_use_one_arena(void);
int bh_interrupt_signal(int signal);  // installs a handler that does nothing, without SA_RESTART
int bh_block_signals(const int *_Nonnull signals, size_t count);
int bh_signalfd(const int *_Nonnull signals, size_t count);
int64_t bh_signalfd_read(int fd);

// Descriptors.
int bh_fcntl(int fd, int command, long argument);
int bh_ioctl(int fd, unsigned long request, unsigned long argument);
int bh_ioctl_pointer(int fd, unsigned long request, void *_Nullable argument);
int bh_poll(struct pollfd *_Nullable set, size_t count, int64_t timeout_ns);
int bh_punch_hole(int fd, int64_t offset, int64_t count);
int64_t bh_splice(int from, int to, size_t count, unsigned flags);
int bh_ofd_lock(int fd, short type, int64_t start, int64_t length);
int bh_ofd_lock_test(int fd, short type, int64_t start, int64_t length);  // 1 when it would conflict

// Sockets of type SOCK_SEQPACKET, with descriptors by SCM_RIGHTS.
int bh_seqpacket_pair(int pair[_Nonnull 2]);
int bh_stream_pair(int pair[_Nonnull 2]);  // never waits
int bh_seqpacket_listen(const char *_Nonnull path, int mode);
int bh_stream_listen(const char *_Nonnull path, int mode);
int bh_seqpacket_connect(const char *_Nonnull path, int flags);  // SOCK_NONBLOCK or none
int bh_stream_connect(const char *_Nonnull path);  // never waits
int bh_accept(int fd);
int bh_accept_nonblocking(int fd);
pid_t bh_peer_process(int fd);  // who listens at, or made, the other end
int64_t bh_send(int fd, const void *_Nullable bytes, size_t count, const int *_Nullable fds,
                size_t fd_count, int flags);
// Receives one message. *fd_count holds the room in fds and then the number received;
// descriptors beyond the room are closed and *truncated is set.
int64_t bh_receive(int fd, void *_Nonnull bytes, size_t count, int *_Nonnull fds,
                   size_t *_Nonnull fd_count, int *_Nonnull truncated, int flags);

// Time and the processor.
int64_t bh_monotonic_ns(void);
static inline void bh_pause(void) { __builtin_ia32_pause(); }

// Constants that are macros of a form Swift does not import.
enum {
  BH_MFD_CLOEXEC = 1,
  BH_MFD_ALLOW_SEALING = 2,
  BH_F_SEAL_SEAL = 1,
  BH_F_SEAL_SHRINK = 2,
  BH_F_SEAL_GROW = 4,
  BH_F_SEAL_WRITE = 8,
};
