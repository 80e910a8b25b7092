// SPDX-License-Identifier: Apache-2.0

public import CLinux
internal import Glibc
internal import Synchronization

/// Threads of the operating system, one for each thing that blocks.
public enum Thread {
  private final class Body: Sendable {
    let name: String
    let run: @Sendable () -> Void
    let isRunning = Atomic(false)
    init(name: String, run: @escaping @Sendable () -> Void) {
      self.name = name
      self.run = run
    }
  }

  /// Starts a detached thread; `name` shows in /proc (at most 15 bytes).
  ///
  /// Returns when the thread runs: what the C library does at its start lies behind it, and a
  /// filter that is loaded next need not allow it.
  public static func start(_ name: String, _ run: @escaping @Sendable () -> Void)
    throws(SystemError)
  {
    var thread = pthread_t()
    let body = Body(name: name, run: run)
    // SAFETY: the box is retained here and released by the thread, which runs once.
    let box = unsafe Unmanaged.passRetained(body)
    let result = unsafe pthread_create(
      &thread, nil,
      { argument in
        // SAFETY: the argument is the box that start() retained.
        if let argument = unsafe argument {
          let body = unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
          Thread.name = body.name
          body.isRunning.store(true, ordering: .releasing)
          body.run()
        }
        return nil
      }, box.toOpaque())
    guard result == 0 else {
      unsafe box.release()
      throw SystemError("pthread_create", result)
    }
    pthread_detach(thread)
    while !body.isRunning.load(ordering: .acquiring) { sched_yield() }
  }

  /// The calling thread's name; write only.
  public static var name: String {
    get { "" }
    set {
      // SAFETY: the kernel copies the NUL-terminated name.
      _ = unsafe bh_set_thread_name(String(newValue.prefix(15)))
    }
  }

  /// The calling thread's id, as /proc shows it.
  public static var id: Int32 { bh_gettid() }

  /// Sends a signal to one thread of this process.
  public static func signal(_ thread: Int32, _ signal: Int32) {
    _ = bh_tgkill(getpid(), thread, signal)
  }

  /// Tells the processor that this is a spinning wait.
  @inline(always)
  public static func relax() { bh_pause() }

  /// Lets the process use ``fenceAll()``; once, before its filter is loaded.
  public static func prepareFences() throws(SystemError) {
    let result = bh_membarrier(16)  // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
    guard result == 0 else { throw SystemError("membarrier", -result) }
  }

  /// Makes every running thread of this process pass a full memory barrier.
  public static func fenceAll() {
    _ = bh_membarrier(8)  // MEMBARRIER_CMD_PRIVATE_EXPEDITED
  }
}

/// The host's clocks.
public enum HostClock {
  /// CLOCK_MONOTONIC in nanoseconds.
  public static func monotonic() -> UInt64 { UInt64(bh_monotonic_ns()) }

  /// Wall-clock time in whole seconds since 1970.
  public static func unixSeconds() -> Int64 { Int64(time(nil)) }

  /// Wall-clock time in nanoseconds since 1970.
  public static func unixNanoseconds() -> UInt64 {
    var now = timespec()
    // SAFETY: the kernel writes the one structure.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &now)
    return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
  }

  /// Sleeps for some nanoseconds.
  public static func sleep(_ nanoseconds: UInt64) {
    var rest = timespec(
      tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    var left = timespec()
    // SAFETY: nanosleep reads the one structure and writes the other.
    while unsafe nanosleep(&rest, &left) != 0 && errno == EINTR { rest = left }
  }
}

/// The end of the process.
public enum ProcessExit {
  /// Ends the process at once, without handlers.
  public static func now(_ code: Int32) -> Never { _exit(code) }
}

/// The C library's memory allocator.
public enum Allocator {
  /// Makes all threads share one arena; a process calls this before it has threads.
  ///
  /// An arena of a thread's own opens files of /proc and /sys when it first grows or shrinks,
  /// which a process in its sandbox may not.
  public static func shareOneArena() { _ = bh_use_one_arena() }
}

/// The host's processors.
public enum Processors {
  /// How many this process may run on now.
  public static let online = Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
}
