// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol

/// Names one vCPU.
public struct VCPURequest: Equatable, WireCodable {
  public var index: UInt16

  public init(index: UInt16) { self.index = index }

  public func encode(to writer: inout WireWriter) { writer.put(index) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    index = try reader.get("vCPU")
  }
}

/// The reply to ``ControlRequest/vcpu``: a vCPU's registers.
///
/// It is also the request ``ControlRequest/setVCPU``, which takes the general registers, the bases
/// of FS and GS, and the FXSAVE image.
public struct VCPUReply: Equatable, WireCodable, Sendable {
  /// A segment register with its hidden part.
  public struct Segment: Equatable, WireCodable, Sendable {
    public var selector: UInt16 = 0
    public var base: UInt64 = 0
    public var limit: UInt32 = 0
    /// The descriptor's bits 8 to 23 as in its second doubleword, without the limit.
    public var flags: UInt32 = 0

    public init() {}

    public func encode(to writer: inout WireWriter) {
      writer.put(selector)
      writer.put(base)
      writer.put(limit)
      writer.put(flags)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      selector = try reader.get("selector")
      base = try reader.get("base")
      limit = try reader.get("limit")
      flags = try reader.get("flags")
    }
  }

  public var index: UInt16 = 0
  /// KVM's number of what it does: 0 it runs, 1 and 2 it waits for its start, 3 it is halted.
  public var mode: UInt32 = 0
  /// RAX RBX RCX RDX RSI RDI RBP RSP R8 to R15 RIP RFLAGS.
  public var general = [UInt64](repeating: 0, count: 18)
  /// CS SS DS ES FS GS LDTR TR.
  public var segments = [Segment](repeating: Segment(), count: 8)
  /// The bases and limits of GDTR and IDTR.
  public var tables = [UInt64](repeating: 0, count: 4)
  /// CR0 CR2 CR3 CR4 CR8 EFER and the APIC's base.
  public var control = [UInt64](repeating: 0, count: 7)
  /// DR0 to DR3, DR6, DR7.
  public var debug = [UInt64](repeating: 0, count: 6)
  /// The FXSAVE image.
  public var fxsave = [UInt8](repeating: 0, count: 512)

  public init() {}

  public var rip: UInt64 { general[16] }
  public var flags: UInt64 { general[17] }
  public var cr0: UInt64 { control[0] }
  public var cr3: UInt64 { control[2] }
  public var cr4: UInt64 { control[3] }
  public var efer: UInt64 { control[5] }
  /// Where the next instruction is: the base of CS and RIP.
  public var programCounter: UInt64 { segments[0].base &+ rip }
  public var isHalted: Bool { mode == 3 }
  /// Whether it executes 64-bit code.
  public var isLong: Bool { efer & 0x400 != 0 && segments[0].flags & 1 << 21 != 0 }

  private static let counts = [18, 4, 7, 6]

  public func encode(to writer: inout WireWriter) {
    writer.put(index)
    writer.put(mode)
    for value in general + tables + control + debug { writer.put(value) }
    for segment in segments { segment.encode(to: &writer) }
    writer.put(fxsave)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    index = try reader.get("vCPU")
    mode = try reader.get("mode")
    for place in general.indices { general[place] = try reader.get("general register") }
    for place in tables.indices { tables[place] = try reader.get("descriptor table") }
    for place in control.indices { control[place] = try reader.get("control register") }
    for place in debug.indices { debug[place] = try reader.get("debug register") }
    for place in segments.indices { segments[place] = try Segment(from: &reader) }
    fxsave = try reader.getBytes("FXSAVE image", most: 512)
    guard fxsave.count == 512 else { throw ProtocolError("a short FXSAVE image") }
  }
}

/// Names bytes of the guest's physical address space (``ControlRequest/readMemory``).
public struct MemoryRequest: Equatable, WireCodable {
  /// The most bytes of one request.
  public static let most: UInt32 = 8192

