// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import PIIX
internal import PS2

/// The board and the keyboard controller, wired to the core.
struct PIIXEndpoint: DeviceEndpoint {
  var board: PIIXBoard
  var keyboard = I8042()
  var console: DebugOutput
  let hasConsole: Bool
  let exitPort: UInt16?
  let hasPanicPort: Bool
  private let files: KernelFiles?

  /// What the guest asks of the machine; sent once it is committed.
  private var pendingPower: PendingPower = .none
  private var exitCode: UInt8 = 0
  /// A reset was asked for and has not come yet: it is not asked for again.
  private var isResetDue = false
  /// The fw_cfg block that came with the write being served.
  private var descriptor: [UInt8] = []
  /// A transfer is over, and the window is still open.
  private var isWindowOpen = false

  /// What the core was last told, not state; `nil` when it has to be told anyway.
  private var published: Published?
  /// Whether the core takes requests: not before the device is ready.
  private var isServing = false

  private enum PendingPower: UInt8 {
    case none = 0
    case suspend = 1
    case reset = 2
    case wake = 3
    case powerOff = 4
    case exit = 5
  }

  private struct Published: Equatable {
    var powerManagement: UInt16?
    var smbus: UInt16?
    var routes: [UInt8]
  }

  /// The watcher's number by which the endpoint wakes itself when it is ready.
  private static let firstWake = 63

  init(_ settings: PIIXSettings, console: DebugOutput, files: KernelFiles? = nil) {
    board = Self.board(settings, files)
    self.files = files
    self.console = console
    hasConsole = settings.hasDebugConsole
    exitPort = UInt16(exactly: settings.exitPort)
    hasPanicPort = settings.hasPanicPort
  }

  // MARK: - Life

  mutating func granted(_ services: HostServices) throws(ChannelError) {
    if hasConsole {
      console.attach(services)
      services.mirror(Self.mirrored.entry, Self.mirrored.value, withPosts: true)
    }
    services.watcher.notify(Self.firstWake)
  }

  mutating func ready(_ sources: UInt64, services: HostServices) {
    isServing = true
    console.ready(sources, services)
  }

  mutating func reset(_ services: HostServices) {
    isServing = true
    board.reset()
    keyboard.reset()
    pendingPower = .none
    isResetDue = false
    descriptor = []
    isWindowOpen = false
    published = nil
  }

  mutating func flush(_ services: HostServices) { console.flush(services) }

  // MARK: - Accesses

  mutating func read(
    region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) -> UInt64 {
    isServing = true
    let port = UInt16(truncatingIfNeeded: offset)
    switch region {
    case OwnRegion.bridge:
      return UInt64(
        board.readConfig(.isaBridge, at: UInt8(truncatingIfNeeded: offset), width: width))
    case OwnRegion.powerManagement:
      return UInt64(
        board.readConfig(.powerManagement, at: UInt8(truncatingIfNeeded: offset), width: width))
    case OwnRegion.keyboardData: return UInt64(keyboard.read(at: 0, width: width))
    case OwnRegion.keyboardCommand: return UInt64(keyboard.read(at: 4, width: width))
    default:
      guard let region = Self.region(region) else { return width.floating }
      return UInt64(
        board.read(region, at: port, width: width, now: services.now, blobByte: blobByte()))
    }
  }

