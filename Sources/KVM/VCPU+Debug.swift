// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// What one of the processor's debug registers looks for.
public struct HardwarePoint: Equatable, Sendable {
  /// As DR7's R/W field has it (SDM volume 3, 17.2.4).
  public enum Kind: UInt64, Sendable {
    case execution = 0
    case write = 1
    case access = 3
  }

  public var kind: Kind
  /// The linear address, a multiple of ``byteCount``.
  public var address: UInt64
  /// 1, 2, 4 or 8; 1 for `execution`.
  public var byteCount: Int

  public init(_ kind: Kind, address: UInt64, byteCount: Int = 1) {
    self.kind = kind
    self.address = address
    self.byteCount = byteCount
  }

  /// How many there may be at once.
  public static let most = 4
}

extension VCPU {
  /// Has the processor stop at some points, which the guest sees nothing of, or after one
  /// instruction; ``run()`` gives ``Exit/debug(exception:pc:status:)`` then.
  ///
  /// The vCPU's thread is outside of the guest. Meanwhile the guest's own debug registers do
  /// nothing.
  /// - Precondition: at most ``HardwarePoint/most`` points.
  public func debug(_ points: [HardwarePoint], steps: Bool) throws(KVMError) {
    precondition(points.count <= HardwarePoint.most, "too many points")
    var block = Block(byteCount: 72)
    var control: UInt32 = 0
    if !points.isEmpty || steps { control |= Control.enable }
    if steps { control |= Control.step }
    if !points.isEmpty { control |= Control.hardware }
    var enables: UInt64 = points.isEmpty ? 0 : 1 << 10
    for (number, point) in points.enumerated() {
      block.store(point.address, at: 8 + 8 * number)
      let length: UInt64 =
        switch point.byteCount {
        case 2: 1
        case 4: 3
        case 8: 2
        default: 0
        }
      enables |= 2 << UInt64(2 * number)
      enables |= (length << 2 | point.kind.rawValue) << UInt64(16 + 4 * number)
    }
    block.store(enables, at: 8 + 8 * 7)
    // A step is one of the program, not of an interrupt's handler; older kernels cannot tell.
    block.store(steps ? control | Control.blocksInterrupts : control, at: 0)
    if steps, (try? set(block)) != nil { return }
    block.store(control, at: 0)
    try set(block)
  }

  private func set(_ block: Block) throws(KVMError) {
    var block = block
    try asking { () throws(SystemError) in
      _ = try descriptor.control(
        "KVM_SET_GUEST_DEBUG", KVMRequest.setGuestDebug, bytes: &block.bytes)
    }
  }

  /// KVM_GUESTDBG_ of linux/kvm.h and asm/kvm.h.
  private enum Control {
    static let enable: UInt32 = 1
    static let step: UInt32 = 2
    static let hardware: UInt32 = 0x20000
    static let blocksInterrupts: UInt32 = 0x100000
  }
}