  public var address: UInt64
  public var byteCount: UInt32

  public init(address: UInt64, byteCount: UInt32) {
    self.address = address
    self.byteCount = byteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(address)
    writer.put(byteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    address = try reader.get("address")
    byteCount = try reader.get("byte count")
    guard byteCount <= Self.most else { throw ProtocolError("\(byteCount) bytes at once") }
  }
}

/// Bytes of guest memory: the reply to ``ControlRequest/readMemory``, and the request
/// ``ControlRequest/writeMemory``.
public struct MemoryBytes: Equatable, WireCodable {
  public var address: UInt64
  public var bytes: [UInt8]

  public init(address: UInt64, bytes: [UInt8]) {
    self.address = address
    self.bytes = bytes
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(address)
    writer.put(bytes)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    address = try reader.get("address")
    bytes = try reader.getBytes("bytes", most: Int(MemoryRequest.most))
  }
}

/// The PCI functions: the reply to ``ControlRequest/functions``.
public struct FunctionsReply: Equatable, WireCodable {
  /// One function: its place and its configuration header.
  public struct Function: Equatable, WireCodable {
    public var devfn: UInt8
    /// Who stands behind it, such as `ide`; empty for the core's own.
    public var role: String
    /// The first 64 bytes of its configuration space.
    public var header: [UInt8]
    /// The sizes of its base address registers and of its ROM, zero where it has none.
    public var sizes: [UInt32]

    public init(devfn: UInt8, role: String, header: [UInt8], sizes: [UInt32]) {
      self.devfn = devfn
      self.role = role
      self.header = header
      self.sizes = sizes
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(devfn)
      writer.put(role)
      writer.put(header)
      for size in sizes { writer.put(size) }
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      devfn = try reader.get("function")
      role = try reader.getString("role", most: 31)
      header = try reader.getBytes("header", most: 64)
      sizes = []
      for _ in 0..<7 { sizes.append(try reader.get("size")) }
      guard header.count == 64 else { throw ProtocolError("a short header") }
    }
  }

  public var functions: [Function]

  public init(functions: [Function]) { self.functions = functions }

  public func encode(to writer: inout WireWriter) { writer.put(functions) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    functions = try reader.getArray("functions", most: 64)
  }
}

/// What answers where: the reply to ``ControlRequest/addressMap``.
public struct AddressMapReply: Equatable, WireCodable {
  /// One range.
  public struct Range: Equatable, WireCodable {
    public var isPort: Bool
    public var start: UInt64
    public var byteCount: UInt64
    /// `ram`, `rom`, or the role of the device.
    public var name: String
    public var isReadOnly: Bool

    public init(
      isPort: Bool, start: UInt64, byteCount: UInt64, name: String, isReadOnly: Bool = false
    ) {
      self.isPort = isPort
      self.start = start
      self.byteCount = byteCount
      self.name = name
      self.isReadOnly = isReadOnly
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(isPort)
      writer.put(start)
      writer.put(byteCount)
      writer.put(name)
      writer.put(isReadOnly)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      isPort = try reader.getBool("kind")
      start = try reader.get("start")
      byteCount = try reader.get("size")
      name = try reader.getString("name", most: 31)
      isReadOnly = try reader.getBool("read-only flag")
    }
  }

  public var ranges: [Range]

  public init(ranges: [Range]) { self.ranges = ranges }

