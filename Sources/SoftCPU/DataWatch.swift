// SPDX-License-Identifier: Apache-2.0

/// Bytes at a linear address whose accesses a debugger wants to see; the guest sees nothing of it.
public struct DataWatch: Equatable, Sendable {
  public var address: UInt64
  public var byteCount: Int
  public var seesReads: Bool
  public var seesWrites: Bool

  public init(address: UInt64, byteCount: Int, seesReads: Bool, seesWrites: Bool) {
    self.address = address
    self.byteCount = byteCount
    self.seesReads = seesReads
    self.seesWrites = seesWrites
  }
}

extension SoftCPU {
  /// Sets what is watched; with ``step(deliversAlone:)`` each access is seen.
  public mutating func watch(_ watches: [DataWatch]) {
    guard watches != dataWatches else { return }
    dataWatches = watches
    hasDataWatches = !watches.isEmpty
    dataWatchHit = nil
    // Pages with a watched byte are looked at in each access.
    tlb.flushRights()
  }

  /// The place, among those that are watched, of the first that was accessed since the last call.
  public mutating func takeWatchHit() -> Int? {
    defer { dataWatchHit = nil }
    return dataWatchHit
  }

  /// The first watch that some bytes touch; `nil` for `isWrite` means any access.
  func watchHit(_ linear: UInt64, _ size: Int, isWrite: Bool?) -> Int? {
    dataWatches.firstIndex { watch in
      let isWanted = isWrite.map { $0 ? watch.seesWrites : watch.seesReads } ?? true
      return isWanted && linear &- watch.address < UInt64(watch.byteCount)
        || isWanted && watch.address &- linear < UInt64(size)
    }
  }
}
