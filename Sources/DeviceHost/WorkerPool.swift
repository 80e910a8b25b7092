// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Synchronization

/// Threads for what blocks, such as reading from a disk image.
public final class WorkerPool: Sendable {
  private let queue = Mutex<[@Sendable () -> Void]>([])
  private let wake: Descriptor

  /// Starts `count` threads; before the seccomp filter is loaded.
  init(_ count: Int) throws(SystemError) {
    wake = try EventFile.make()
    try wake.setNonBlocking(false)
    for index in 0..<count { try Thread.start("worker \(index)") { [self] in run() } }
  }

  /// Runs `work` on one of the threads; work given earlier starts earlier.
  public func submit(_ work: @escaping @Sendable () -> Void) {
    queue.withLock { $0.append(work) }
    EventFile.signal(wake)
  }

  private func next() -> (work: @Sendable () -> Void, isLast: Bool)? {
    queue.withLock {
      guard !$0.isEmpty else { return nil }
      let work = $0.removeFirst()
      return (work, $0.isEmpty)
    }
  }

  private func run() {
    while true {
      EventFile.drain(wake)
      while let (work, isLast) = next() {
        // One read of the event takes the wake-ups of everything that waits.
        if !isLast { EventFile.signal(wake) }
        work()
      }
    }
  }
}
