// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Synchronization

/// A region of a device, as an access finds it.
struct RegionTarget: Sendable {
  var link: DeviceLink
  var region: UInt16
  /// The registers of the region that are not live.
  var registers: [RegisterClaim]
  /// The DMA descriptors whose registers are in the region.
  var descriptors: [DescriptorClaim]

  func isPosted(_ offset: UInt64, _ width: AccessWidth) -> Bool {
    registers.contains {
      $0.write == .posted && offset >= UInt64($0.offset)
        && offset + UInt64(width.rawValue) <= UInt64($0.offset) + UInt64($0.byteCount)
    }
  }

  /// Whether KVM may collect writes to some bytes of the region, if they are posted.
  ///
  /// What starts a transfer may not be: the guest waits for its result in memory.
  func isCollectable(_ offset: UInt64, _ byteCount: UInt64) -> Bool {
    link.grants.mayCollect
      && !descriptors.contains {
        let start = UInt64($0.offset)
        return offset < start + ($0.kind == .prd ? 1 : 8) && offset + byteCount > start
      }
  }
}

/// What a vCPU's thread keeps for itself.
struct CPUContext {
  /// How long to spin for an answer before sleeping, in nanoseconds.
  static let spinWindow: UInt64 = 50_000

  let machine: Machine
  /// The vCPU's number, and that of its slot in every lane.
  let slot: Int
  private var sequences: [UInt32]
  private var misses: [UInt8]
  private let isSpinUseful = Processors.online > 1

  init(machine: Machine, slot: Int, links: Int) {
    self.machine = machine
    self.slot = slot
    sequences = [UInt32](repeating: 0, count: links)
    misses = [UInt8](repeating: 0, count: links)
  }

  /// Runs `body`, which waits for a device: a vCPU counts as held meanwhile, the operator's own
  /// accesses do not.
  func whileWaiting<T>(_ body: () -> T) -> T {
    slot < machine.accelerator.count ? machine.whileWaiting(body) : body()
  }

  mutating func nextSequence(_ link: Int) -> UInt32 {
    sequences[link] &+= 1
    if sequences[link] == 0 { sequences[link] = 1 }
    return sequences[link]
  }

  /// Whether to spin: not after many misses in a row, except now and then to find out.
  mutating func mayBeSpun(_ link: Int) -> Bool {
    guard isSpinUseful else { return false }
    guard misses[link] >= 8 else { return true }
    misses[link] &+= 1
    return misses[link] & 15 == 0
  }

  mutating func spun(_ link: Int, hit: Bool) {
    misses[link] = hit ? 0 : misses[link] == 255 ? 8 : misses[link] + 1
  }
}
