// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import CSeccomp
internal import Glibc

/// Filters as programs of the kernel, to compare one that is in force with one that should be.
extension SystemCallFilter {
  /// The most bytes of a program: 4096 instructions of 8 bytes (BPF_MAXINSNS).
  private static let mostBytes = 4096 * 8

  /// The program that ``load(allThreads:)`` gives to the kernel.
  public func program() throws(SystemError) -> [UInt8] {
    let file = try MemoryFile.makeUnsealed("filter", byteCount: 0)
    try export(to: file)
    return try file.read(Self.mostBytes, at: 0)
  }

  /// The name of a system call; its number where it has none.
  public static func name(ofCall number: Int32) -> String {
    // SAFETY: the library returns a string of its own making, which is freed here, or NULL.
    guard let text = unsafe seccomp_syscall_resolve_num_arch(0, number) else { return "\(number)" }
    defer { unsafe free(text) }
    return unsafe String(cString: text)
  }

  /// The programs in force in a thread, the oldest first.
  ///
  /// The thread is stopped for as long as that takes, some microseconds; no signal is sent.
  ///
  /// - Throws: EPERM or EACCES without CAP_SYS_ADMIN, EINVAL when the kernel can't tell.
  public static func programs(ofThread id: Int32) throws(SystemError) -> [[UInt8]] {
    _ = try SystemError.check("trace \(id)", bh_trace_stop(id))
    defer { _ = bh_trace_go_on(id) }
    var programs: [[UInt8]] = []
    while true {
      var size = 0
      let program = unsafe [UInt8](unsafeUninitializedCapacity: mostBytes) { buffer, filled in
        filled = 0
        guard let start = buffer.baseAddress else { return }
        // SAFETY: the kernel writes no more than the capacity, which the call is told.
        unsafe size = bh_trace_filter(id, UInt(programs.count), start, mostBytes)
        filled = max(0, size)
      }
      if size == 0 - Int(ENOENT) { return programs }
      _ = try SystemError.check("read a filter of \(id)", Int64(size))
      programs.append(program)
    }
  }
}
