// SPDX-License-Identifier: Apache-2.0

internal import CSandboxProbe
internal import Glibc
internal import Sandbox

/// Something that a process which was taken over would try.
struct Attempt {
  /// The name on the command line.
  var name: String
  /// The calls that the filter must let through for another layer to be seen.
  var calls: [String]
  /// Tries it; returns the call's result, or -errno.
  var run: @Sendable () -> Int

  init(_ name: String, _ calls: [String], _ run: @escaping @Sendable () -> Int) {
    self.name = name
    self.calls = calls
    self.run = run
  }

  static func named(_ name: String) -> Attempt? { all.first { $0.name == name } }

  static let all = [
    Attempt("nothing", []) { 0 },
    // SAFETY: the paths are NUL-terminated copies that outlive the calls.
    Attempt("open-passwd", ["openat"]) { unsafe probe_at_call(257, "/etc/passwd", 0, 0) },
    Attempt("open-root", ["openat"]) { unsafe probe_at_call(257, "/", 0o200000, 0) },
    Attempt("create-file", ["openat"]) { unsafe probe_at_call(257, "/new", 0o101, 0o600) },
    Attempt("make-directory", ["mkdir"]) { unsafe probe_path_call(83, "/new", 0o700, 0) },
    Attempt("execute", ["execve"]) { unsafe probe_path_call(59, "/bin/sh", 0, 0) },
    Attempt("chroot", ["chroot"]) { unsafe probe_path_call(161, "/", 0, 0) },
    Attempt("mount", ["mount"]) { unsafe probe_mount("/") },
    Attempt("unmount", ["umount2"]) { unsafe probe_path_call(166, "/", 2, 0) },
    Attempt("host-name", ["sethostname"]) { unsafe probe_path_call(170, "other", 5, 0) },
    Attempt("socket", ["socket"]) { probe_call(41, 2, 1, 0, 0, 0, 0) },
    Attempt("connect", ["socket", "connect"]) { probe_connect(80) },
    Attempt("unshare-user", []) { probe_call(272, 0x1000_0000, 0, 0, 0, 0, 0) },
    Attempt("unshare-network", ["unshare"]) { probe_call(272, 0x4000_0000, 0, 0, 0, 0, 0) },
    Attempt("set-user", ["setuid"]) { probe_call(105, 1, 0, 0, 0, 0, 0) },
    Attempt("fork", ["clone"]) { fork() },
    Attempt("trace", []) { probe_call(101, 0, 0, 0, 0, 0, 0) },
    Attempt("kill", []) { probe_call(62, 1, 9, 0, 0, 0, 0) },
    Attempt("bpf", []) { probe_call(321, 0, 0, 0, 0, 0, 0) },
    Attempt("io-uring", []) { probe_call(425, 1, 0, 0, 0, 0, 0) },
    Attempt("userfaultfd", []) { probe_call(323, 0, 0, 0, 0, 0, 0) },
    Attempt("map-code", ["mmap"]) { probe_write_code(1) },
    Attempt("make-code", ["mprotect"]) { probe_write_code(0) },
    Attempt("call-32-bit", []) { Int(probe_32bit_call(20)) },
    Attempt("call-x32", []) { probe_call(0x4000_0000 + 39, 0, 0, 0, 0, 0, 0) },
    Attempt("write-elsewhere", []) { probe_call(1, 3, 0, 0, 0, 0, 0) },
    Attempt("prctl-dumpable", []) { probe_call(157, 4, 1, 0, 0, 0, 0) },
  ]

  private static func fork() -> Int {
    let result = probe_call(56, 17 /* SIGCHLD alone */, 0, 0, 0, 0, 0)
    if result == 0 { _exit(0) }
    return result
  }
}
