// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// Why KVM cannot do what was asked of it.
public enum KVMError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The kernel refused a request.
  case refused(SystemError)
  /// /dev/kvm speaks a version of the interface other than 12.
  case wrongVersion(Int)
  /// A capability that Bulkhead cannot do without is missing.
  case missing(Capability)

  public var description: String {
    switch self {
    case .refused(let error): "KVM refused: \(error)"
    case .wrongVersion(let version): "KVM has interface version \(version), not 12"
    case .missing(let capability): "KVM lacks capability \(capability)"
    }
  }
}

/// A feature that KVM_CHECK_EXTENSION tells about, by its number in linux/kvm.h.
public struct Capability: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let interruptChips = Capability(rawValue: 0)
  public static let userMemory = Capability(rawValue: 3)
  public static let recommendedVCPUs = Capability(rawValue: 9)
  public static let memorySlots = Capability(rawValue: 10)
  public static let coalescedMMIO = Capability(rawValue: 15)
  public static let interruptRouting = Capability(rawValue: 25)
  public static let interruptEventFile = Capability(rawValue: 32)
  public static let timer2 = Capability(rawValue: 33)
  public static let identityMapAddress = Capability(rawValue: 37)
  public static let adjustClock = Capability(rawValue: 39)
  public static let xcrs = Capability(rawValue: 56)
  public static let xsave = Capability(rawValue: 55)
  public static let tscKHz = Capability(rawValue: 61)
  public static let maximumVCPUs = Capability(rawValue: 66)
  public static let tscDeadlineTimer = Capability(rawValue: 72)
  public static let syncRegisters = Capability(rawValue: 74)
  public static let readOnlyMemory = Capability(rawValue: 81)
  public static let interruptResample = Capability(rawValue: 82)
  public static let immediateExit = Capability(rawValue: 136)
  public static let coalescedPorts = Capability(rawValue: 162)
  public static let disableQuirks2 = Capability(rawValue: 213)

  public var description: String { String(rawValue) }
}

/// Runs a request of the kernel and wraps its refusal.
@inline(always)
func asking<T>(_ body: () throws(SystemError) -> T) throws(KVMError) -> T {
  do { return try body() } catch { throw .refused(error) }
}
