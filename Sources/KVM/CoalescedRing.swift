// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// A write that KVM collected in the ring instead of leaving the guest for it.
public struct CoalescedWrite: Equatable, Sendable {
  /// The port, or the physical address.
  public var address: UInt64
  /// The value, in the low bytes.
  public var data: UInt64
  /// The width in bytes, 0 to 8; what is no width of an access is not KVM's.
  public var byteCount: UInt8
  public var isPort: Bool

  public init(address: UInt64, data: UInt64, byteCount: UInt8, isPort: Bool) {
    self.address = address
    self.data = data
    self.byteCount = byteCount
    self.isPort = isPort
  }
}

/// The ring into which KVM puts the writes to a machine's coalesced zones, oldest first.
///
/// A machine has one, which all of its vCPUs fill and which every vCPU's pages show. KVM writes
/// the entries and the place after the last; who takes them out, one thread at a time, writes
/// the place of the first. When it is full, a write leaves the guest as it does without a zone.
public struct CoalescedRing: Sendable {
  /// The size in bytes.
  public static let byteCount = 4096
  /// How many places there are; one of them stays empty.
  public static let capacity = (byteCount - entries) / entryByteCount

  private static let entries = 8
  private static let entryByteCount = 24

  private let memory: Mapping
  private let offset: Int
  /// The place of the oldest write; it is never read back.
  private var first: UInt32 = 0

  /// Takes the ring of a machine that has not run yet, at `offset` in `memory`.
  public init(_ memory: Mapping, at offset: Int) {
    self.memory = memory
    self.offset = offset
  }

  /// Whether every write has been taken, by whichever copy of this value; from any thread.
  ///
  /// What a vCPU wrote before its exit is seen by the thread that ran it.
  @inline(__always)
  public var isEmpty: Bool {
    // In this order: once `first` has come to where `last` was, all up to there was taken.
    let last = memory.acquire32(at: offset + 4)
    return memory.acquire32(at: offset) == last
  }

  /// The oldest write; `nil` when there is none.
  public func peek() -> CoalescedWrite? {
    let last = memory.acquire32(at: offset + 4)
    guard last != first, last < UInt32(Self.capacity) else { return nil }
    return write(at: first)
  }

  /// Whether some write in the ring is as `body` says.
  public func contains(where body: (CoalescedWrite) -> Bool) -> Bool {
    let last = memory.acquire32(at: offset + 4)
    guard last < UInt32(Self.capacity) else { return false }
    var place = first
    while place != last {
      if body(write(at: place)) { return true }
      place = (place + 1) % UInt32(Self.capacity)
    }
    return false
  }

  private func write(at place: UInt32) -> CoalescedWrite {
    let at = offset + Self.entries + Int(place) * Self.entryByteCount
    let byteCount = min(8, memory.load(UInt32.self, at: at + 8))
    let mask = byteCount == 8 ? UInt64.max : (1 << (8 * UInt64(byteCount))) &- 1
    return CoalescedWrite(
      address: memory.load(UInt64.self, at: at),
      data: memory.load(UInt64.self, at: at + 16) & mask,
      byteCount: UInt8(truncatingIfNeeded: byteCount),
      isPort: memory.load(UInt32.self, at: at + 12) & 1 != 0)
  }

  /// Takes the oldest write out, if there is one: it has been dealt with.
  public mutating func drop() {
    guard memory.acquire32(at: offset + 4) != first else { return }
    first = (first + 1) % UInt32(Self.capacity)
    memory.release32(first, at: offset)
  }
}

extension VirtualMachine {
  /// A range whose writes KVM collects in the ring instead of leaving the guest for each.
  public struct CoalescedZone: Hashable, Sendable {
    /// The first port, or physical address.
    public var address: UInt64
    public var byteCount: UInt32
    public var isPort: Bool

    public init(address: UInt64, byteCount: UInt32, isPort: Bool) {
      self.address = address
      self.byteCount = byteCount
      self.isPort = isPort
    }

    /// Whether the two have an address in common.
    public func overlaps(_ other: CoalescedZone) -> Bool {
      isPort == other.isPort && address < other.address + UInt64(other.byteCount)
        && other.address < address + UInt64(byteCount)
    }
  }

  /// Which of ports and memory KVM can collect writes to.
  public var canCoalesce: (ports: Bool, memory: Bool) {
    let memory = system.has(.coalescedMMIO)
    return (memory && system.has(.coalescedPorts), memory)
  }

  /// Starts to collect writes that lie wholly inside a zone (KVM_REGISTER_COALESCED_MMIO).
  ///
  /// - Precondition: no zone that there is overlaps it.
  public func addCoalescedZone(_ zone: CoalescedZone) throws(KVMError) {
    try change("KVM_REGISTER_COALESCED_MMIO", KVMRequest.registerCoalescedMMIO, zone)
  }

  /// Undoes ``addCoalescedZone(_:)``; afterwards no vCPU puts writes to the zone into the ring.
  public func removeCoalescedZone(_ zone: CoalescedZone) throws(KVMError) {
    try change("KVM_UNREGISTER_COALESCED_MMIO", KVMRequest.unregisterCoalescedMMIO, zone)
  }

  private func change(_ name: String, _ request: UInt, _ zone: CoalescedZone)
    throws(KVMError)
  {
    var bytes: [2 of UInt64] = [
      zone.address, UInt64(zone.byteCount) | (zone.isPort ? 1 << 32 : 0),
    ]
    try asking { () throws(SystemError) in
      _ = try descriptor.control(name, request, &bytes)
    }
  }
}
