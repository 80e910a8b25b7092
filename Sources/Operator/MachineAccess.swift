// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem
public import Monitor

public typealias Control = Monitor.ControlRequest

/// Why a command cannot be done, for the operator.
public struct CommandError: Error, Equatable, Sendable, CustomStringConvertible {
  /// QMP's classes of errors.
  public enum Class: String, Sendable {
    case generic = "GenericError"
    case commandNotFound = "CommandNotFound"
    case deviceNotFound = "DeviceNotFound"
    case deviceNotActive = "DeviceNotActive"
  }

  public var errorClass: Class
  public var description: String

  public init(_ description: String, _ errorClass: Class = .generic) {
    self.description = description
    self.errorClass = errorClass
  }
}

/// The machine, as those who serve the operator reach it.
public protocol MachineAccess: AnyObject {
  var settings: MonitorSettings { get }

  /// Asks the core, and waits for its reply.
  func ask<Q: WireCodable, A: WireCodable>(
    _ request: Control, _ question: Q, _ descriptors: [Descriptor], as type: A.Type
  ) throws(CommandError) -> A

  /// Asks the core for what may take minutes.
  func askLong<Q: WireCodable, A: WireCodable>(
    _ request: Control, _ question: Q, as type: A.Type
  ) throws(CommandError) -> A

  /// Tells every client of something that has happened here.
  func post(_ event: EventMessage)

  /// The threads of the core, by their numbers on the host.
  func threads() throws(CommandError) -> [ThreadsReply.Entry]

  /// What the machine's processes use, and how many lines of the log were lost.
  func processes() throws(CommandError) -> ProcessesReply

  /// A new file for what the operator wants written.
  func makeFile(_ path: String) throws(CommandError) -> Descriptor

  /// The image of a disc that the operator names, and its length.
  func openMedium(_ path: String) throws(CommandError) -> (image: Descriptor, byteCount: UInt64)

  /// Has the socket that gdb connects to made, or taken away.
  ///
  /// - Parameters:
  ///   - isWanted: Whether there is to be one.
  ///   - path: The socket's path; empty for the usual one.
  /// - Returns: Where it is; empty when there is none.
  /// - Throws: When it may not be there, or cannot be made.
  func setDebuggerSocket(isWanted: Bool, at path: String) throws(CommandError) -> String

  /// What was counted of events and clients.
  var counts: MonitorCounts { get }

  /// The discs that were changed since the start, and the overlays that disks have gone on in, by
  /// the drives' slots; empty for a disc that is gone, or that somebody else has put in.
  var media: [UInt8: String] { get set }

  /// Whether the machine stands because the host has failed a drive.
  var isHeldForHost: Bool { get }
}

/// What one that serves no clients of its own need not have.
extension MachineAccess {
  public var counts: MonitorCounts { MonitorCounts() }

  public func setDebuggerSocket(isWanted: Bool, at path: String) throws(CommandError) -> String {
    throw CommandError("no debugger can be served here")
  }
}

extension MachineAccess {
  func ask<Q: WireCodable, A: WireCodable>(
    _ request: Control, _ question: Q, as type: A.Type = A.self
  ) throws(CommandError) -> A {
    try ask(request, question, [], as: type)
  }

  func order(_ request: Control) throws(CommandError) {
    _ = try ask(request, Empty(), as: Empty.self)
  }

  func status() throws(CommandError) -> StatusReply { try ask(.status, Empty()) }

  func vcpu(_ index: Int) throws(CommandError) -> VCPUReply {
    guard index >= 0, index < Int(try status().cpus) else {
      throw CommandError("there is no CPU \(index)")
    }
    return try ask(.vcpu, VCPURequest(index: UInt16(index)))
  }

  /// The number on the host of a vCPU's thread; 0 when it cannot be told.
  func threadID(_ cpu: Int, in threads: [ThreadsReply.Entry]) -> UInt32 {
    threads.first { $0.name.hasPrefix("CPU \(cpu)/") }?.id ?? 0
  }