  public func encode(to writer: inout WireWriter) { writer.put(ranges) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    ranges = try reader.getArray("ranges", most: 300)
  }
}

/// Something that has happened, for those who have subscribed (``ControlRequest/event``).
public struct EventMessage: Equatable, WireCodable {
  public enum Kind: UInt8, Sendable {
    /// The machine goes on; no more.
    case resume = 0
    case stop = 1
    /// The machine was reset; `detail` says by whom: `guest` or `host`.
    case reset = 2
    /// The machine ends; `detail` says why, `byGuest` whether the guest asked for it.
    case shutdown = 3
    /// The guest was asked to power off.
    case powerdown = 4
    /// A device's process is up again; `detail` is its role.
    case deviceRestarted = 5
    /// A device holds the machine; `detail` is its role and the reason.
    case deviceFault = 6
    /// A vCPU has stopped for the debugger; `detail` is its number and the reason.
    case debug = 7
    /// The host has failed a drive's request; `detail` is the slot, whether it was a write, what
    /// becomes of it (`report`, `ignore`, `hold`), whether space is short, and the reason.
    case hostError = 8
    /// A drive's tray has moved; `detail` is the slot and whether the tray is open.
    case trayMoved = 9
    /// The guest has panicked; `detail` is what becomes of the machine: `run`, `pause` or `stop`.
    case panicked = 10
    /// The guest has panicked and starts its crash kernel.
    case crashLoaded = 11
    /// The guest has suspended the machine to RAM.
    case suspend = 12
    /// The machine has woken.
    case wakeup = 13
    /// Work on a snapshot that was begun as a job has ended; `detail` is the job's id and, if it
    /// failed, a space and the reason.
    case snapshotEnded = 20
    /// A job has changed its state: `detail` is the state and the job's id; vmmonitor's own.
    case job = 21
  }

  public var kind: Kind
  public var byGuest: Bool
  public var detail: String

  public init(_ kind: Kind, byGuest: Bool = false, detail: String = "") {
    self.kind = kind
    self.byGuest = byGuest
    self.detail = String(decoding: detail.utf8.prefix(1000), as: UTF8.self)
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(kind.rawValue)
    writer.put(byGuest)
    writer.put(detail)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    kind = try reader.getCase("kind")
    byGuest = try reader.getBool("origin")
    detail = try reader.getString("detail", most: 1100)
  }
}

/// What a debugger wants of the vCPUs (``ControlRequest/debug``); it holds until the next one.
public struct DebugRequest: Equatable, WireCodable, Sendable {
  /// One place to stop at.
  public struct Point: Equatable, WireCodable, Sendable {
    public enum Kind: UInt8, Sendable {
      /// Before an instruction at a linear address.
      case execution = 0
      /// After a write to memory; with the software CPU after one that changes it.
      case write = 1
      /// After a read of memory by a vCPU.
      case read = 2
      /// After a read or a write.
      case access = 3
    }

    public var kind: Kind
    /// The linear address.
    public var address: UInt64
    /// For all but `execution` how many bytes; for `write` the physical address, too.
    public var physical: UInt64
    public var byteCount: UInt8

    public init(_ kind: Kind, address: UInt64, physical: UInt64 = 0, byteCount: UInt8 = 1) {
      self.kind = kind
      self.address = address
      self.physical = physical
      self.byteCount = byteCount
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(kind.rawValue)
      writer.put(address)
      writer.put(physical)
      writer.put(byteCount)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      kind = try reader.getCase("kind")
      address = try reader.get("address")
      physical = try reader.get("physical address")
      byteCount = try reader.get("byte count")
      guard (1...8).contains(byteCount) else { throw ProtocolError("a point of that size") }
    }
  }

  public var points: [Point]
  /// The vCPU that executes one instruction and stops; none beyond the last.
  public var steps: UInt16
  /// The vCPU that alone runs; all beyond the last.
  public var runs: UInt16

  /// No vCPU for ``steps``, and every one for ``runs``.
  public static let noStep: UInt16 = .max
  public static let all: UInt16 = .max

  public init(
    points: [Point] = [], steps: UInt16 = Self.noStep, runs: UInt16 = Self.all
  ) {
    self.points = points
    self.steps = steps
    self.runs = runs
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(points)
    writer.put(steps)
    writer.put(runs)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    points = try reader.getArray("points", most: 64)
    steps = try reader.get("step")
    runs = try reader.get("the one that runs")
  }
}
