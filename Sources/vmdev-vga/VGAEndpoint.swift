// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import VGA

/// The VGA at the protocol's end: ports, window and BARs lead to the model.
struct VGAEndpoint: DeviceEndpoint {
  private var vga: VGAController
  private let romByteCount: UInt32
  private var memory: MappedVideoMemory?
  /// What the core maps into the legacy window because this process has asked for it; not state.
  private var mapped: VGAController.LinearWindow?
  /// Whether the core may map something, for this process or one before it.
  private var mayBeMapped = false

  /// The regions of the claims.
  private enum Region {
    static let ports: UInt16 = 0
    static let vbe: UInt16 = 1
    static let window: UInt16 = 2
    static let configuration: UInt16 = 3
    static let frameBuffer: UInt16 = 4
    static let registers: UInt16 = 5
    static let rom: UInt16 = 6
  }

  private static let portBase: UInt16 = 0x3B0
  private static let vbeBase: UInt16 = 0x1CE
  private static let windowByteCount: UInt32 = 0x20000

  /// Makes the VGA with its memory's size and that of the VGA BIOS.
  init(videoByteCount: UInt32, firmwareByteCount: UInt64) throws(ProtocolError) {
    guard (256 << 10...256 << 20).contains(videoByteCount), videoByteCount.nonzeroBitCount == 1
    else { throw ProtocolError("video memory of \(videoByteCount) bytes") }
    guard (1...16 << 20).contains(firmwareByteCount) else {
      throw ProtocolError("a VGA BIOS of \(firmwareByteCount) bytes")
    }
    vga = VGAController(memoryByteCount: Int(videoByteCount))
    var size: UInt32 = 64 << 10
    while UInt64(size) < firmwareByteCount { size *= 2 }
    romByteCount = size
  }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("vga", &vga)
    visitor.field("mayBeMapped", &mayBeMapped)
  }

  func claims() -> Claims {
    typealias Model = VGAController.Claims
    return Claims(
      ports: [
        PortClaim(region: Region.ports, base: Self.portBase, count: 0x30),
        PortClaim(region: Region.vbe, base: Self.vbeBase, count: 4),
      ],
      memories: [
        MemoryClaim(
          region: Region.window, base: Model.window.lowerBound,
          byteCount: UInt64(Self.windowByteCount))
      ],
      functions: [
        FunctionClaim(
          devfn: 0x10, region: Region.configuration, vendor: Model.vendor, device: Model.device,
          classCode: Model.classCode, revision: Model.revision, subsystemVendor: 0x1AF4,
          subsystem: 0x1100,
          bars: [
            BARClaim(
              index: UInt8(Model.frameBufferBar), kind: .prefetchableMemory,
              byteCount: UInt32(vga.memoryByteCount), region: Region.frameBuffer, memory: 0),
            BARClaim(
              index: UInt8(Model.regionBar), kind: .memory,
              byteCount: UInt32(Model.regionByteCount), region: Region.registers),
            BARClaim(
              index: 6, kind: .rom, byteCount: romByteCount, region: Region.rom, memory: 1),
          ])
      ],
      registers: postedRegisters(),
      backings: [
        BackingClaim(memory: 0, kind: .readWrite, byteCount: UInt32(vga.memoryByteCount)),
        BackingClaim(memory: 1, kind: .rom, byteCount: romByteCount),
      ])
  }

  /// The longest runs of ports whose writes may be posted, and the window.
  private func postedRegisters() -> [RegisterClaim] {
    var claims: [RegisterClaim] = []
    func add(_ region: UInt16, _ base: UInt16, _ count: UInt16) {
      var length: UInt16 = 0
      for offset in 0...count {
        if offset < count, VGAController.isPostedWrite(to: base + offset) {
          length += 1
        } else if length > 0 {
          claims.append(
            RegisterClaim(
              region: region, offset: UInt32(offset - length), byteCount: UInt32(length),
              write: .posted))
          length = 0
        }
      }
    }
    add(Region.ports, Self.portBase, 0x30)
    // VBE's index is a word; as the core looks at whole accesses, the claim has both its bytes.
    claims.append(RegisterClaim(region: Region.vbe, offset: 0, byteCount: 2, write: .posted))
    if VGAController.isWindowPosted {
      claims.append(
        RegisterClaim(
          region: Region.window, offset: 0, byteCount: Self.windowByteCount, write: .posted))
    }
    return claims
  }

  mutating func granted(_ services: HostServices) throws(ChannelError) {
    guard let mapping = services.backings.first, mapping.byteCount == vga.memoryByteCount else {
      throw .broken(ProtocolError("the video memory was not granted"))
    }
    memory = MappedVideoMemory(mapping: mapping)
  }

  mutating func reset(_ services: HostServices) {
    vga.reset()
    (mapped, mayBeMapped) = (nil, false)
  }

  // MARK: - The legacy window

  /// Has the core map what is plain memory in the legacy window, before the guest goes on.
  ///
  /// Without a vCPU that waits, what was posted before could overtake what the guest then writes
  /// there: the next access with one begins the mapping.
  private mutating func updateWindow(_ services: HostServices) {
    let wanted = vga.linearWindow
    guard wanted != mapped || mapped == nil && mayBeMapped else { return }
    guard let wanted, services.isWaitedFor else {
      if mayBeMapped {
        _ = services.mapWindow(WindowMapping(region: Region.window, isMapped: false))
      }
      (mapped, mayBeMapped) = (nil, false)
      return
    }
    let isMapped = services.mapWindow(
      WindowMapping(
        region: Region.window, offset: UInt32(wanted.offset), byteCount: UInt32(wanted.byteCount),
        memoryOffset: UInt32(wanted.memoryOffset),
        guards: VGAController.windowRegisters.map {
          WindowMapping.Guard(region: Region.ports, offset: UInt32($0 - Self.portBase))
        }))
    (mapped, mayBeMapped) = (isMapped ? wanted : nil, isMapped)
  }
}

