// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage
import ImageFiles
import LinuxSystem
import Synchronization

struct Bench: ImageCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure how fast an image is read or, which destroys what it holds, written.")
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "raw or qcow2; otherwise the first bytes tell.")
  var format: Format?
  @Option(name: [.short, .long], help: "How many requests.") var count = 75000
  @Option(name: [.short, .long], help: "How many of them at once, 1 to 64.") var depth = 16
  @Option(name: [.customShort("s"), .long], help: "The bytes of each.")
  var bufferSize = ByteSize(4096)
  @Option(
    name: [.customShort("S"), .long],
    help: "From the start of one to that of the next; the size, unless given.")
  var stepSize: ByteSize?
  @Flag(name: [.short, .long], help: "Write zeros instead of reading.") var write = false
  @Option(
    name: [.customShort("t"), .long],
    help: "writeback, writethrough (each write is durable) or none (past the host's page cache).")
  var cache = CacheMode.writeback
  @Argument(help: "The image.") var image: String

  enum CacheMode: String, ExpressibleByArgument, Sendable {
    case writeback
    case writethrough
    case none
  }

  var operands: [Operand] { [Operand(path: image, access: write ? .write : .read)] }
  var threadCount: Int { depth }
  var isDirect: Bool { cache == .none }

  func validate() throws {
    guard (1...64).contains(depth) else { throw ValidationError("--depth must be 1 to 64") }
    guard count > 0, (1...(16 << 20)).contains(bufferSize.bytes) else {
      throw ValidationError("--count must be at least 1, --buffer-size 1 byte to 16 MiB")
    }
  }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    let file = worker.file(0)
    let opened = try worker.open(file, format, isWritable: write)
    let image = SharedImage(opened, decompressor: Inflater())
    let size = bufferSize.bytes
    guard image.virtualSize >= size else {
      throw ToolError("\(file.path): smaller than one request")
    }
    let step = stepSize?.bytes ?? size
    let end = image.virtualSize
    let (count, isWrite, isThrough) = (UInt64(count), write, cache == .writethrough)
    let next = Counter()
    let failure = Mutex<BlockImageError?>(nil)
    let start = HostClock.monotonic()
    worker.team?.run {
      var buffer = [UInt8](repeating: 0, count: Int(size))
      do throws(BlockImageError) {
        while true {
          let number = next.take()
          guard number < count else { return }
          let place = number.multipliedReportingOverflow(by: step).partialValue % end
          let offset = min(place, end - size)
          if isWrite {
            try image.write(buffer.span, at: offset)
            if isThrough { try image.flush() }
          } else {
            var span = buffer.mutableSpan
            try image.read(into: &span, at: offset)
          }
        }
      } catch {
        let reason = error
        failure.withLock { $0 = reason }
      }
    }
    if write, failure.withLock({ $0 }) == nil {
      do throws(BlockImageError) { try image.flush() } catch {
        failure.withLock { $0 = error }
      }
    }
    let seconds = Double(HostClock.monotonic() - start) / 1e9
    if let error = failure.withLock({ $0 }) {
      throw ToolError("\(file.path): \(Worker.words(error))")
    }
    let rate = Double(count) / seconds
    Worker.print(
      "\(count) \(write ? "writes" : "reads") of \(size) bytes, \(depth) at once: "
        + "\(Words.decimal(seconds)) seconds, \(Int(rate)) a second, "
        + "\(Words.decimal(rate * Double(size) / 1e6)) MB/s\n")
    return 0
  }
}

extension ByteSize {
  init(_ bytes: UInt64) { self.bytes = bytes }
}

extension Words {
  /// A number with two digits behind the point.
  static func decimal(_ value: Double) -> String {
    let hundredths = Int(value * 100 + 0.5)
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
  }
}

/// Numbers from 0 on, each given once.
private final class Counter: Sendable {
  private let next = Atomic<UInt64>(0)
  func take() -> UInt64 { next.wrappingAdd(1, ordering: .relaxed).oldValue }
}

/// Threads that do one thing together; they are started before the sandbox is entered.
final class Team: Sendable {
  private let work = Mutex<(@Sendable () -> Void)?>(nil)
  private let started = Waiters()
  private let ended = Waiters()
  private let count: Int

  init(_ count: Int) throws(SystemError) {
    self.count = count
    let before = started.count
    for number in 0..<count {
      try Thread.start("worker \(number)") { [self] in
        while started.count == before { started.wait(while: before) }
        work.withLock { $0 }?()
        ended.wakeAll()
        // A thread's end needs calls that the sandbox does not have.
        while true { started.wait(while: started.count) }
      }
    }
  }

  /// Has every thread do something, once, and waits for the last.
  func run(_ body: @escaping @Sendable () -> Void) {
    let before = ended.count
    work.withLock { $0 = body }
    started.wakeAll()
    while true {
      let now = ended.count
      guard Int(now &- before) < count else { return }
      ended.wait(while: now)
    }
  }
}
