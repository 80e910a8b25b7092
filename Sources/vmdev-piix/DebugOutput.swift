// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceProtocol
internal import DeviceModel
internal import LinuxSystem

/// The debug console's way out: a regular file, a stream, or nothing.
///
/// Characters are gathered to lines and written before the commit of the accesses that made
/// them. A file is written at an offset that is state, so that a successor that does the
/// same accesses again writes the same bytes to the same place; on a stream it may repeat
/// some. A stream that takes nothing never holds the device up: what does not fit into the
/// queue is dropped and counted.
struct DebugOutput: DeviceState {
  private let output: Descriptor?
  private let isFile: Bool
  /// Where in the file the queue's first byte goes.
  private var offset: UInt64
  private var queue: [UInt8] = []
  /// Characters that found the queue full.
  private(set) var dropped: UInt64 = 0
  /// When an unfinished line is written; 0 for none.
  private var deadlineTime: UInt64 = 0
  /// Whether a stream takes nothing now; not state.
  private var isStuck = false
  private var source: Int?

  private static let capacity = 4096
  /// As much as a stream that is writable takes at once.
  private static let piece = 256
  /// How long an unfinished line waits, in nanoseconds.
  private static let patience: UInt64 = 10_000_000
  /// S_IFMT's value for a regular file.
  private static let regularFile: UInt32 = 0o100000

  init(_ output: Descriptor?) {
    self.output = output
    isFile = output.map { (try? $0.kind()) == Self.regularFile } ?? false
    offset = isFile ? output.flatMap { try? $0.size() } ?? 0 : 0
  }

  /// Asks to be told when a stream takes bytes again.
  mutating func attach(_ services: HostServices) {
    guard let output, !isFile else { return }
    source = services.watcher.add(output, .writable, isOn: false)
  }

  var deadline: VMTime? {
    deadlineTime == 0 || isStuck ? nil : VMTime(nanoseconds: deadlineTime)
  }

  /// Takes a character.
  mutating func put(_ byte: UInt8, _ services: HostServices) {
    guard output != nil else { return }
    guard queue.count < Self.capacity else {
      if dropped == 0 {
        Log.line("the debug console's output is stuck: characters are lost", .warning)
      }
      dropped &+= 1
      return
    }
    queue.append(byte)
    if byte == 0x0A || queue.count >= Self.piece {
      flush(services)
    } else if deadlineTime == 0 {
      deadlineTime = max(1, services.now.nanoseconds &+ Self.patience)
    }
  }

  /// Writes the unfinished line if it has waited long enough.
  mutating func elapsed(_ services: HostServices) {
    guard deadlineTime != 0, services.now.nanoseconds >= deadlineTime else { return }
    flush(services)
  }

  /// Goes on when the stream takes bytes again.
  mutating func ready(_ sources: UInt64, _ services: HostServices) {
    guard let source, sources & 1 << UInt64(source) != 0 else { return }
    isStuck = false
    flush(services)
  }

  /// Writes what the output takes now.
  mutating func flush(_ services: HostServices) {
    deadlineTime = 0
    guard let output, !queue.isEmpty, !isStuck else { return }
    do throws(SystemError) {
      if isFile {
        try output.write(queue, at: offset)
        offset &+= UInt64(queue.count)
        queue.removeAll(keepingCapacity: true)
        return
      }
      while !queue.isEmpty {
        // Waiting is the only thing to avoid, so the descriptor's own flags stay as they are.
        var poller = Poller()
        let place = poller.add(output, .writable)
        _ = try poller.wait(timeout: 0)
        guard poller[place] != [] else { break }
        let count = try output.write(Array(queue.prefix(Self.piece)))
        queue.removeFirst(count)
      }
    } catch {
      // Nobody reads any more, or the disk is full: the guest does not care.
      guard !error.isInterrupted, !error.isNotReady else { return watch(services) }
      if dropped == 0 { Log.line("the debug console's output fails: \(error)", .warning) }
      dropped &+= UInt64(queue.count)
      if isFile { offset &+= UInt64(queue.count) }
      queue.removeAll(keepingCapacity: true)
    }
    watch(services)
  }

  private mutating func watch(_ services: HostServices) {
    isStuck = !queue.isEmpty
    if let source { services.watcher.set(source, isOn: isStuck) }
  }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("offset", &offset)
    visitor.field("queue", &queue, capacity: Self.capacity)
    visitor.field("dropped", &dropped)
    visitor.field("deadline", &deadlineTime)
  }
}