  /// Bytes at a physical address; `nil` where there is no memory.
  func physical(_ address: UInt64, _ count: Int) -> [UInt8]? {
    var result: [UInt8] = []
    while result.count < count {
      let piece = min(count - result.count, Int(MemoryRequest.most))
      let request = MemoryRequest(
        address: address &+ UInt64(result.count), byteCount: UInt32(piece))
      guard let reply = try? ask(.readMemory, request, as: MemoryBytes.self),
        reply.bytes.count == piece
      else { return nil }
      result += reply.bytes
    }
    return result
  }

  /// Bytes at a linear address of a vCPU; `nil` where nothing is mapped.
  func linear(_ address: UInt64, _ count: Int, _ cpu: VCPUReply) -> [UInt8]? {
    var result: [UInt8] = []
    while result.count < count {
      let at = address &+ UInt64(result.count)
      let piece = min(count - result.count, 4096 - Int(at & 0xFFF))
      guard let place = translate(at, cpu), let bytes = physical(place, piece) else { return nil }
      result += bytes
    }
    return result
  }

  /// The physical address of a linear one, by the vCPU's page tables (SDM volume 3, 4.3 to 4.5).
  func translate(_ address: UInt64, _ cpu: VCPUReply) -> UInt64? {
    walk(address, cpu)?.physical
  }

  /// Where a linear address lies: its physical address, the size of its page and the entry's bits.
  func walk(_ address: UInt64, _ cpu: VCPUReply) -> (physical: UInt64, size: UInt64, entry: UInt64)?
  {
    guard cpu.cr0 >> 31 & 1 == 1 else {
      let plain = address & 0xFFFF_FFFF
      return (plain, 4096, 7)
    }
    func entry(_ at: UInt64, _ size: Int) -> UInt64? {
      physical(at, size).map { $0.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
    }
    let frame: UInt64 = 0x000F_FFFF_FFFF_F000
    if cpu.cr4 & 0x20 == 0 {
      let address = address & 0xFFFF_FFFF
      guard let upper = entry((cpu.cr3 & 0xFFFF_F000) + (address >> 22) * 4, 4), upper & 1 != 0
      else { return nil }
      if upper & 0x80 != 0, cpu.cr4 & 0x10 != 0 {
        let high = (upper >> 13 & 0xFF) << 32
        return (high | upper & 0xFFC0_0000 | address & 0x3F_FFFF, 4 << 20, upper)
      }
      guard let lower = entry((upper & 0xFFFF_F000) + (address >> 12 & 0x3FF) * 4, 4),
        lower & 1 != 0
      else { return nil }
      return (lower & 0xFFFF_F000 | address & 0xFFF, 4096, lower & upper & 6 | lower & ~6)
    }
    let isLong = cpu.efer & 0x400 != 0
    var level = isLong ? (cpu.cr4 & 0x1000 != 0 ? 5 : 4) : 3
    let address = isLong ? address : address & 0xFFFF_FFFF
    var table = isLong ? cpu.cr3 & frame : cpu.cr3 & 0xFFFF_FFE0
    var rights: UInt64 = 6
    while level > 0 {
      let shift = UInt64(12 + 9 * (level - 1))
      let mask: UInt64 = !isLong && level == 3 ? 3 : 0x1FF
      guard let found = entry(table + (address >> shift & mask) * 8, 8), found & 1 != 0 else {
        return nil
      }
      if isLong || level < 3 { rights &= found }
      let isLeaf = level == 1 || (level <= 3 && found & 0x80 != 0 && (isLong || level == 2))
      if isLeaf {
        let offset = (UInt64(1) << shift) - 1
        return (found & frame & ~offset | address & offset, offset + 1, found & ~6 | rights)
      }
      table = found & frame
      level -= 1
    }
    return nil
  }
}
