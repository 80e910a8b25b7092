// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel

/// The clock of KVM's paravirtual interface, for one vCPU (Linux, Documentation/virt/kvm/x86:
/// msr.rst and the structures of pvclock-abi).
///
/// The time-stamp counter stands still with the machine, so its relation to the time never
/// changes, and what the guest's memory says once is right for ever.
struct ParavirtualClock {
  private var system: UInt64 = 0
  private var wall: UInt64 = 0

  /// Reads one of the clock's MSRs; `nil` for another.
  func read(_ register: UInt32) -> UInt64? {
    switch register {
    case 0x11, 0x4B56_4D00: wall
    case 0x12, 0x4B56_4D01: system
    default: nil
    }
  }

  /// The MSRs that are part of a vCPU's state.
  static let registers: [UInt32] = [0x4B56_4D00, 0x4B56_4D01]

  /// Takes what the MSRs were; the guest's memory has what was written for them.
  mutating func restore(_ registers: [(index: UInt32, value: UInt64)]) {
    for (index, value) in registers {
      if index == Self.registers[0] { wall = value }
      if index == Self.registers[1] { system = value }
    }
  }

  /// What a write asks for.
  enum Effect: Equatable {
    /// Another register.
    case unknown
    case nothing
    /// These bytes in the guest's memory.
    case store(address: UInt64, bytes: [UInt8])
  }

  /// Writes one of the clock's MSRs.
  mutating func write(
    _ register: UInt32, _ value: UInt64, _ clock: GuestClock, unixNow: UInt64
  ) -> Effect {
    switch register {
    case 0x11, 0x4B56_4D00:
      wall = value
      // The wall clock when the virtual time was zero.
      let start = unixNow &- clock.now.nanoseconds
      let bytes =
        Self.bytes(UInt32(2)) + Self.bytes(UInt32(truncatingIfNeeded: start / 1_000_000_000))
        + Self.bytes(UInt32(start % 1_000_000_000))
      return .store(address: value & ~3, bytes: bytes)
    case 0x12, 0x4B56_4D01:
      system = value
      // Bit 0 enables; an update in place needs an address of whole words.
      guard value & 1 != 0 else { return .nothing }
      return .store(address: value & ~3, bytes: Self.timeInfo(frequency: clock.frequency))
    default: return .unknown
    }
  }

  /// `struct pvclock_vcpu_time_info`: the counter at zero is the time zero.
  static func timeInfo(frequency: UInt64) -> [UInt8] {
    let (multiplier, shift) = scale(frequency)
    return bytes(UInt32(2)) + bytes(UInt32(0)) + bytes(UInt64(0)) + bytes(UInt64(0))
      + bytes(multiplier) + [UInt8(bitPattern: shift), 1 /* PVCLOCK_TSC_STABLE_BIT */, 0, 0]
  }

  /// Nanoseconds are `(count << shift) * multiplier >> 32`; a negative shift goes right.
  static func scale(_ frequency: UInt64) -> (multiplier: UInt32, shift: Int8) {
    // nanoseconds for a count: 10^6 / frequency, as a fraction of 2^32 between 2^31 and 2^32.
    var shift: Int8 = 0
    var numerator: UInt64 = 1_000_000
    var denominator = frequency
    while numerator >= denominator {
      denominator <<= 1
      shift += 1
    }
    while numerator << 1 < denominator {
      numerator <<= 1
      shift -= 1
    }
    return (UInt32(truncatingIfNeeded: (numerator << 32) / denominator), shift)
  }

  private static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T(8 * $0)) }
  }
}
