// SPDX-License-Identifier: Apache-2.0

import IDE
import LinuxSystem
import Synchronization

/// Requests that the workers have finished, on their way to the lane thread.
final class Completions: Sendable {
  struct Completion: Sendable {
    var request: IDERequest
    var outcome: Drive.Outcome
  }

  private let queue = Mutex<[Completion]>([])
  private let event: Descriptor

  /// Makes an empty queue; before the seccomp filter is loaded.
  init() throws(SystemError) { event = try EventFile.make() }

  func add(_ request: IDERequest, _ outcome: Drive.Outcome) {
    queue.withLock { $0.append(Completion(request: request, outcome: outcome)) }
    EventFile.signal(event)
  }

  func take() -> [Completion] {
    EventFile.drain(event)
    return queue.withLock { queue in
      let all = queue
      queue = []
      return all
    }
  }

  /// Waits until something was added, or `timeout` nanoseconds are over.
  func wait(timeout: UInt64) {
    var poller = Poller()
    poller.add(event, .readable)
    _ = try? poller.wait(timeout: timeout)
  }
}
