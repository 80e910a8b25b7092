// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol

/// What an operator's client asks of a machine over its control socket (protocols/control.md).
///
/// The socket is of type SOCK_SEQPACKET; messages have the header of the device protocol.
public enum ControlRequest: UInt32, Sendable, CaseIterable {
  /// What the machine is doing (``StatusReply``).
  case status = 200
  /// Draw the screen into the memory that comes along (`ScreendumpRequest`, one descriptor).
  case screendump = 201
  /// End the machine in an orderly way.
  case stop = 202
  /// Start a device's process anew (``DeviceRequest``).
  case restartDevice = 203
  /// Press and release keys (`InputRequest`).
  case input = 204
  /// Reset the machine.
  case reset = 205
  /// Hold the vCPUs and the clock.
  case pause = 206
  /// Let them go on.
  case resume = 207
  /// Take the disc out of a drive, or put in the one whose descriptor comes along
  /// (`MediumRequest`).
  case medium = 208
  /// Press the power button.
  case powerButton = 209
  /// From now on this client is sent ``event`` messages.
  case subscribe = 220
  /// Something has happened (``EventMessage``); from the core, without a reply.
  case event = 221
  /// A vCPU's registers (``VCPURequest``, ``VCPUReply``).
  case vcpu = 222
  /// Change a vCPU's registers (``VCPUReply``).
  case setVCPU = 223
  /// Bytes of guest memory (``MemoryRequest``, ``MemoryBytes``).
  case readMemory = 224
  /// Change them (``MemoryBytes``).
  case writeMemory = 225
  /// The PCI functions (``FunctionsReply``).
  case functions = 227
  /// What answers where (``AddressMapReply``).
  case addressMap = 228
  /// Send every vCPU an NMI.
  case nmi = 229
  /// What a debugger wants of the vCPUs (``DebugRequest``).
  case debug = 230
  /// What has been counted (``MetricsReply``).
  case metrics = 240
  /// Begin or end the trace of register accesses (``TraceRequest``).
  case trace = 241
  /// The accesses since the last time (``TraceReply``).
  case traceRecords = 242
  /// Where the serial ports end (``PortsReply``).
  case ports = 243
  /// Which lines of the log are written (``LogLevelRequest``, `LogLevelMessage`).
  case logLevel = 244
  /// Move the mouse or change its buttons (`PointerRequest`).
  case pointer = 260
  /// What the drives hold and have done (`DrivesReply`).
  case drives = 261
  /// The registers of the interrupt controllers (``InterruptChipsReply``).
  case interruptChips = 262
  /// Read or write a port (``PortRequest``, ``PortReply``).
  case port = 263
  /// Make a drive's disk larger or smaller (`ResizeRequest`).
  case resize = 280
  /// Send a break to a serial port's receiver (`BreakRequest`).
  case sendBreak = 281
  /// Save, load, delete or list snapshots of the machine, or let a drive go on in an overlay
  /// (``SnapshotRequest``, ``SnapshotReply``).
  case snapshot = 270
}

/// Names one device of the machine.
public struct DeviceRequest: Equatable, WireCodable {
  /// The device's role, such as `serial`.
  public var role: String

  public init(role: String) { self.role = role }

  public func encode(to writer: inout WireWriter) { writer.put(role) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    role = try reader.getString("role", most: 31)
  }
}

/// The reply to ``ControlRequest/status``.
public struct StatusReply: Equatable, WireCodable {
  /// One device as the core sees it.
  public struct Device: Equatable, WireCodable {
    public var role: String
    /// `up`, `starting` or `gone`.
    public var state: String
    /// How often its process was started anew.
    public var restarts: UInt32
    /// Live, posted and mirrored register accesses since the start.
    public var live: UInt64
    public var posted: UInt64
    public var mirrored: UInt64

    public init(
      role: String, state: String, restarts: UInt32, live: UInt64, posted: UInt64,
      mirrored: UInt64
    ) {
      self.role = role
      self.state = state
      self.restarts = restarts
      self.live = live
      self.posted = posted
      self.mirrored = mirrored
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(role)
      writer.put(state)
      writer.put(restarts)
      writer.put(live)
      writer.put(posted)
      writer.put(mirrored)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      role = try reader.getString("role", most: 31)
      state = try reader.getString("state", most: 31)
      restarts = try reader.get("restarts")
      live = try reader.get("live accesses")
      posted = try reader.get("posted writes")
      mirrored = try reader.get("mirrored reads")
    }
  }

  public var machine: String
  /// `starting`, `running`, `paused` or `ending`.
  public var state: String
  /// Why it is paused, or nothing.
  public var reason: String
  /// Which accelerator runs the vCPUs, and why.
  public var accelerator: String
  public var cpus: UInt32
  public var memoryByteCount: UInt64
  /// The virtual clock in nanoseconds.
  public var clock: UInt64
  public var devices: [Device]

  public init(
    machine: String, state: String, reason: String, accelerator: String, cpus: UInt32,
    memoryByteCount: UInt64, clock: UInt64, devices: [Device]
  ) {
    self.machine = machine
    self.state = state
    self.reason = reason
    self.accelerator = accelerator
    self.cpus = cpus
    self.memoryByteCount = memoryByteCount
    self.clock = clock
    self.devices = devices
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(machine)
    writer.put(state)
    writer.put(reason)
    writer.put(accelerator)
    writer.put(cpus)
    writer.put(memoryByteCount)
    writer.put(clock)
    writer.put(devices)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    machine = try reader.getString("machine", most: 63)
    state = try reader.getString("state", most: 31)
    reason = try reader.getString("reason", most: 4000)
    accelerator = try reader.getString("accelerator", most: 400)
    cpus = try reader.get("cpus")
    memoryByteCount = try reader.get("memory")
    clock = try reader.get("clock")
    devices = try reader.getArray("devices", most: 16)
  }
}
