// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// How long a device's live accesses take.
///
/// Each vCPU's thread writes counters of its own, so that counting takes no locked instruction;
/// whoever asks adds them up.
final class AccessMeter: Sendable {
  private let memory: Mapping
  private let slots: Int

  private static let operations = MetricsReply.Device.operations.count
  /// A histogram's buckets and their sum.
  private static let histogramBytes = 8 * (LatencyBuckets.count + 1)
  /// In whole cache lines.
  private static let slotBytes = (operations * histogramBytes + 63) & ~63

  init(slots: Int) throws(SystemError) {
    self.slots = slots
    let byteCount = slots * Self.slotBytes
    memory = try Mapping(
      try MemoryFile.make("meter", byteCount: byteCount), byteCount: byteCount, .readWrite)
  }

  private static func place(_ slot: Int, _ operation: Int) -> Int {
    slot * slotBytes + operation * histogramBytes
  }

  /// Counts one access; on the thread of the slot's vCPU only.
  @inline(__always)
  func add(_ nanoseconds: UInt64, _ operation: SlotOperation, slot: Int) {
    let start = Self.place(slot, Int(operation.rawValue) - 1)
    increase(start, by: nanoseconds)
    increase(start + 8 + 8 * LatencyBuckets.index(of: nanoseconds), by: 1)
  }

  @inline(__always)
  private func increase(_ place: Int, by value: UInt64) {
    memory.release64(memory.acquire64(at: place) &+ value, at: place)
  }

  /// The histograms of all vCPUs together, in the order of the operations.
  func histograms() -> [LatencyHistogram] {
    (0..<Self.operations).map { operation in
      var result = LatencyHistogram()
      for slot in 0..<slots {
        let start = Self.place(slot, operation)
        result.sum &+= memory.acquire64(at: start)
        for index in 0..<LatencyBuckets.count {
          result.counts[index] &+= memory.acquire64(at: start + 8 + 8 * index)
        }
      }
      return result
    }
  }
}
