// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CSandboxProbe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define P(pointer) ((long)(uintptr_t)(pointer))
// Newer than the headers of the build host may be.
#define NR_memfd_secret 447
#define NR_mount_setattr 442
#define NR_landlock_create_ruleset 444
#define NR_process_madvise 440

static _Alignas(4096) char buffer[4096];
static struct iovec vector = {buffer, sizeof buffer};
static uint64_t openat2_how[3];
static uint64_t clone_arguments[11] = {[4] = SIGCHLD};
static struct sockaddr_un abstract = {.sun_family = AF_UNIX, .sun_path = "\0bulkhead-probe"};
static struct rlimit wide = {RLIM_INFINITY, RLIM_INFINITY};
static uint32_t capability_header[2] = {0x20080522, 0};
static uint32_t capability_data[6] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
static uint32_t group;
static char *no_strings[] = {NULL};
static struct sock_filter allow_all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
static struct sock_fprog program = {1, allow_all};
static int numbers[4];

struct escape {
  const char *name;
  long number;
  long a, b, c, d, e, f;
};

static const struct escape all[] = {
#define FILES P("/etc/passwd")
    {"open", SYS_open, FILES, O_RDONLY},
    {"openat", SYS_openat, AT_FDCWD, FILES, O_RDONLY},
    {"openat2", SYS_openat2, AT_FDCWD, FILES, P(openat2_how), sizeof openat2_how},
    {"creat", SYS_creat, P("/new"), 0600},
    {"open-kvm", SYS_openat, AT_FDCWD, P("/dev/kvm"), O_RDWR},
    {"open-mem-of-another", SYS_openat, AT_FDCWD, P("/proc/1/mem"), O_RDWR},
    {"open-root-of-another", SYS_openat, AT_FDCWD, P("/proc/1/root"), O_PATH},
    {"reopen-descriptor", SYS_openat, AT_FDCWD, P("/proc/self/fd/0"), O_RDWR},
    {"name-to-handle", SYS_name_to_handle_at, AT_FDCWD, P("/"), P(buffer), P(numbers), 0},
    {"open-by-handle", SYS_open_by_handle_at, 0, P(buffer), O_RDONLY},
    {"readlink", SYS_readlink, P("/proc/self/exe"), P(buffer), sizeof buffer},
    {"stat", SYS_stat, FILES, P(buffer)},
    {"stat-by-path", SYS_newfstatat, AT_FDCWD, FILES, P(buffer), 0},
    {"access", SYS_access, FILES, 0},
    {"mkdir", SYS_mkdir, P("/new"), 0700},
    {"mknod", SYS_mknod, P("/new"), 0020600, 0x0101},
    {"symlink", SYS_symlink, P("/"), P("/new")},
    {"link", SYS_link, FILES, P("/new")},
    {"rename", SYS_rename, FILES, P("/new")},
    {"unlink", SYS_unlink, FILES},
    {"chmod", SYS_chmod, P("/"), 0777},
    {"fchmod", SYS_fchmod, 0, 0777},
    {"chown", SYS_chown, P("/"), 0, 0},
    {"truncate", SYS_truncate, FILES, 0},
    {"setxattr", SYS_setxattr, P("/"), P("user.a"), P(buffer), 1, 0},
    {"getdents", SYS_getdents64, 0, P(buffer), sizeof buffer},
    {"chdir", SYS_chdir, P("/")},
    {"fchdir", SYS_fchdir, 0},
    {"chroot", SYS_chroot, P("/")},
    {"pivot-root", SYS_pivot_root, P("."), P(".")},
    {"mount", SYS_mount, P("none"), P("/"), P("proc"), 0, 0},
    {"umount", SYS_umount2, P("/"), 2},
    {"open-tree", SYS_open_tree, AT_FDCWD, P("/"), 1},
    {"move-mount", SYS_move_mount, AT_FDCWD, P("/"), AT_FDCWD, P("/"), 0},
    {"fsopen", SYS_fsopen, P("proc"), 0},
    {"fsconfig", SYS_fsconfig, 0, 6, 0, 0, 0},
    {"fsmount", SYS_fsmount, 0, 0, 0},
    {"fspick", SYS_fspick, AT_FDCWD, P("/"), 0},
    {"mount-setattr", NR_mount_setattr, AT_FDCWD, P("/"), 0, P(buffer), 32},
    {"swapon", SYS_swapon, P("/"), 0},
    {"inotify", SYS_inotify_init1, 0},
    {"fanotify", SYS_fanotify_init, 0, 0},
    {"quotactl", SYS_quotactl, 0, 0, 0, 0},
    {"acct", SYS_acct, 0},

    {"socket-unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0},
    {"socket-inet", SYS_socket, AF_INET, SOCK_STREAM, 0},
    {"socket-inet-raw", SYS_socket, AF_INET, SOCK_RAW, 1},
    {"socket-inet6", SYS_socket, AF_INET6, SOCK_DGRAM, 0},
    {"socket-netlink", SYS_socket, AF_NETLINK, SOCK_RAW, 0},
    {"socket-packet", SYS_socket, AF_PACKET, SOCK_RAW, 0},
    {"socket-vsock", SYS_socket, 40, SOCK_STREAM, 0},
    {"socket-alg", SYS_socket, 38, SOCK_SEQPACKET, 0},
    {"socket-xdp", SYS_socket, 44, SOCK_RAW, 0},
    {"socket-bluetooth", SYS_socket, 31, SOCK_RAW, 0},
    {"socketpair", SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, P(numbers)},
    {"connect-abstract", SYS_connect, 3, P(&abstract), sizeof abstract},
    {"bind-abstract", SYS_bind, 3, P(&abstract), sizeof abstract},
    {"listen", SYS_listen, 3, 1},
    {"sendto-abstract", SYS_sendto, 3, P(buffer), 1, 0, P(&abstract), sizeof abstract},
    {"setsockopt", SYS_setsockopt, 3, SOL_SOCKET, SO_PASSCRED, P(numbers), 4},
    {"shutdown", SYS_shutdown, 3, 2},

    {"fork", SYS_fork},
    {"vfork", SYS_vfork},
    {"clone-process", SYS_clone, SIGCHLD},
    {"clone-user-namespace", SYS_clone, SIGCHLD | CLONE_NEWUSER},
    {"clone3", SYS_clone3, P(clone_arguments), sizeof clone_arguments},
    {"execve", SYS_execve, P("/bin/sh"), P(no_strings), P(no_strings)},
    {"execveat", SYS_execveat, 0, P(""), P(no_strings), P(no_strings), AT_EMPTY_PATH},
    {"unshare-user", SYS_unshare, CLONE_NEWUSER},
    {"unshare-mount", SYS_unshare, CLONE_NEWNS},
    {"setns", SYS_setns, 0, 0},
    {"personality", SYS_personality, 0x0400000},
    {"modify-ldt", SYS_modify_ldt, 1, P(buffer), 16},
    {"arch-prctl", SYS_arch_prctl, 0x1001, P(buffer)},
    {"iopl", SYS_iopl, 3},
    {"ioperm", SYS_ioperm, 0, 1, 1},

    {"ptrace-me", SYS_ptrace, 0},
    {"ptrace-attach", SYS_ptrace, 16, 1},
    {"process-read", SYS_process_vm_readv, 1, P(&vector), 1, P(&vector), 1, 0},
    {"process-write", SYS_process_vm_writev, 1, P(&vector), 1, P(&vector), 1, 0},
    {"process-madvise", NR_process_madvise, 0, P(&vector), 1, 4, 0},
    {"kcmp", SYS_kcmp, 1, 1, 0, 0, 0},
    {"pidfd-open", SYS_pidfd_open, 1, 0},
    {"pidfd-getfd", SYS_pidfd_getfd, 0, 0, 0},
    {"pidfd-signal", SYS_pidfd_send_signal, 0, 9, 0, 0},
    {"kill", SYS_kill, 1, 0},
    {"kill-all", SYS_kill, -1, 0},
    {"tkill", SYS_tkill, 1, 0},
    {"tgkill", SYS_tgkill, 1, 1, 0},
    {"sigqueue", SYS_rt_sigqueueinfo, 1, 0, P(buffer)},
    {"set-handler", SYS_rt_sigaction, SIGSYS, 0, P(buffer), 8},

    {"io-uring-setup", SYS_io_uring_setup, 1, P(buffer)},
    {"io-uring-enter", SYS_io_uring_enter, 0, 0, 0, 0, 0, 0},
    {"io-uring-register", SYS_io_uring_register, 0, 0, 0, 0},
    {"io-setup", SYS_io_setup, 1, P(buffer)},
    {"userfaultfd", SYS_userfaultfd, 1},
    {"memfd-create", SYS_memfd_create, P("probe"), 0},
    {"memfd-secret", NR_memfd_secret, 0},
    {"bpf", SYS_bpf, 0, P(buffer), 48},
    {"keyctl", SYS_keyctl, 0, -1, 0, 0, 0},
    {"add-key", SYS_add_key, P("user"), P("a"), P(buffer), 1, -2},
    {"request-key", SYS_request_key, P("user"), P("a"), 0, 0},
    {"perf-event", SYS_perf_event_open, P(buffer), 0, -1, -1, 0},
    {"landlock", NR_landlock_create_ruleset, 0, 0, 1},
    {"epoll", SYS_epoll_create1, 0},
    {"timerfd", SYS_timerfd_create, 1, 0},
    {"signalfd", SYS_signalfd4, -1, P(buffer), 8, 0},
    {"eventfd", SYS_eventfd2, 0, 0},
    {"shmget", SYS_shmget, 0, 4096, 01600},
    {"msgget", SYS_msgget, 0, 01600},
    {"semget", SYS_semget, 0, 1, 01600},
    {"mq-open", SYS_mq_open, P("a"), O_RDWR | O_CREAT, 0600, 0},

    {"map-code", SYS_mmap, 0, 4096, 5, 0x22, -1, 0},
    {"map-writable-code", SYS_mmap, 0, 4096, 7, 0x22, -1, 0},
    {"make-code", SYS_mprotect, P(buffer), 4096, 7},
    {"make-code-by-key", SYS_pkey_mprotect, P(buffer), 4096, 7, -1},
    {"remap-pages", SYS_remap_file_pages, P(buffer), 4096, 0, 0, 0},
    {"lock-memory", SYS_mlockall, 1},
    {"vmsplice", SYS_vmsplice, 1, P(&vector), 1, 0},
    {"tee", SYS_tee, 0, 1, 1, 0},
    {"sendfile", SYS_sendfile, 1, 0, 0, 1},
    {"copy-file-range", SYS_copy_file_range, 0, 0, 1, 0, 1, 0},

    {"raise-descriptors", SYS_setrlimit, RLIMIT_NOFILE, P(&wide)},
    {"raise-memory", SYS_prlimit64, 0, RLIMIT_AS, P(&wide), 0},
    {"raise-processes", SYS_prlimit64, 0, RLIMIT_NPROC, P(&wide), 0},
    {"regain-capabilities", SYS_capset, P(capability_header), P(capability_data)},
    {"raise-ambient", SYS_prctl, 47, 2, 21, 0, 0},
    {"unlock-securebits", SYS_prctl, 28, 0, 0, 0, 0},
    {"become-dumpable", SYS_prctl, 4, 1, 0, 0, 0},
    {"outlive-launcher", SYS_prctl, 1, 0, 0, 0, 0},
    {"allow-tracer", SYS_prctl, 0x59616d61, -1, 0, 0, 0},
    {"move-its-image", SYS_prctl, 35, 1, 4096, 0, 0},
    {"allow-new-code", SYS_prctl, 65, 0, 0, 0, 0},
    {"filter-by-prctl", SYS_prctl, 22, 2, P(&program), 0, 0},
    {"filter-with-listener", SYS_seccomp, 1, 8, P(&program)},
    {"filter-strict", SYS_seccomp, 0, 0, 0},
    {"setuid", SYS_setuid, 0},
    {"setgid", SYS_setgid, 0},
    {"setresuid", SYS_setresuid, 0, 0, 0},
    {"setfsuid", SYS_setfsuid, 0},
    {"setgroups", SYS_setgroups, 1, P(&group)},
    {"setsid", SYS_setsid},
    {"set-priority", SYS_setpriority, 0, 0, -20},
    {"set-scheduler", SYS_sched_setscheduler, 0, 1, P(numbers)},
    {"set-affinity", SYS_sched_setaffinity, 0, 8, P(buffer)},
    {"move-pages", SYS_move_pages, 1, 0, 0, 0, 0, 0},

    {"push-terminal-input", SYS_ioctl, 0, 0x5412, P("x")},
    {"terminal-selection", SYS_ioctl, 0, 0x541C, P(buffer)},
    {"take-terminal", SYS_ioctl, 0, 0x540E, 1},
    {"make-machine", SYS_ioctl, 3, 0xAE01, 0},
    {"ioctl-ring", SYS_ioctl, 3, 0xFFFFFFFF, P(buffer)},
    {"duplicate", SYS_dup, 3},
    {"duplicate-to", SYS_dup3, 3, 50, 0},
    {"duplicate-by-fcntl", SYS_fcntl, 3, F_DUPFD, 0},
    {"set-owner", SYS_fcntl, 3, F_SETOWN, 1},
    {"set-lease", SYS_fcntl, 3, F_SETLEASE, F_RDLCK},
    {"set-pipe-size", SYS_fcntl, 1, F_SETPIPE_SZ, 1 << 20},
    {"write-read-only-descriptor", SYS_write, PROBE_READ_ONLY, P(buffer), 1},
    {"truncate-read-only-descriptor", SYS_ftruncate, PROBE_READ_ONLY, 0},

    {"load-module", SYS_init_module, P(buffer), 1, P("")},
    {"load-module-file", SYS_finit_module, 0, P(""), 0},
    {"unload-module", SYS_delete_module, P("kvm"), 0},
    {"kexec", SYS_kexec_load, 0, 0, 0, 0},
    {"reboot", SYS_reboot, 0, 0, 0, 0},
    {"kernel-log", SYS_syslog, 3, P(buffer), 16},
    {"set-clock", SYS_clock_settime, 0, P(buffer)},
    {"set-time", SYS_settimeofday, 0, P(buffer)},
    {"host-name", SYS_sethostname, P("x"), 1},
    {"domain-name", SYS_setdomainname, P("x"), 1},
    {"hang-up", SYS_vhangup},
};

unsigned probe_escape_count(void) { return sizeof all / sizeof *all; }

const char *probe_escape_name(unsigned index) { return all[index].name; }

static _Noreturn void end(long result) {
  // Success as a number that no error has.
  int code = result >= 0 ? PROBE_SUCCEEDED : (int)-result;
  while (1) syscall(SYS_exit_group, code);
}

void probe_escape(unsigned index) {
  const struct escape *it = &all[index];
  end(probe_call(it->number, it->a, it->b, it->c, it->d, it->e, it->f));
}

void probe_any(long number) { end(probe_call(number, -1, -1, -1, -1, -1, -1)); }

int probe_fork(void) { return fork(); }

int probe_wait(int pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int probe_open_read_only(void) {
  int file = open("/dev/zero", O_RDONLY);
  return file < 0 ? -errno : dup2(file, PROBE_READ_ONLY);
}

void probe_become(const char *path, const char *name) {
  char *arguments[] = {(char *)name, NULL};
  if (open("/dev/zero", O_RDONLY) >= 0) execv(path, arguments);
}