  mutating func readBlock(
    region: UInt16, offset: UInt64, width: AccessWidth, items: Int, services: HostServices
  ) -> [UInt8] {
    isServing = true
    var bytes: [UInt8] = []
    bytes.reserveCapacity(items * width.byteCount)
    if Self.region(region) == .firmwareConfiguration, offset == 1, width == .byte {
      for _ in 0..<items { bytes.append(board.firmware.read(at: 1, blobByte: blobByte())) }
      return bytes
    }
    for _ in 0..<items {
      let value = read(region: region, offset: offset, width: width, services: services)
      for lane in 0..<width.byteCount {
        bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * lane)))
      }
    }
    return bytes
  }

  mutating func write(
    _ value: UInt64, region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) {
    isServing = true
    let value = UInt32(truncatingIfNeeded: value)
    let port = UInt16(truncatingIfNeeded: offset)
    switch region {
    case OwnRegion.bridge:
      _ = board.writeConfig(.isaBridge, value, at: UInt8(truncatingIfNeeded: port), width: width)
    case OwnRegion.powerManagement:
      _ = board.writeConfig(
        .powerManagement, value, at: UInt8(truncatingIfNeeded: port), width: width)
    case OwnRegion.keyboardData:
      if keyboard.write(value, at: 0, width: width) == .reset { ask(.reset) }
    case OwnRegion.keyboardCommand:
      if keyboard.write(value, at: 4, width: width) == .reset { ask(.reset) }
    default:
      guard let region = Self.region(region) else { return }
      let request = board.write(region, value, at: port, width: width, now: services.now)
      if let request { obey(request, services) }
      noteWake()
    }
    descriptor = []
  }

  /// The byte of a kernel's file that the data port gives next.
  private func blobByte() -> UInt8 {
    guard let files, let cursor = board.firmware.blobAtCursor else { return 0 }
    return files.byte(cursor.id, cursor.offset)
  }

  private static func region(_ number: UInt16) -> PIIXBoard.Region? {
    UInt8(exactly: number).flatMap { PIIXBoard.Region(rawValue: $0) }
  }

  private mutating func obey(_ request: PIIXBoard.Request, _ services: HostServices) {
    switch request {
    case .print(let byte): console.put(byte, services)
    case .powerOff: ask(.powerOff)
    case .suspend: ask(.suspend)
    case .reset: ask(.reset)
    case .exit(let code):
      guard pendingPower != .exit else { return }
      exitCode = UInt8(truncatingIfNeeded: code)
      ask(.exit)
    case .panicked(let isCrashLoaded):
      services.notify(NoticeMessage(isCrashLoaded ? .crashLoaded : .panicked))
    case .firmwareTransfer: transfer(services)
    }
  }

  private mutating func ask(_ power: PendingPower) {
    if power == .reset || power == .wake {
      guard !isResetDue else { return }
      isResetDue = true
    }
    // What ends the machine goes before what starts it again.
    if power.rawValue > pendingPower.rawValue { pendingPower = power }
  }

  /// Asks for the reset with which the machine wakes, once what wakes it is there.
  private mutating func noteWake() {
    if board.power.isWoken { ask(.wake) }
  }

  // MARK: - fw_cfg

  mutating func descriptorRead(_ content: [UInt8], window: UInt16, services: HostServices) {
    if window == Self.firmwareWindow { descriptor = content }
  }

  /// Does a transfer; without a block in guest memory there is nothing to do or to say.
  private mutating func transfer(_ services: HostServices) {
    guard descriptor.count == 16, let bounce = services.bounce else { return }
    var block = [16 of UInt8](repeating: 0)
    for index in 0..<16 { block[index] = descriptor[index] }
    let transfer = board.firmware.beginTransfer(block)
    var isGood = true
    for step in transfer.steps where isGood { isGood = perform(step, bounce, services) }
    let control = isGood ? transfer.control : FwCfg.errorControl
    // The guest waits for this word: it comes last.
    bounce.store(control.bigEndian, at: 0)
    _ = services.transfer(
      window: Self.firmwareWindow, .toGuest, windowOffset: 0, bounceOffset: 0, byteCount: 4)
    isWindowOpen = true
  }

  /// Copies what a step says, a bounce buffer at a time; returns whether all of it went.
  private func perform(_ step: FwCfg.Step, _ bounce: Mapping, _ services: HostServices) -> Bool {
    var source: [UInt8] = []
    var blob: UInt32?
    let from: Int
    let window: UInt32
    let length: Int
    switch step {
    case .copyItem(let key, let offset, let place, let count):
      guard let bytes = board.firmware.bytes(of: key),
        Int(offset) + Int(count) <= bytes.count
      else { return false }
      (source, from, window, length) = (bytes, Int(offset), place, Int(count))
    case .zero(let place, let count):
      let size = min(Int(count), bounce.byteCount)
      bounce.fill(0, at: 0, count: size)
      (from, window, length) = (0, place, Int(count))
    case .copyBlob(let id, let offset, let place, let count):
      blob = id
      (from, window, length) = (Int(offset), place, Int(count))
    }
    var done = 0
    while done < length {
      let count = min(length - done, bounce.byteCount)
      if !source.isEmpty {
        bounce.copy(Array(source[(from + done)..<(from + done + count)]), to: 0)
      }
      if let blob {
        let isThere = files?.read(blob, UInt64(from + done), count, into: bounce) ?? false
        guard isThere else { return false }
      }
      // The control word's four bytes come before the data.
      let copied = services.transfer(
        window: Self.firmwareWindow, .toGuest, windowOffset: 4 + UInt64(window) + UInt64(done),
        bounceOffset: 0, byteCount: count)
      guard copied == count else { return false }
      done += count
    }
    return true
  }

  // MARK: - Time and keys

  var deadline: VMTime? {
    guard let first = board.nextDeadline else { return console.deadline }
    return console.deadline.map { min($0, first) } ?? first
  }

  mutating func elapsed(_ services: HostServices) {
    isServing = true
    board.advance(to: services.now)
    noteWake()
    console.elapsed(services)
  }

  mutating func input(_ request: InputRequest, services: HostServices) {
    isServing = true
    for event in request.keys {
      guard let key = Key(name: event.name) else {
        Log.line("there is no key called \(event.name)")
        continue
      }
      if event.isDown { keyboard.keyboard.press(key) } else { keyboard.keyboard.release(key) }
    }
    board.power.reportInput()
    noteWake()
  }

  mutating func point(_ request: PointerRequest, services: HostServices) {
    isServing = true
    keyboard.mouse.move(dx: request.dx, dy: request.dy, wheel: request.wheel)
    let held = keyboard.mouse.buttons.rawValue | request.pressed
    keyboard.mouse.setButtons(PS2Mouse.Buttons(rawValue: held & ~request.released))
    board.power.reportInput()
    noteWake()
  }

  mutating func pressPowerButton(_ services: HostServices) throws(Refusal) {
    isServing = true
    board.power.pressPowerButton()
    noteWake()
  }

  // MARK: - Outputs

  mutating func publish(_ services: HostServices) {
    services.setLine(Line.clock, board.clockInterrupt)
    services.setLine(Line.systemControl, board.systemControlInterrupt)
    reportKeyboard(services)
    if keyboard.deliver() { reportKeyboard(services) }
    guard isServing else { return }
    publishPlaces(services)
    if isWindowOpen {
      isWindowOpen = false
      services.closeWindow(Self.firmwareWindow)
    }
    let power = pendingPower
    pendingPower = .none
    switch power {
    case .none: break
    case .suspend: services.power(PowerRequest(.suspend))
    case .wake: services.power(PowerRequest(.wake))
    case .reset: services.power(PowerRequest(.reset))
    case .powerOff: services.power(PowerRequest(.powerOff))
    case .exit: services.power(PowerRequest(.exit, code: exitCode))
    }
  }

  private func reportKeyboard(_ services: HostServices) {
    services.setLine(Line.keyboard, keyboard.keyboardInterrupt)
    services.setLine(Line.mouse, keyboard.mouseInterrupt)
  }

  /// Tells the core where the movable regions are and how interrupts are routed, if it changed.
  private mutating func publishPlaces(_ services: HostServices) {
    let routes = (0..<PIIX3ISABridge.linkCount).map {
      board.bridge.interrupt(forLink: $0) ?? 0xFF
    }
    let new = Published(
      powerManagement: Self.movable(board.base(of: .powerManagement)),
      smbus: Self.movable(board.base(of: .smbus)), routes: routes)
    guard new != published else { return }
    let old = published
    published = new
    if old == nil || old?.powerManagement != new.powerManagement {
      services.move(UInt16(PIIXBoard.Region.powerManagement.rawValue), to: new.powerManagement)
    }
    if old == nil || old?.smbus != new.smbus {
      services.move(UInt16(PIIXBoard.Region.smbus.rawValue), to: new.smbus)
    }
    if old?.routes != new.routes { services.routePIRQ(new.routes) }
  }

  private static func movable(_ base: UInt16?) -> UInt16? {
    base.flatMap { $0 >= lowestMovable ? $0 : nil }
  }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("board", &board)
    visitor.part("keyboard", &keyboard)
    visitor.part("console", &console)
    visitor.field("pendingPower", &pendingPower)
    visitor.field("exitCode", &exitCode)
    visitor.field("isResetDue", &isResetDue)
    visitor.field("isWindowOpen", &isWindowOpen)
  }
}
