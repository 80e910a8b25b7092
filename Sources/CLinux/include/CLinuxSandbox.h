// SPDX-License-Identifier: Apache-2.0
//
// Starting a process in namespaces of its own, and the calls of a sandbox that the C library
// does not offer. As in CLinux.h, an error comes back as -errno.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// What the new process becomes. Everything in it is read by the child alone, after the clone.
struct bh_spawn_request {
  int executable;                                   // opened with O_PATH | O_CLOEXEC
  char *_Nullable const *_Nonnull arguments;        // ends with NULL
  char *_Nullable const *_Nonnull environment;      // ends with NULL
  const int *_Nullable sources;                     // descriptors of this process ...
  const int *_Nullable targets;                     // ... and their numbers in the new one
  size_t count;
  uint64_t clone_flags;                             // CLONE_NEWUSER, CLONE_NEWPID or none
  uint64_t unshare_flags;                           // the other namespaces
  int becomes_zero;                                 // take ids 0 once the maps are written
  int drops_groups;                                 // and leave all supplementary groups
  int outlives_parent;                              // is not killed when the parent's thread ends
};

// Where a child that could not be started stood; the parent reads it with the errno.
enum {
  BH_SPAWN_RELEASE = 1,
  BH_SPAWN_UNSHARE,
  BH_SPAWN_IDENTITY,
  BH_SPAWN_DESCRIPTORS,
  BH_SPAWN_DEATH_SIGNAL,
  BH_SPAWN_EXECUTE,
};

// Clones a child that waits for one byte on *release, then becomes the executable.
// *report then reads as end-of-file when it did, or as two ints: the stage and the errno.
// Returns the pid.
pid_t bh_spawn(const struct bh_spawn_request *_Nonnull request, int *_Nonnull pidfd,
               int *_Nonnull release, int *_Nonnull report);

int bh_mount(const char *_Nullable source, const char *_Nonnull target,
             const char *_Nullable type, unsigned long flags, const char *_Nullable options);
int bh_pivot_here(void);  // pivot_root(".", "."), then detach the old root
int bh_set_host_name(const char *_Nonnull name);
int bh_set_limit(int resource, uint64_t value);  // soft and hard
int bh_get_limit(int resource, uint64_t *_Nonnull soft, uint64_t *_Nonnull hard);

int bh_landlock_abi(void);
int bh_landlock_restrict(uint64_t files, uint64_t network, uint64_t scopes);

// Stops one thread of another process until bh_trace_go_on; no signal is sent.
int bh_trace_stop(pid_t thread);
int bh_trace_go_on(pid_t thread);
// Reads a filter of a stopped thread, the oldest being number 0; returns its length in bytes.
// It takes CAP_SYS_ADMIN, and CONFIG_CHECKPOINT_RESTORE; -ENOENT when there is none.
long bh_trace_filter(pid_t thread, unsigned long index, void *_Nonnull program, size_t size);

enum {
  BH_CLONE_NEWNS = 0x00020000,
  BH_CLONE_NEWCGROUP = 0x02000000,
  BH_CLONE_NEWUTS = 0x04000000,
  BH_CLONE_NEWIPC = 0x08000000,
  BH_CLONE_NEWUSER = 0x10000000,
  BH_CLONE_NEWPID = 0x20000000,
  BH_CLONE_NEWNET = 0x40000000,
};