// MARK: - Accesses

extension VGAEndpoint {
  mutating func read(
    region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) -> UInt64 {
    guard let memory, offset <= UInt64(UInt32.max) else { return width.floating }
    defer { updateWindow(services) }
    let place = UInt16(truncatingIfNeeded: offset)
    switch region {
    case Region.ports:
      return vga.read(at: Self.portBase &+ place, width: width, now: services.now)
    case Region.vbe:
      return vga.read(at: Self.vbeBase &+ place, width: width, now: services.now)
    case Region.window:
      return vga.readWindow(at: Int(offset), width: width, memory: memory)
    case Region.registers:
      return vga.readRegion(at: place, width: width, now: services.now)
    case Region.configuration:
      return 0
    case Region.frameBuffer:
      return (0..<width.byteCount).reduce(0) {
        $0 | UInt64(memory.load(Int(offset) + $1)) << UInt64(8 * $1)
      }
    default:
      return width.floating
    }
  }

  mutating func write(
    _ value: UInt64, region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) {
    guard var memory, offset <= UInt64(UInt32.max) else { return }
    let place = UInt16(truncatingIfNeeded: offset)
    var cleared: Range<Int>?
    switch region {
    case Region.ports:
      cleared = vga.write(value, at: Self.portBase &+ place, width: width, now: services.now)
    case Region.vbe:
      cleared = vga.write(value, at: Self.vbeBase &+ place, width: width, now: services.now)
    case Region.window:
      vga.writeWindow(value, at: Int(offset), width: width, memory: &memory)
    case Region.registers:
      cleared = vga.writeRegion(value, at: place, width: width, now: services.now)
    case Region.frameBuffer:
      for lane in 0..<width.byteCount {
        memory.store(
          UInt8(truncatingIfNeeded: value >> UInt64(8 * lane)), at: Int(offset) + lane)
      }
    default:
      break
    }
    // Before the answer: the guest may write there right after, without an exit.
    if let cleared { memory.fill(cleared, with: 0) }
    if region != Region.window { updateWindow(services) }
  }
}

// MARK: - The screen

extension VGAEndpoint {
  /// The largest width and height that the reply may have.
  private static let longestSide = 4096
  /// How many bytes are written at once.
  private static let pieceByteCount = 256 << 10

  mutating func screendump(_ byteCount: Int, services: HostServices) throws(Refusal)
    -> ScreendumpReply
  {
    guard let memory, let file = services.attached else {
      throw Refusal("no memory came along for the picture")
    }
    let frame = vga.frame(now: services.now)
    guard frame.width <= Self.longestSide, frame.height <= Self.longestSide else {
      throw Refusal("the screen of \(frame.width) by \(frame.height) is too large")
    }
    let needed = frame.width * frame.height * 4
    // The file's own size counts, whatever the message says.
    guard needed <= byteCount, UInt64(needed) <= (try? file.size()) ?? 0 else {
      throw Refusal("a screen of \(frame.width) by \(frame.height) takes \(needed) bytes")
    }
    do throws(SystemError) {
      try write(frame, memory, to: file)
    } catch {
      throw Refusal("the picture was not written: \(error)")
    }
    return ScreendumpReply(
      width: UInt32(frame.width), height: UInt32(frame.height),
      text: frame.textLines(memory: memory).joined(separator: "\n"))
  }

  private func write(
    _ frame: VGAFrame, _ memory: MappedVideoMemory, to file: Descriptor
  ) throws(SystemError) {
    var pixels = [UInt32](repeating: 0, count: frame.width)
    var piece: [UInt8] = []
    piece.reserveCapacity(Self.pieceByteCount + frame.width * 4)
    var position: UInt64 = 0
    for line in 0..<frame.height {
      frame.render(line: line, memory: memory, into: &pixels)
      for pixel in pixels {
        piece.append(UInt8(truncatingIfNeeded: pixel))
        piece.append(UInt8(truncatingIfNeeded: pixel >> 8))
        piece.append(UInt8(truncatingIfNeeded: pixel >> 16))
        piece.append(0)
      }
      guard piece.count >= Self.pieceByteCount || line == frame.height - 1 else { continue }
      try file.write(piece, at: position)
      position += UInt64(piece.count)
      piece.removeAll(keepingCapacity: true)
    }
  }
}
